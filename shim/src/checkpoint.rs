//! Taking a checkpoint: CRIU dumps straight into a snapshot of containerd's, which
//! `reprise publish` then makes an image of. What containerd asked for is the dump; an
//! image that cannot be made is a line in the log.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use oci_spec::runtime::Spec;
use reprise_runtime::checkpoint::{MANIFEST_VERSION, Manifest, Needs, Origin};
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{Fingerprint, Subject as Likeness};
use reprise_runtime::plan;
use reprise_runtime::publish::{Begun, Commit, Publisher};
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::start::Start;
use reprise_runtime::worker::{self, DiffCopy, Dump};
use reprise_runtime::{Error, ErrorKind, Result, volumes};

use crate::cri;
use crate::house::House;
use crate::request::CheckpointRequest;
use crate::runtime::{Dumped, Subject};
use crate::telemetry;

/// Takes it. Blocks for as long as the dump takes.
///
/// # Errors
/// The container is of a kind that cannot be dumped, or it could not be dumped, or,
/// without a path, not be stored; it is as before.
pub(crate) fn take(
    house: &House,
    subject: &Subject,
    request: &CheckpointRequest,
) -> Result<Dumped> {
    let (spec, _) = worker::load_spec(&subject.bundle.join("config.json"))?;
    plan::checkpointable(&spec)?;
    let staged = match begin(house, &spec, subject, request) {
        Ok(staged) => Some(staged),
        Err(error) if request.path.is_none() => return Err(error),
        Err(error) => {
            telemetry::log_failure(&subject.id, NOT_PUBLISHED, &error);
            None
        }
    };
    let images = match (&request.path, &staged) {
        (Some(path), _) => {
            std::fs::create_dir_all(path).doing(format!("Cannot make {}", path.display()))?;
            path.clone()
        }
        (None, Some(staged)) => staged.place.images.clone(),
        (None, None) => return Err(Error::internal("There is no place for the checkpoint")),
    };
    let copies = match (&staged, RootfsMount::upper_dir(&subject.rootfs)) {
        (Some(staged), Some(upper)) => vec![DiffCopy {
            from: upper,
            to: staged.place.rootfs.join("0"),
        }],
        _ => Vec::new(),
    };
    let dump = Dump {
        namespace: subject.namespace.clone(),
        id: subject.id.clone(),
        pid: subject.pid,
        bundle: subject.bundle.clone(),
        state_root: subject.state_root.clone(),
        images: images.clone(),
        work_path: request.work_path.clone(),
        criu: house.criu(),
        exit: request.exit,
        open_tcp: request.open_tcp,
        external_unix_sockets: request.external_unix_sockets,
        file_locks: request.file_locks,
        copies,
    };
    let dumped = house.spawn()?.dump(dump)?;
    let since = Instant::now();
    if request.path.is_some() {
        cri::add_statistics(&subject.bundle, &subject.id, &images);
    }
    let mut taken = Dumped {
        stored: None,
        frozen_us: dumped.frozen_us,
        image_bytes: dumped.image_bytes,
        publish_us: 0,
    };
    let Some(staged) = staged else {
        return Ok(taken);
    };
    let id = staged.place.id.clone();
    match publish(house, subject, request, staged, &taken) {
        Ok(publisher) => {
            taken.stored = Some(id);
            taken.publish_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            settle_beside(subject.id.clone(), publisher);
        }
        Err(error) if request.path.is_none() => return Err(error),
        Err(error) => telemetry::log_failure(&subject.id, NOT_PUBLISHED, &error),
    }
    Ok(taken)
}

const NOT_PUBLISHED: &str = "the checkpoint does not become an image";

/// A checkpoint's place, and who it is of.
struct Staged {
    publisher: Publisher,
    place: Begun,
    identity: Identity,
}

fn begin(
    house: &House,
    spec: &Spec,
    subject: &Subject,
    request: &CheckpointRequest,
) -> Result<Staged> {
    house.publishes()?;
    let identity = Identity::of(spec, subject)?;
    let mut publisher = Publisher::spawn(&subject.containerd)?;
    let place = publisher.begin(&subject.namespace, &subject.id, request.image.as_deref())?;
    Ok(Staged {
        publisher,
        place,
        identity,
    })
}

/// Who the container is. Worked out when it is needed: most containers are never
/// checkpointed.
struct Identity {
    likeness: Likeness,
    origin: Origin,
}

impl Identity {
    fn of(spec: &Spec, subject: &Subject) -> Result<Self> {
        let contents = volumes::gather(spec)?;
        let likeness = Likeness::of(spec, &subject.namespace, &subject.rootfs, &contents);
        let likeness = likeness.ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                "Its root file system is no overlay with shared layers, so no other container \
                 could be restored from the checkpoint; use the overlayfs snapshotter",
            )
        })?;
        unchanged_since_start(&likeness, &subject.state_root.join(&subject.id))?;
        Ok(Self {
            likeness,
            origin: Origin::of(spec, &subject.namespace, &subject.id),
        })
    }
}

/// What a program has read of its volumes is in its memory, and nobody knows when it
/// read it. So a checkpoint is good for others only if they are as they were when
/// the container was made.
fn unchanged_since_start(likeness: &Likeness, state: &Path) -> Result<()> {
    let Some(start) = Start::read(state)? else {
        return Ok(());
    };
    if start.fields.is_empty() {
        return Ok(());
    }
    let mut differ = start.fields.differences(&likeness.hashes());
    differ.retain(|field| matches!(field.as_str(), "volumes" | "service_account"));
    if differ.is_empty() {
        return Ok(());
    }
    let what = start.shown.differences(&likeness.shown(), &differ);
    let what = what.into_iter().find_map(|difference| difference.what);
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        format!(
            "A ConfigMap, Secret or projected volume ({}) has changed since the container \
             started, so nobody knows which content its memory holds; restart it and take the \
             checkpoint then",
            what.unwrap_or_default()
        ),
    ))
}

fn publish(
    house: &House,
    subject: &Subject,
    request: &CheckpointRequest,
    staged: Staged,
    dumped: &Dumped,
) -> Result<Publisher> {
    let Staged {
        mut publisher,
        place,
        identity,
    } = staged;
    let dump = request.path.as_ref().unwrap_or(&place.images);
    let node = house.node();
    let fields = identity.likeness.hashes();
    let memory_bytes = pages_bytes(dump);
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        id: place.id,
        fingerprint: Fingerprint::of(&fields),
        origin: identity.origin,
        created_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        needs: Needs {
            arch: node.arch,
            cpu_features: node.cpu_features.into_iter().collect(),
            kernel: node.kernel,
            criu_version: node.criu.map_err(Error::internal)?,
            memory_bytes,
        },
        image_bytes: dumped.image_bytes,
        frozen_us: dumped.frozen_us,
        layers: Vec::new(),
        files: Vec::new(),
        fields,
        shown: identity.likeness.shown(),
        base: None,
    };
    publisher.commit(Commit {
        manifest,
        images: request.path.clone(),
        layers: subject.layers.clone(),
    })?;
    Ok(publisher)
}

/// Memory that the processes held: all of CRIU's page files.
fn pages_bytes(images: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(images) else {
        return 0;
    };
    files
        .filter_map(std::io::Result::ok)
        .filter(|file| file.file_name().to_string_lossy().starts_with("pages-"))
        .filter_map(|file| file.metadata().ok())
        .map(|about| about.len())
        .sum()
}

/// Nobody waits for the disk: the checkpoint is good for this boot already.
fn settle_beside(container: String, publisher: Publisher) {
    let settling = std::thread::Builder::new().name("settle".to_owned());
    let spawned = settling.spawn(move || {
        if let Err(error) = publisher.settled() {
            telemetry::log_failure(&container, "the checkpoint may not outlive a crash", &error);
        }
    });
    if let Err(error) = spawned {
        log::error!(error = error.to_string().as_str(); "the checkpoint may not outlive a crash");
    }
}
