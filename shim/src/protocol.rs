//! Protobuf <-> our types, and errors -> ttrpc codes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use containerd_shim::protos::api;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{self, EnumOrUnknown, Message, MessageField};
use containerd_shim::protos::shim::oci;
use containerd_shim::protos::ttrpc;
use oci_spec::runtime::LinuxResources;
use reprise_runtime::publish::IMAGE_HEADER;
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::worker;
use reprise_runtime::{Error, ErrorKind, Result};

use crate::driver::View;
use crate::events::to_timestamp;
use crate::folder::Folder;
use crate::reaper::Exit;
use crate::request::{CheckpointRequest, CreateRequest, ExecRequest};
use crate::stdio::Paths;
use crate::task::Status;

/// Options of runtimes that are not runc's, as containerd's CRI plugin sends them.
const GENERIC_OPTIONS: &str = "runtimeoptions.v1.Options";

/// An error as ttrpc has it: its code, and one line that names the container.
pub(crate) fn to_status(container: &str, error: &Error) -> ttrpc::Error {
    let line = error.message.lines().collect::<Vec<_>>().join("; ");
    let line = format!("container {container}: {line}");
    ttrpc::Error::RpcStatus(ttrpc::get_status(code(error.kind), line))
}

/// The codes of runc's shim, for which clients may be written. What its runtime refuses,
/// or the state of a container does not allow, is a plain error there. Of
/// "Unimplemented" containerd would ask again in an older version of the protocol, and
/// tell the user of that failure instead of ours.
fn code(kind: ErrorKind) -> ttrpc::Code {
    match kind {
        ErrorKind::NotFound => ttrpc::Code::NOT_FOUND,
        ErrorKind::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        ErrorKind::Ended => ttrpc::Code::FAILED_PRECONDITION,
        ErrorKind::Unavailable => ttrpc::Code::UNAVAILABLE,
        ErrorKind::FailedPrecondition
        | ErrorKind::InvalidArgument
        | ErrorKind::Unimplemented
        | ErrorKind::Internal => ttrpc::Code::UNKNOWN,
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Ids name folders and cgroups of ours.
fn checked_id(id: &str, what: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.starts_with('.') || !id.chars().all(fits) {
        return Err(invalid(format!("Not a {what}: {id:?}")));
    }
    Ok(())
}

/// A Create.
///
/// # Errors
/// Something in it that we do not know or do not do.
pub(crate) fn create(request: api::CreateTaskRequest, namespace: &str) -> Result<CreateRequest> {
    checked_id(&request.id, "container id")?;
    let options = runc_options(request.options.as_ref())?;
    if !request.parent_checkpoint.is_empty() {
        return Err(Error::new(
            ErrorKind::Unimplemented,
            "Incremental checkpoints (parent_checkpoint) are not supported",
        ));
    }
    let rootfs = request.rootfs.into_iter().map(|mount| RootfsMount {
        typ: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    let root = Some(Path::new(&options.root)).filter(|root| root.is_absolute());
    let folder = root.map(|root| Folder::new(root, namespace, &request.id));
    Ok(CreateRequest {
        folder,
        id: request.id,
        namespace: namespace.to_owned(),
        bundle: PathBuf::from(request.bundle),
        rootfs: rootfs.collect(),
        stdio: Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
        checkpoint: (!request.checkpoint.is_empty()).then(|| request.checkpoint.into()),
        no_pivot_root: options.no_pivot_root,
        systemd_cgroup: options.systemd_cgroup,
        io_owner: (options.io_uid != 0 || options.io_gid != 0)
            .then_some((options.io_uid, options.io_gid)),
    })
}

fn runc_options(options: Option<&Any>) -> Result<oci::Options> {
    let Some(any) = options else {
        return Ok(oci::Options::default());
    };
    if any.value.is_empty() && any.type_url.is_empty() {
        return Ok(oci::Options::default());
    }
    if is_of_type(any, "containerd.runc.v1.Options") {
        return oci::Options::parse_from_bytes(&any.value)
            .map_err(|e| Error::because("Cannot read the runtime options", &e))
            .map_err(|e| e.with_kind(ErrorKind::InvalidArgument));
    }
    if is_of_type(any, GENERIC_OPTIONS) {
        // Their content is the runtime's own; ours is in /etc/reprise/config.toml.
        return Ok(oci::Options::default());
    }
    Err(invalid(format!(
        "Unknown runtime options {:?}; use containerd.runc.v1.Options or none",
        any.type_url
    )))
}

/// An Exec.
///
/// # Errors
/// A spec that cannot be read.
pub(crate) fn exec(request: api::ExecProcessRequest) -> Result<ExecRequest> {
    checked_id(&request.exec_id, "process id")?;
    let spec = request.spec.as_ref().map(|any| any.value.as_slice());
    let spec = spec.unwrap_or_default();
    // What is no JSON is refused here.
    serde_json::from_slice::<serde::de::IgnoredAny>(spec)
        .map_err(|e| invalid(format!("cannot read the process to execute: {e}")))?;
    let process = worker::load_process(spec).map(|mut process| {
        process.set_terminal(Some(request.terminal));
        process
    });
    Ok(ExecRequest {
        exec: request.exec_id,
        process,
        stdio: Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
    })
}

/// New limits.
///
/// # Errors
/// Resources that cannot be read.
pub(crate) fn resources(request: &api::UpdateTaskRequest) -> Result<LinuxResources> {
    let any = request.resources.as_ref();
    worker::load_resources(any.map(|any| any.value.as_slice()).unwrap_or_default())
}

/// A Checkpoint. Without options the container goes on running.
///
/// # Errors
/// Options that we do not know or do not do.
pub(crate) fn checkpoint(
    request: &api::CheckpointTaskRequest,
    metadata: &HashMap<String, Vec<String>>,
) -> Result<CheckpointRequest> {
    let options = match request.options.as_ref() {
        None => oci::CheckpointOptions::default(),
        Some(any) if any.type_url.is_empty() => oci::CheckpointOptions::default(),
        Some(any) if is_of_type(any, "containerd.runc.v1.CheckpointOptions") => {
            oci::CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|e| invalid(format!("Cannot read the checkpoint options: {e}")))?
        }
        Some(any) => {
            return Err(invalid(format!(
                "Unknown checkpoint options {:?}; use containerd.runc.v1.CheckpointOptions or none",
                any.type_url
            )));
        }
    };
    if !options.empty_namespaces.is_empty() {
        return Err(Error::new(
            ErrorKind::Unimplemented,
            "Checkpoints without some namespaces (empty_namespaces) are not supported",
        ));
    }
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    Ok(CheckpointRequest {
        // containerd puts ctr's --image-path into both.
        path: path(&options.image_path).or_else(|| path(&request.path)),
        work_path: path(&options.work_path),
        // What is ours alone has no place in containerd's options.
        image: metadata
            .get(IMAGE_HEADER)
            .and_then(|values| values.first())
            .cloned(),
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        file_locks: options.file_locks,
    })
}

/// Width or height of a console.
pub(crate) fn cells(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// State's answer.
pub(crate) fn state(id: &str, exec: &str, view: View) -> api::StateResponse {
    let status = match view.status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Pausing => api::Status::PAUSING,
        Status::Paused => api::Status::PAUSED,
        Status::Stopped => api::Status::STOPPED,
    };
    api::StateResponse {
        // The Go shim answers with the process' own id.
        id: if exec.is_empty() { id } else { exec }.to_owned(),
        exec_id: exec.to_owned(),
        bundle: view.bundle.to_string_lossy().into_owned(),
        pid: view.pid.unsigned_abs(),
        status: EnumOrUnknown::new(status),
        stdin: view.stdio.stdin,
        stdout: view.stdio.stdout,
        stderr: view.stdio.stderr,
        terminal: view.stdio.terminal,
        exit_status: view.exit.map_or(0, |exit| exit.status),
        exited_at: view
            .exit
            .map(|exit| to_timestamp(exit.at))
            .map_or_else(MessageField::none, MessageField::some),
        ..Default::default()
    }
}

/// Wait's answer.
pub(crate) fn waited(exit: Exit) -> api::WaitResponse {
    api::WaitResponse {
        exit_status: exit.status,
        exited_at: MessageField::some(to_timestamp(exit.at)),
        ..Default::default()
    }
}

/// Delete's answer.
pub(crate) fn deleted(pid: i32, exit: Exit) -> api::DeleteResponse {
    api::DeleteResponse {
        pid: pid.unsigned_abs(),
        exit_status: exit.status,
        exited_at: MessageField::some(to_timestamp(exit.at)),
        ..Default::default()
    }
}

/// Pids' answer: processes that we exec'd carry their id.
///
/// # Errors
/// Encoding.
pub(crate) fn pids(processes: Vec<(i32, Option<String>)>) -> Result<api::PidsResponse> {
    let mut answer = api::PidsResponse::default();
    for (pid, exec) in processes {
        let info = exec.map(|exec_id| {
            let details = oci::ProcessDetails {
                exec_id,
                ..Default::default()
            };
            to_any("containerd.runc.v1", &details)
        });
        let info = info
            .transpose()
            .map_err(|e| Error::because("Cannot encode a process", &e))?;
        answer.processes.push(api::ProcessInfo {
            pid: pid.unsigned_abs(),
            info: info.map_or_else(MessageField::none, MessageField::some),
            ..Default::default()
        });
    }
    Ok(answer)
}

/// A message beside the name of its type: its package and its own. Not by
/// protobuf's reflection, which would keep half a megabyte of descriptors.
///
/// # Errors
/// Encoding.
pub(crate) fn to_any<M: Message>(package: &str, message: &M) -> protobuf::Result<Any> {
    Ok(Any {
        type_url: format!("{package}.{}", M::NAME),
        value: message.write_to_bytes()?,
        ..Default::default()
    })
}

/// By the name alone, for the same reason. Some write a host before it.
fn is_of_type(any: &Any, name: &str) -> bool {
    any.type_url.rsplit('/').next() == Some(name)
}

/// The annotation by which containers share a shim, if there is one.
pub(crate) fn grouping(annotations: &HashMap<String, String>) -> Option<&str> {
    [
        "io.containerd.runc.v2.group",
        "io.kubernetes.cri.sandbox-id",
    ]
    .into_iter()
    .find_map(|key| annotations.get(key))
    .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
        MessageField::some(Any {
            type_url: type_url.into(),
            value,
            ..Default::default()
        })
    }

    fn request() -> api::CreateTaskRequest {
        api::CreateTaskRequest {
            id: "c1".into(),
            bundle: "/b".into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_kind_has_the_code_of_runcs_shim() {
        let codes = [
            (ErrorKind::NotFound, ttrpc::Code::NOT_FOUND),
            (ErrorKind::AlreadyExists, ttrpc::Code::ALREADY_EXISTS),
            (ErrorKind::Ended, ttrpc::Code::FAILED_PRECONDITION),
            (ErrorKind::Unavailable, ttrpc::Code::UNAVAILABLE),
            // Plain errors of runc's shim.
            (ErrorKind::FailedPrecondition, ttrpc::Code::UNKNOWN),
            (ErrorKind::InvalidArgument, ttrpc::Code::UNKNOWN),
            (ErrorKind::Unimplemented, ttrpc::Code::UNKNOWN),
            (ErrorKind::Internal, ttrpc::Code::UNKNOWN),
        ];
        for (kind, expected) in codes {
            let ttrpc::Error::RpcStatus(status) = to_status("c1", &Error::new(kind, "a\nb")) else {
                panic!("not a status");
            };
            assert_eq!(status.code(), expected);
            assert_eq!(status.message, "container c1: a; b");
        }
    }

    #[test]
    fn both_kinds_of_options_are_accepted() {
        let mut with = request();
        let options = oci::Options {
            no_pivot_root: true,
            io_uid: 5,
            ..Default::default()
        };
        with.options = any(
            "containerd.runc.v1.Options",
            options.write_to_bytes().unwrap(),
        );
        let parsed = create(with, "ns").unwrap();
        assert!(parsed.no_pivot_root);
        assert_eq!(parsed.io_owner, Some((5, 0)));

        let mut with = request();
        with.options = any("runtimeoptions.v1.Options", vec![1, 2, 3]);
        assert!(create(with, "ns").is_ok());
    }

    #[test]
    fn unknown_options_are_refused_in_one_line() {
        let mut with = request();
        with.options = any("example.com/Strange", vec![1]);
        let error = create(with, "ns").unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.contains("example.com/Strange"));
    }

    #[test]
    fn ids_cannot_leave_our_folders() {
        for id in ["", "..", "a/b", ".x"] {
            let mut with = request();
            with.id = id.into();
            assert!(create(with, "ns").is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_checkpoint_without_options_leaves_it_running() {
        let request = api::CheckpointTaskRequest {
            path: "/tmp/x".into(),
            ..Default::default()
        };
        let parsed = checkpoint(&request, &HashMap::new()).unwrap();
        assert!(!parsed.exit && parsed.image.is_none());
        assert_eq!(parsed.path, Some("/tmp/x".into()));
        let named = HashMap::from([(IMAGE_HEADER.to_owned(), vec!["a/b:1".to_owned()])]);
        let parsed = checkpoint(&request, &named).unwrap();
        assert_eq!(parsed.image.as_deref(), Some("a/b:1"));
    }

    #[test]
    fn pods_share_a_shim() {
        let mut annotations =
            HashMap::from([("io.kubernetes.cri.sandbox-id".into(), "pod".into())]);
        assert_eq!(grouping(&annotations), Some("pod"));
        annotations.insert("io.containerd.runc.v2.group".into(), "g".into());
        assert_eq!(grouping(&annotations), Some("g"));
    }
}
