//! Places that are masked, read-only, or mounted on through links. Rows 8, 19.

use crate::gaps::case::Case;
use serde_json::json;

pub(super) fn cases() -> Vec<Case> {
    let mut all = proc();
    all.extend(masks());
    all.extend(destinations());
    all
}

/// Mounts at and under /proc and /sys.
fn proc() -> Vec<Case> {
    let bound = |name, destination: &'static str| {
        Case::new(8, name)
            .before("mkdir dir; echo text > file")
            .spec(move |spec| {
                let kind = if destination.ends_with('/') {
                    "@P@/dir"
                } else {
                    "@P@/file"
                };
                spec.bind(kind, destination.trim_end_matches('/'), &["ro"])
            })
            .runs("mounts | grep -E ' /proc/' | cut -d' ' -f2-5")
    };
    vec![
        bound("a file on /proc/cpuinfo", "/proc/cpuinfo").restored(),
        bound("a file on /proc/meminfo", "/proc/meminfo"),
        bound("a file on /proc/uptime", "/proc/uptime"),
        bound(
            "a file on /proc/sys/kernel/hostname",
            "/proc/sys/kernel/hostname",
        ),
        bound("a file on /proc/sysrq-trigger", "/proc/sysrq-trigger"),
        bound("a file on /proc/version", "/proc/version"),
        bound("a file on /proc/loadavg", "/proc/loadavg"),
        bound("a file on /proc/1/status", "/proc/1/status"),
        bound("a file on /proc/self/status", "/proc/self/status"),
        bound("a directory on /proc", "/proc/"),
        bound("a directory on /proc/sys", "/proc/sys/"),
        bound("a directory on /proc/self", "/proc/self/"),
        bound("a directory on /proc/tty", "/proc/tty/"),
        bound(
            "a file on /proc/sys/net through ..",
            "/etc/../proc/sys/kernel/ostype",
        ),
        Case::new(8, "a tmpfs on /proc")
            .spec(|spec| spec.mount("/proc", "tmpfs", "tmpfs", &["nosuid"]))
            .runs("mounts | grep -E ' /proc ' | cut -d' ' -f2-5"),
        Case::new(8, "a tmpfs on /proc/acpi")
            .spec(|spec| spec.mount("/proc/scsi", "tmpfs", "tmpfs", &["nosuid", "ro"]))
            .runs("mounts | grep -E ' /proc/' | cut -d' ' -f2-5"),
        Case::new(8, "/proc through a link of the image")
            .image("ln -s /proc lnk")
            .before("echo text > file")
            .spec(|spec| spec.bind("@P@/file", "/lnk/sys/kernel/hostname", &["ro"]))
            .runs("mounts | grep -E ' /proc/' | cut -d' ' -f2-5"),
        Case::new(8, "a second proc elsewhere")
            .spec(|spec| spec.mount("/mnt", "proc", "proc", &["nosuid", "ro"]))
            .runs("mounts | grep -E ' proc '; ls /mnt/self/ns | head -3"),
        Case::new(8, "proc with options")
            .spec(|spec| {
                spec.unmount("/proc").mount_first(
                    "/proc",
                    "proc",
                    "proc",
                    &["nosuid", "noexec", "hidepid=2"],
                )
            })
            .runs("mounts | grep -E ' proc '"),
        Case::new(8, "the node's /proc as a bind")
            .before("mkdir -p x")
            .spec(|spec| {
                spec.unmount("/proc")
                    .mount_first("/proc", "bind", "/proc", &["rbind"])
            })
            .runs("mounts | grep -c -E ' /proc '"),
        Case::new(8, "a directory on /sys/kernel")
            .before("mkdir dir; echo text > dir/file")
            .spec(|spec| spec.bind("@P@/dir", "/sys/kernel", &["ro"]))
            .runs("ls /sys/kernel; mounts | grep /sys/kernel"),
    ]
}

/// Masked and read-only paths.
fn masks() -> Vec<Case> {
    const TREE: &str = "mkdir -p opt/secret opt/tree/in; echo text > opt/secret/file; echo text > opt/file
        echo text > opt/tree/in/file; ln -s /opt/secret lnk; ln -s /opt/file lnkfile; ln -s /nowhere/at/all dangling
        ln -s ../../../../opt/secret opt/tree/up";
    const LOOK: &str = "
        for path in /opt/secret /opt/file /opt/tree /opt/tree/in /lnk /lnkfile /dangling; do
            ls -ld $path | cut -c1-10 | sed \"s#\\$# $path#\"
            if [ -d $path ]; then ls $path/; (echo x > $path/made) 2>&1 | sed 's/.*: //'; else cat $path 2>&1; (echo x >> $path) 2>&1 | sed 's/.*: //'; fi
        done
        mounts | grep -E ' /(opt|lnk|dangling|nowhere)'; ls -d /nowhere; /probe open /opt/file r";
    let masked = |name, paths: &'static [&'static str]| {
        Case::new(8, name)
            .image(TREE)
            .spec(move |spec| spec.set("/linux/maskedPaths", paths))
            .runs(LOOK)
            .restored()
    };
    let readonly = |row, name, paths: &'static [&'static str]| {
        Case::new(row, name)
            .image(TREE)
            .spec(move |spec| spec.set("/linux/readonlyPaths", paths))
            .runs(LOOK)
            .restored()
    };
    vec![
        masked("masked: a directory, a file, something missing", &["/opt/secret", "/opt/file", "/missing"]),
        masked("masked: a link to a directory", &["/lnk"]),
        masked("masked: a link to a file", &["/lnkfile"]),
        masked("masked: a dangling link", &["/dangling"]),
        masked("masked: through a link that climbs", &["/opt/tree/up/file"]),
        masked("masked: the same twice, and one in another", &["/opt/tree", "/opt/tree", "/opt/tree/in"]),
        masked("masked: beneath a file", &["/opt/file/x"]),
        masked("masked: a relative path", &["opt/secret"]),
        readonly(8, "read-only: a directory, a file, something missing", &["/opt/secret", "/opt/file", "/missing"]),
        readonly(8, "read-only: links", &["/lnk", "/lnkfile", "/dangling"]),
        readonly(34, "read-only: a mount and what is in it", &["/dev", "/dev/shm", "/tmp"])
            // The process' /dev/null is beneath the second /dev.
            .no_checkpoint("Open files on overmounted mounts are not supported"),
        Case::new(34, "read-only paths keep the flags of their mount")
            .before("mkdir src; mount -t tmpfs -o nosuid,nodev none src; mkdir src/in")
            .spec(|spec| {
                spec.bind("@P@/src", "/mnt", &["rbind"]).set("/linux/readonlyPaths", json!(["/mnt/in", "/etc", "/proc/sys"]))
            })
            .runs("mounts | grep -E ' (/mnt|/etc|/proc/sys)'; cp /bin/busybox /tmp/true && /etc/../bin/true && echo ran")
            .restored(),
        Case::new(8, "masked in /proc and /sys, as containerd asks by default")
            .runs("mounts | grep -E ' /(proc|sys)/'; for p in /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do ls -ld $p 2>&1 | cut -c1-10; done; cat /proc/keys; ls /sys/firmware")
            .restored(),
    ]
}

/// Destinations of mounts that are links, or not there.
fn destinations() -> Vec<Case> {
    const TREE: &str = "mkdir -p etc var opt/real
        ln -s ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf; ln -s /run var/run; ln -s /opt/real lnk
        ln -s nowhere/deep dangling; ln -s /abs/nowhere absdangling; ln -s loop2 loop1; ln -s loop1 loop2
        ln -s ../../../../../../../../../../run/gaps-out climbing; ln -s /proc/self/root selfroot; echo text > opt/afile";
    const SOURCE: &str = "mkdir -p dir; echo dir > dir/in; echo text > file; chmod 700 dir; chmod 600 file; rm -rf /run/gaps-out";
    const LOOK_AT: &str = "
        mounts | grep /gap- | cut -d' ' -f2-5
        for path in /etc/resolv.conf /var/run /run/systemd /run/secrets /run/secrets/x /lnk /opt/real /nowhere /abs /climbing /new /new/deep /opt/afile; do
            [ -e $path -o -L $path ] && stat -c '%A %u:%g %n' $path
        done; true";
    let onto = |name, source: &'static str, destination: &'static str| {
        Case::new(19, name)
            .image(TREE)
            .before(SOURCE)
            .spec(move |spec| spec.bind(&format!("@P@/{source}"), destination, &["rbind", "rw"]))
            .runs(LOOK_AT)
            .after(
                "on the node",
                "ls -ld /run/gaps-out 2>&1 | cut -c1-10; true",
            )
    };
    vec![
        onto("resolv.conf is a dangling link", "file", "/etc/resolv.conf").restored(),
        onto("/var/run is a link to /run", "dir", "/var/run/secrets/x").restored(),
        onto("a link to a directory", "dir", "/lnk").restored(),
        onto("beneath a link to a directory", "dir", "/lnk/new/deep"),
        onto("a dangling relative link, a directory", "dir", "/dangling"),
        onto(
            "a dangling absolute link, a directory",
            "dir",
            "/absdangling",
        ),
        onto("a dangling absolute link, a file", "file", "/absdangling"),
        onto("a loop of links", "dir", "/loop1"),
        onto("a link that climbs out", "dir", "/climbing"),
        onto("a link through /proc/self/root", "dir", "/selfroot/new"),
        onto("a path that climbs out", "dir", "/../../../../run/gaps-out"),
        onto("a directory that is not there", "dir", "/new/deep").restored(),
        onto("a file that is not there", "file", "/new/deep").restored(),
        onto("a file on a directory", "file", "/opt/real"),
        onto("a directory on a file", "dir", "/opt/afile"),
        onto("beneath a file", "dir", "/opt/afile/x"),
        onto("the root itself", "dir", "/"),
        onto("a relative destination", "dir", "opt/real"),
        onto("a source that is not there", "missing", "/opt/real"),
        onto(
            "what is not there, on a read-only rootfs",
            "dir",
            "/new/deep",
        )
        .spec(|spec| spec.set("/root/readonly", true))
        .restored(),
        Case::new(19, "a mount in a mount, in the order of the spec")
            .before("mkdir -p outer/in inner; echo inner > inner/file")
            .spec(|spec| {
                spec.bind("@P@/outer", "/mnt", &["rbind"])
                    .bind("@P@/inner", "/mnt/in", &["rbind", "ro"])
                    .mount("/mnt/in/made", "tmpfs", "tmpfs", &["size=1m"])
            })
            .runs("mounts | grep ' /mnt'")
            .after("on the node", "find outer inner | sort"),
        Case::new(19, "the mount point of a mount that is covered later")
            .before("mkdir -p outer inner; echo inner > inner/file")
            .spec(|spec| {
                spec.bind("@P@/inner", "/mnt/in", &["rbind"])
                    .bind("@P@/outer", "/mnt", &["rbind"])
            })
            .runs("mounts | grep ' /mnt'; ls /mnt")
            .after("on the node", "find outer inner | sort"),
    ]
}
