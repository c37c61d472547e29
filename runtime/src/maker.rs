//! Whose something unfinished is: a process, told from all others that have or had
//! its pid. What a dead one left can be removed, what a living one makes must not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use crate::proc_stat::ProcStat;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A process that makes something: `<pid>.<began>.<boot>.<pid namespace>`. Safe as
/// a file name and as a label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pid: i32,
    /// In clock ticks since the node's start.
    began: u64,
    boot: String,
    /// Number of the pid namespace in which `pid` counts.
    namespace: u64,
}

impl Maker {
    /// This process.
    #[must_use]
    pub fn me() -> Self {
        let pid = std::process::id().cast_signed();
        Self {
            pid,
            began: began(pid).unwrap_or_default(),
            boot: boot_id().to_owned(),
            namespace: pid_namespace(),
        }
    }

    /// One that has been written down; `None` if that is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let maker = Self {
            pid: parts.next()?.parse().ok()?,
            began: parts.next()?.parse().ok()?,
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(maker)
    }

    /// Whether it is certain that it does not run any more. Nothing can be said of
    /// other pid namespaces.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        if self.boot != boot_id() {
            return true;
        }
        self.namespace == pid_namespace() && began(self.pid) != Some(self.began)
    }
}

impl std::fmt::Display for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pid,
            began,
            boot,
            namespace,
        } = self;
        write!(f, "{pid}.{began}.{boot}.{namespace}")
    }
}

/// The kernel's id of this boot; empty if it cannot be read.
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
        text.trim().to_owned()
    })
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |about| about.ino())
}

/// When a process began, in clock ticks since the node's start.
pub(crate) fn began(pid: i32) -> Option<u64> {
    // `starttime`.
    ProcStat::of(pid)?.number(22)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> std::process::Child {
        let mut sleep = std::process::Command::new("/bin/sleep");
        sleep.arg("9").spawn().unwrap()
    }

    #[test]
    fn each_process_has_its_beginning() {
        let mut child = child();
        let pid = child.id().cast_signed();
        let (first, own) = (began(pid).unwrap(), began(std::process::id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Some(first) >= own, "it began after us");
        assert_eq!(began(pid), None);
    }

    #[test]
    fn a_maker_is_gone_when_its_process_or_its_boot_is() {
        let me = Maker::me();
        assert_eq!(Maker::parse(&me.to_string()).as_ref(), Some(&me));
        assert!(!me.is_gone());
        let mut child = child();
        let pid = child.id().cast_signed();
        let other = Maker {
            pid,
            began: began(pid).unwrap(),
            ..me.clone()
        };
        assert!(!other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
        let reused = Maker {
            began: me.began + 1,
            ..me.clone()
        };
        assert!(reused.is_gone());
        let boot = "another".to_owned();
        assert!(Maker { boot, ..me.clone() }.is_gone());
        let elsewhere = Maker {
            namespace: me.namespace + 1,
            ..reused
        };
        assert!(!elsewhere.is_gone(), "nobody can tell from here");
    }

    #[test]
    fn what_is_no_maker_is_none() {
        for text in ["", "1", "1.2.b", "x.2.b.4", "1.2.b.4.5"] {
            assert_eq!(Maker::parse(text), None, "{text}");
        }
    }
}
