//! Annotations and the config file: what the operator and the user asked for.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Where the operator's settings are.
pub const CONFIG_PATH: &str = "/etc/reprise/config.toml";

/// The format of the config file that this build reads.
pub const CONFIG_VERSION: i64 = 1;

/// The annotation by which a pod says whether it may be restored.
pub const RESTORE_ANNOTATION: &str = "reprise.dev/restore";

/// The operator's settings.
///
/// ```toml
/// version = 1
/// [restore]
/// enabled = true
/// [checkpoint]
/// store = true
/// [criu]
/// path = "criu"
/// timeout_seconds = 60
/// [store]
/// path = "/var/lib/reprise"
/// [images]
/// trusted = []
/// refresh_wait_ms = 2000
/// seal = "push"
/// [containerd]
/// address = "/run/containerd/containerd.sock"
/// [limits]
/// node_bytes = 0
/// node_count = 0
/// namespace_bytes = 0
/// namespace_count = 0
/// max_age_days = 0
/// [log]
/// level = "info"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Format of the file; 0 for the defaults, which come from none.
    pub version: i64,
    /// Restoring.
    pub restore: RestoreConfig,
    /// Taking checkpoints.
    pub checkpoint: CheckpointConfig,
    /// CRIU.
    pub criu: CriuSettings,
    /// The store.
    pub store: StoreConfig,
    /// Checkpoint images.
    pub images: ImagesConfig,
    /// containerd.
    pub containerd: ContainerdConfig,
    /// How much of checkpoints is kept.
    pub limits: LimitsConfig,
    /// Logs.
    pub log: LogConfig,
}

/// `[restore]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreConfig {
    /// Whether containers may start from checkpoints.
    pub enabled: bool,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Whether checkpoints that are taken become findable.
    pub store: bool,
}

/// `[criu]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriuSettings {
    /// The executable, a path or a name looked up on PATH.
    pub path: PathBuf,
    /// How long one dump or restore may take, in seconds; at least 1.
    pub timeout_seconds: u32,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where checkpoints live.
    pub path: PathBuf,
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Names of images whose makers may run code in pods.
    pub trusted: Trusted,
    /// How long a container that has no checkpoint waits for the index, when
    /// containerd has got images since that was made; in milliseconds.
    pub refresh_wait_ms: u64,
    /// When a checkpoint's layer is made.
    pub seal: Seal,
}

/// `images.seal`: when the layer of a checkpoint that was taken here is made, without
/// which nobody but `reprise push` can push it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// By `reprise push` and `reprise seal`: until then it is written once.
    #[default]
    Push,
    /// After each checkpoint, one at a time, once that has reached the disk.
    Background,
}

/// Patterns of image names, in which `*` is any text without a slash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trusted(Vec<String>);

impl Trusted {
    /// Whether a name fits one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| {
            let (mut patterns, mut parts) = (pattern.split('/'), name.split('/'));
            loop {
                match (patterns.next(), parts.next()) {
                    (None, None) => return true,
                    (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
                    _ => return false,
                }
            }
        })
    }
}

/// Whether one part of a name fits one part of a pattern.
fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == part;
    };
    part.strip_prefix(before).is_some_and(|rest| {
        let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        ends.into_iter().any(|at| part_matches(after, &rest[at..]))
    })
}

/// `[containerd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerdConfig {
    /// The socket that the `reprise` program speaks to; shims know their own.
    pub address: PathBuf,
}

/// `[limits]`: how much of checkpoints a node keeps; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of all checkpoints together.
    pub node_bytes: u64,
    /// Number of all checkpoints.
    pub node_count: u64,
    /// Bytes of the checkpoints of one pod namespace.
    pub namespace_bytes: u64,
    /// Number of the checkpoints of one pod namespace.
    pub namespace_count: u64,
    /// Days since a checkpoint was made or last restored.
    pub max_age_days: u32,
}

impl LimitsConfig {
    /// What the whole node may keep.
    #[must_use]
    pub fn node(&self) -> Quota {
        Quota {
            bytes: self.node_bytes,
            count: self.node_count,
        }
    }

    /// What each pod namespace may keep.
    #[must_use]
    pub fn namespace(&self) -> Quota {
        Quota {
            bytes: self.namespace_bytes,
            count: self.namespace_count,
        }
    }
}

/// Bytes and number that may be kept; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// In bytes.
    pub bytes: u64,
    /// How many.
    pub count: u64,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

impl Default for RestoreConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { store: true }
    }
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            trusted: Trusted::default(),
            refresh_wait_ms: 2000,
            seal: Seal::default(),
        }
    }
}

impl Default for CriuSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("criu"),
            timeout_seconds: 60,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/reprise"),
        }
    }
}

impl Default for ContainerdConfig {
    fn default() -> Self {
        Self {
            address: PathBuf::from("/run/containerd/containerd.sock"),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
        }
    }
}

impl Config {
    /// Reads the settings; without a file they are the defaults.
    ///
    /// # Errors
    /// FailedPrecondition, in one line that names the file and what to do: it is
    /// unreadable, of an unknown version, or says something unknown.
    pub fn load(path: &Path) -> Result<Self> {
        let bad = |why: String| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("Config file {}: {why}", path.display()),
            )
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(bad(format!("{e}; make it a readable file or remove it"))),
        };
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let line = |e: &toml::de::Error| {
            let at = e.span().map_or(1, |span| {
                text.as_bytes()
                    .iter()
                    .take(span.start)
                    .filter(|b| **b == b'\n')
                    .count()
                    + 1
            });
            format!("line {at}: {}", e.message().replace('\n', ", "))
        };
        // The version comes first, so that a file for a later build is refused as
        // such and not for a key that this one does not know.
        let table: toml::Table = toml::from_str(text).map_err(|e| line(&e))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(CONFIG_VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "version {other} is unknown; this build reads version {CONFIG_VERSION}"
                ));
            }
            None => {
                return Err(format!(
                    "no version; add the line `version = {CONFIG_VERSION}`"
                ));
            }
        }
        let config: Self = toml::from_str(text).map_err(|e| line(&e))?;
        if config.criu.timeout_seconds == 0 {
            return Err("criu.timeout_seconds is 0; set it to 1 or more".to_owned());
        }
        let levels = ["error", "warn", "info", "debug", "trace"];
        if !levels.contains(&config.log.level.as_str()) {
            return Err(format!(
                "log.level is {:?}; set it to one of {}",
                config.log.level,
                levels.join(", ")
            ));
        }
        if !config.store.path.is_absolute() {
            return Err(format!(
                "store.path is {:?}; set it to an absolute path",
                config.store.path
            ));
        }
        Ok(config)
    }
}

/// Whether a container may, must or must not be restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestorePolicy {
    /// From a checkpoint if there is one, else cold.
    #[default]
    Auto,
    /// Always cold.
    Never,
    /// From a checkpoint or not at all.
    Require,
}

impl RestorePolicy {
    /// What the annotation [`RESTORE_ANNOTATION`] asks for.
    ///
    /// # Errors
    /// InvalidArgument: an unknown value.
    pub fn of(spec: &Spec) -> Result<Self> {
        spec.annotations()
            .as_ref()
            .and_then(|annotations| annotations.get(RESTORE_ANNOTATION))
            .map_or(Ok(Self::Auto), |value| value.parse())
    }
}

impl FromStr for RestorePolicy {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        match value {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            "require" => Ok(Self::Require),
            other => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("Annotation {RESTORE_ANNOTATION} is {other:?}; use auto, never or require"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_the_default() {
        let text = "version = 1\n[restore]\nenabled = true\n[checkpoint]\nstore = true\n[criu]\n\
                    path = \"criu\"\ntimeout_seconds = 60\n[store]\npath = \"/var/lib/reprise\"\n\
                    [images]\ntrusted = []\nrefresh_wait_ms = 2000\nseal = \"push\"\n\
                    [containerd]\naddress = \"/run/containerd/containerd.sock\"\n\
                    [limits]\nnode_bytes = 0\nnode_count = 0\nnamespace_bytes = 0\n\
                    namespace_count = 0\nmax_age_days = 0\n[log]\nlevel = \"info\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(
            Config {
                version: 0,
                ..config
            },
            Config::default()
        );
    }

    #[test]
    fn a_pattern_trusts_names_and_not_what_lies_below_them() {
        let text =
            "version = 1\n[images]\ntrusted = [\"r.example.com/checkpoints/*\", \"r/a-*-b:1\"]";
        let trusted = Config::parse(text).unwrap().images.trusted;
        for yes in [
            "r.example.com/checkpoints/web:1",
            "r.example.com/checkpoints/",
            "r/a-x-y-b:1",
        ] {
            assert!(trusted.matches(yes), "{yes}");
        }
        for no in [
            "",
            "r.example.com/checkpoints",
            "r.example.com/checkpoints/a/b",
            "r.example.com/other/web:1",
            "evil.com/r.example.com/checkpoints/web:1",
            "r.example.community/checkpoints/web",
            "r/a-b:1",
            "r/a-x-b:12",
        ] {
            assert!(!trusted.matches(no), "{no}");
        }
        assert!(!Trusted::default().matches(""));
    }

    #[test]
    fn a_missing_file_means_the_defaults() {
        let config = Config::load(Path::new("/nonexistent/config.toml")).unwrap();
        assert!(config.restore.enabled);
    }

    #[test]
    fn a_bad_file_is_one_line_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for (text, expected) in [
            ("", "add the line `version = 1`"),
            ("version = 2\n[future]\nx = 1", "this build reads version 1"),
            (
                "version = 1\n[restore]\nenabld = true",
                "line 3: unknown field `enabld`",
            ),
            ("version = 1\n[restor]\n", "unknown field `restor`"),
            ("version = 1\n[restore]\nenabled = \"yes\"", "line 3"),
            ("version = 1\n[criu]\ntimeout_seconds = 0", "1 or more"),
            ("version = 1\n[log]\nlevel = \"loud\"", "error, warn"),
            ("version = 1\n[store]\npath = \"x\"", "absolute"),
            ("version = 1\n[images]\nseal = \"never\"", "background"),
            ("version = ", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::FailedPrecondition);
            assert!(error.message.contains(expected), "{text}: {error}");
            assert!(error.message.contains("config.toml"), "{error}");
            assert!(!error.message.contains('\n'), "{error}");
        }
        let error = Config::load(dir.path()).unwrap_err();
        assert!(error.message.contains("make it a readable file"), "{error}");
    }

    #[test]
    fn an_unknown_policy_is_refused_with_the_known_ones() {
        assert_eq!(
            "never".parse::<RestorePolicy>().unwrap(),
            RestorePolicy::Never
        );
        let error = "maybe".parse::<RestorePolicy>().unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.contains("\"maybe\""), "{error}");
        assert!(error.message.contains("auto, never or require"), "{error}");
    }
}
