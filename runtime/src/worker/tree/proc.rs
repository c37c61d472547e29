//! What may be mounted on `/proc` and below it: a real procfs, and a few files
//! that lxcfs and its like present. Programs, and we, trust what they read there.

use std::path::Path;

use nix::sys::statfs::PROC_SUPER_MAGIC;

use super::open::What;

/// The files below `/proc` that may be covered.
const FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Refuses a mount at `at`, a path with its links resolved, that must not be there.
/// It is told as a path of the node.
pub(super) fn check(at: &Path, what: &What, rootfs: &Path) -> Result<(), String> {
    let refused = |why: &str| {
        let shown = rootfs.join(at.strip_prefix("/").unwrap_or(at));
        Err(format!("{shown:?} cannot be mounted because it is {why}"))
    };
    if at == Path::new("/proc") {
        let real = match what {
            What::Bind(bind) => bind.fs == PROC_SUPER_MAGIC,
            What::New(typ) => typ == "proc",
            What::Cgroups(_) => false,
        };
        return if real {
            Ok(())
        } else {
            refused("not of type proc")
        };
    }
    if at.starts_with("/proc") && !FILES.iter().any(|file| at == Path::new(file)) {
        return refused("inside /proc");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_for_proc() {
        let allowed = |at: &str, typ: &str| {
            check(Path::new(at), &What::New(typ.to_owned()), Path::new("/r")).is_ok()
        };
        assert!(allowed("/proc", "proc"));
        assert!(!allowed("/proc", "tmpfs"));
        assert!(!allowed("/proc/sys", "tmpfs"));
        assert!(!allowed("/proc/1", "proc"));
        assert!(allowed("/proc/cpuinfo", "tmpfs"));
        assert!(allowed("/process", "tmpfs"));
    }
}
