//! What the kubelet has put into a container's volumes, as far as it counts: an app
//! that read an older configuration when it started must not come back with it.
//!
//! ```text
//! <kubelet>/pods/<uid>/volumes/kubernetes.io~configmap/<volume>/       by content
//!                              kubernetes.io~secret/<volume>/          by content
//!                              kubernetes.io~projected/<volume>/       by content
//!                      volume-subpaths/<volume>/<container>/<n>        by content, if the
//!                                                                      volume is one of these
//! ```
//!
//! Other volumes are the new pod's own, and so is what the downward API says of it.
//! Of a token that was issued for the pod only the issuer and the audience count, and
//! its subject as the pod's service account: the token is another in every pod.
//!
//! [`kind_of`] is pure; [`gather`] reads, and reads no more than [`MAX_BYTES`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// How much is read of one container's volumes, in bytes. A ConfigMap or a Secret
/// holds at most 1 MiB.
pub const MAX_BYTES: u64 = 4 << 20;
/// How many files and directories are looked at.
const MAX_FILES: usize = 4096;
/// Directories within each other.
const MAX_DEPTH: usize = 16;
/// The kubelet publishes a volume's files through this link, all at once.
const DATA: &str = "..data";

/// What of a container's volumes counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// For each destination what is below it: path, and a word for its mode and
    /// content.
    pub volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// The subject of the pod's token: `system:serviceaccount:<namespace>:<name>`.
    pub service_account: Option<String>,
}

/// A kind of volume whose content counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// Several sources in one, tokens among them.
    Projected,
}

impl Kind {
    const ALL: [(Self, &str); 3] = [
        (Self::ConfigMap, "kubernetes.io~configmap"),
        (Self::Secret, "kubernetes.io~secret"),
        (Self::Projected, "kubernetes.io~projected"),
    ];
}

/// Where a mount's source says that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A volume of this kind.
    Volume(Kind),
    /// A part of a volume; its kind is that of the first of these directories that
    /// is there.
    Part([(Kind, PathBuf); 3]),
}

/// What a mount's source is, by its path alone. `None`: nothing that counts.
#[must_use]
pub fn kind_of(source: &Path) -> Option<Source> {
    let parts: Vec<&str> = source
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => Some("/"),
        })
        .collect::<Option<_>>()?;
    (0..parts.len()).find_map(|at| below_pods(&parts, at))
}

/// The same, if the kubelet's directory of pods is the one at `at`.
fn below_pods(parts: &[&str], at: usize) -> Option<Source> {
    let ["pods", _uid, below @ ..] = parts.get(at..)? else {
        return None;
    };
    match below {
        ["volumes", plugin, _volume, ..] => Kind::ALL
            .into_iter()
            .find(|(_, name)| name == plugin)
            .map(|(kind, _)| Source::Volume(kind)),
        ["volume-subpaths", volume, _container, _n] => {
            let pod: PathBuf = parts.get(..at + 2)?.iter().collect();
            let at = |plugin: &str| pod.join("volumes").join(plugin).join(volume);
            Some(Source::Part(Kind::ALL.map(|(kind, name)| (kind, at(name)))))
        }
        _ => None,
    }
}

/// Reads what counts. Without such mounts nothing is looked at.
///
/// # Errors
/// FailedPrecondition, in one line: they cannot be read, or hold too much to be
/// compared. The container then matches nothing.
pub fn gather(spec: &Spec) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut left = Budget {
        bytes: MAX_BYTES,
        files: MAX_FILES,
    };
    for mount in spec.mounts().iter().flatten() {
        let Some(source) = mount.source() else {
            continue;
        };
        let kind = match kind_of(source) {
            Some(Source::Volume(kind)) => kind,
            Some(Source::Part(places)) => match places.iter().find(|(_, dir)| dir.is_dir()) {
                Some((kind, _)) => *kind,
                None => continue,
            },
            None => continue,
        };
        let destination = mount.destination().to_string_lossy().into_owned();
        let read = read(source, kind, &mut left).map_err(|e| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("The volume at {destination} cannot be compared: {e}"),
            )
        })?;
        contents.volumes.insert(destination, read.files);
        if read.subject.is_some() {
            contents.service_account = read.subject;
        }
    }
    Ok(contents)
}

/// What may still be read.
#[derive(Debug, Clone, Copy)]
struct Budget {
    bytes: u64,
    files: usize,
}

/// What was found in a volume.
#[derive(Debug, Default)]
struct Found {
    files: BTreeMap<String, String>,
    subject: Option<String>,
}

/// Reads a volume. The kubelet may exchange its files meanwhile: then once more.
fn read(source: &Path, kind: Kind, left: &mut Budget) -> io::Result<Found> {
    let before = *left;
    match read_once(source, kind, left) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            *left = before;
            read_once(source, kind, left)
        }
        done => done,
    }
}

fn read_once(source: &Path, kind: Kind, left: &mut Budget) -> io::Result<Found> {
    let mut found = Found::default();
    let data = match fs::read_link(source.join(DATA)) {
        // Its own directories only: the link is not for pods to choose.
        Ok(to) if is_one_name(&to) => source.join(to),
        Ok(_) => return Err(io::Error::other("its ..data leads elsewhere")),
        Err(_) => source.to_owned(),
    };
    walk(&data, "", kind, 0, left, &mut found)?;
    Ok(found)
}

fn is_one_name(path: &Path) -> bool {
    let mut parts = path.components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

/// Notes what is at `path`, called `name` in the volume; follows no link.
fn walk(
    path: &Path,
    name: &str,
    kind: Kind,
    depth: usize,
    left: &mut Budget,
    found: &mut Found,
) -> io::Result<()> {
    left.files = left
        .files
        .checked_sub(1)
        .filter(|_| depth <= MAX_DEPTH)
        .ok_or_else(|| io::Error::other(format!("it holds more than {MAX_FILES} files")))?;
    let about = fs::symlink_metadata(path)?;
    let mode = about.mode() & 0o7777;
    let what = if about.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?.file_name();
            let entry = entry.to_string_lossy();
            let below = if name.is_empty() {
                entry.clone().into_owned()
            } else {
                format!("{name}/{entry}")
            };
            walk(&path.join(&*entry), &below, kind, depth + 1, left, found)?;
        }
        if name.is_empty() {
            return Ok(());
        }
        "directory".to_owned()
    } else if about.is_symlink() {
        format!(
            "link {}",
            hash(fs::read_link(path)?.as_os_str().as_encoded_bytes())
        )
    } else if about.is_file() {
        content(&read_file(path, left)?, kind, found)
    } else {
        "special".to_owned()
    };
    let name = if name.is_empty() { "." } else { name };
    found
        .files
        .insert(name.to_owned(), format!("{mode:04o} {what}"));
    Ok(())
}

fn read_file(path: &Path, left: &mut Budget) -> io::Result<Vec<u8>> {
    // Neither a link nor a pipe that took the file's place a moment ago.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(left.bytes + 1).read_to_end(&mut bytes)?;
    left.bytes = u64::try_from(bytes.len())
        .ok()
        .and_then(|read| left.bytes.checked_sub(read))
        .ok_or_else(|| {
            io::Error::other(format!(
                "the container's volumes hold more than {} MiB",
                MAX_BYTES >> 20
            ))
        })?;
    Ok(bytes)
}

/// A word for a file's content.
fn content(bytes: &[u8], kind: Kind, found: &mut Found) -> String {
    if kind == Kind::Projected
        && let Some(token) = Token::of_a_pod(bytes)
    {
        let word = format!("token {}", hash(token.scope.as_bytes()));
        found.subject = Some(token.sub);
        return word;
    }
    hash(bytes)
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a service account's token says. Nobody checks its signature: the kubelet
/// wrote it.
#[derive(Debug)]
struct Token {
    sub: String,
    /// Its issuer and its audience.
    scope: String,
}

impl Token {
    /// The token in a file, if it is one that is good only as long as a pod lives:
    /// three parts of base64 with dots between, the second of them JSON (RFC 7519).
    fn of_a_pod(file: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(file).ok()?.trim_end();
        let mut parts = text.split('.');
        let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        claims["kubernetes.io"]["pod"].as_object()?;
        Some(Self {
            sub: claims["sub"].as_str()?.to_owned(),
            scope: json!([claims["iss"], claims["aud"]]).to_string(),
        })
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
