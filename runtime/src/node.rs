//! What this node offers to a restore, read from the system.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The oldest CRIU that is driven, as `major * 10000 + minor * 100 + sublevel`.
pub const CRIU_MIN: u32 = 40_100;

/// Where the version of the node's CRIU is noted; gone with the boot.
const NOTED_VERSION: &str = "/run/reprise/criu-version";

/// What this node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// CPU features (`flags` or `Features` of `/proc/cpuinfo`), those that every
    /// CPU has.
    pub cpu_features: BTreeSet<String>,
    /// Kernel release.
    pub kernel: String,
    /// CRIU's version, as `major * 10000 + minor * 100 + sublevel`, or why it
    /// cannot be used and what to do.
    pub criu: Result<u32, String>,
}

impl NodeFacts {
    /// Reads them. May run `criu --version` (5 ms, more on a busy node): ask when a
    /// checkpoint was found, not before.
    #[must_use]
    pub fn gather(criu: &Path) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            arch: std::env::consts::ARCH.to_owned(),
            cpu_features: cpu_features(&cpuinfo),
            kernel: kernel.trim().to_owned(),
            criu: remembered_version(criu, Path::new(NOTED_VERSION)),
        }
    }

    /// Like [`NodeFacts::gather`], once per process: as long as CRIU cannot be
    /// used it is asked again, so that mending the node needs no new pod.
    #[must_use]
    pub fn cached(criu: &Path) -> Self {
        static CACHE: OnceLock<NodeFacts> = OnceLock::new();
        if let Some(known) = CACHE.get() {
            return known.clone();
        }
        let facts = Self::gather(criu);
        if facts.criu.is_ok() {
            // Another thread that was faster read the same.
            drop(CACHE.set(facts.clone()));
        }
        facts
    }
}

/// [`criu_version`], asked once for all shims of the node: what the executable
/// said is noted with what tells that it is still the same file.
fn remembered_version(criu: &Path, note: &Path) -> Result<u32, String> {
    let Some(identity) = identity(criu) else {
        return criu_version(criu);
    };
    let noted = std::fs::read_to_string(note).unwrap_or_default();
    if let Some((version, noted)) = noted.split_once(' ')
        && noted == identity
        && let Ok(version) = version.parse()
    {
        return Ok(version);
    }
    let version = criu_version(criu)?;
    let aside = note.with_extension(std::process::id().to_string());
    let written = std::fs::write(&aside, format!("{version} {identity}"))
        .and_then(|()| std::fs::rename(&aside, note));
    if written.is_err() {
        // The next one asks again.
        std::fs::remove_file(&aside).ok();
    }
    Ok(version)
}

/// Path, file and time of its last change of the executable, which a bare name is
/// looked up for on PATH.
fn identity(criu: &Path) -> Option<String> {
    let (path, about) = if criu.components().count() > 1 {
        (criu.to_owned(), std::fs::metadata(criu).ok()?)
    } else {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|dir| dir.join(criu))
            .find_map(|path| Some((path.clone(), std::fs::metadata(path).ok()?)))?
    };
    Some(format!(
        "{}:{}:{}:{}.{}:{}",
        about.dev(),
        about.ino(),
        about.size(),
        about.ctime(),
        about.ctime_nsec(),
        path.display(),
    ))
}

/// Features that all CPUs have.
fn cpu_features(cpuinfo: &str) -> BTreeSet<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(name.trim(), "flags" | "Features"))
        .map(|(_, flags)| flags.split_whitespace().map(ToOwned::to_owned).collect())
        .reduce(|a: BTreeSet<String>, b| a.intersection(&b).cloned().collect())
        .unwrap_or_default()
}

/// CRIU's version.
///
/// # Errors
/// One line: missing, not executable, unintelligible or too old, and the mend.
pub fn criu_version(path: &Path) -> Result<u32, String> {
    let shown = path.display();
    let text = what_it_prints(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "CRIU is missing: no executable {shown}; install criu {} or later, or set \
                 criu.path in {}",
            show(CRIU_MIN),
            crate::policy::CONFIG_PATH
        ),
        std::io::ErrorKind::PermissionDenied => {
            format!("CRIU cannot be used: {shown} is not executable; chmod +x it")
        }
        _ => format!("CRIU cannot be used: {shown} does not run ({e}); reinstall it"),
    })?;
    let version = text.lines().find_map(parse_version).ok_or_else(|| {
        format!("CRIU cannot be used: {shown} --version prints no version; reinstall it")
    })?;
    if version < CRIU_MIN {
        return Err(format!(
            "CRIU {} at {shown} is too old; install {} or later",
            show(version),
            show(CRIU_MIN)
        ));
    }
    Ok(version)
}

/// Output of `--version`. How it ended is not asked for: in the shim another
/// thread reaps all children.
fn what_it_prints(criu: &Path) -> std::io::Result<String> {
    let mut child = Command::new(criu)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut text = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut text)?;
    }
    // Reaped already is as good.
    child.wait().ok();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Major and minor number of a kernel's release: (6, 18) for `6.18.4-1-amd64`. What
/// is none is (0, 0), older than all.
#[must_use]
pub fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(['.', '-', '+'])
        .map_while(|n| n.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `Version: 4.2.1` as 40201.
fn parse_version(line: &str) -> Option<u32> {
    let text = line.strip_prefix("Version:")?.trim();
    let mut parts = text.split(['.', '-', '~', ' ']).map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let minor = parts.next()?.ok()?;
    let sublevel = parts.next().and_then(Result::ok).unwrap_or(0);
    Some(major * 10_000 + minor.min(99) * 100 + sublevel.min(99))
}

/// 40201 as `4.2.1`, 40100 as `4.1`.
#[must_use]
pub fn show(version: u32) -> String {
    let (major, minor, sub) = (version / 10_000, version / 100 % 100, version % 100);
    match sub {
        0 => format!("{major}.{minor}"),
        _ => format!("{major}.{minor}.{sub}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_features_of_all_cpus_count() {
        let text = "processor\t: 0\nflags\t\t: sse avx\n\nprocessor\t: 1\nflags\t\t: sse\n";
        assert_eq!(cpu_features(text), BTreeSet::from(["sse".to_owned()]));
    }

    #[test]
    fn kernels_are_compared_by_two_numbers() {
        assert_eq!(kernel_version("6.18.4-1-amd64"), (6, 18));
        assert_eq!(kernel_version("7.0-rc1"), (7, 0));
        assert_eq!(kernel_version("6.9+deb13"), (6, 9));
        assert!(kernel_version("6.9.12") < kernel_version("6.18.0"));
        assert_eq!(kernel_version("6.18.9"), kernel_version("6.18.1"));
        assert_eq!(kernel_version(""), (0, 0));
    }

    #[test]
    fn versions_are_read_and_shown() {
        assert_eq!(parse_version("Version: 4.2.1"), Some(40_201));
        assert_eq!(parse_version("Version: 4.1-rc1"), Some(40_100));
        assert_eq!(parse_version("GitID: v4.2"), None);
        assert_eq!(show(40_201), "4.2.1");
        assert_eq!(show(40_100), "4.1");
    }

    /// Writes from another process: a descriptor for writing that a neighbouring
    /// test's fork has inherited would make the script "busy" for a moment.
    #[test]
    fn a_version_is_asked_for_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (criu, note) = (dir.path().join("criu"), dir.path().join("note"));
        let asked = dir.path().join("asked");
        let script = |version: &str| {
            format!(
                "#!/bin/sh\necho >> {}\necho Version: {version}\n",
                asked.display()
            )
        };
        write_script(&criu, &script("4.2"));
        for _ in 0..3 {
            assert_eq!(remembered_version(&criu, &note), Ok(40_200));
        }
        assert_eq!(std::fs::read(&asked).unwrap().len(), 1);
        write_script(&criu, &script("4.3"));
        assert_eq!(remembered_version(&criu, &note), Ok(40_300));
        write_script(&criu, &script("3.17"));
        assert!(remembered_version(&criu, &note).is_err());
    }

    fn write_script(path: &Path, text: &str) {
        let status = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$0\""])
            .arg(path)
            .arg(text)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_unusable_criu_is_one_line_with_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("criu");
        assert!(
            criu_version(&path)
                .unwrap_err()
                .contains("install criu 4.1")
        );
        for (script, mode, expected) in [
            ("#!/bin/sh\necho Version: 4.2.1\n", 0o644, "not executable"),
            ("#!/bin/sh\necho Version: 3.17\n", 0o755, "3.17 at"),
            ("#!/bin/sh\nexit 3\n", 0o755, "no version"),
        ] {
            write_script(&path, script);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = criu_version(&path).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        write_script(
            &path,
            "#!/bin/sh\necho Version: 4.2.1\necho GitID: v4.2.1\n",
        );
        assert_eq!(criu_version(&path), Ok(40_201));
    }
}
