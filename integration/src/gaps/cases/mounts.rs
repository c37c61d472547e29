//! Propagation, flags and kinds of mounts. Rows 12, 13, 32, and those of 34.

use crate::gaps::case::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut all = propagation();
    all.extend(flags());
    all.extend(tmpfs());
    all
}

fn propagation() -> Vec<Case> {
    /// A shared mount of the node, and a mount in it.
    const SHARED: &str = "mkdir src; mount -t tmpfs none src; mount --make-shared src; mkdir src/in src/later src/out
        mount -t tmpfs none src/in";
    let rootfs = |name, value: &'static str| {
        Case::new(12, name)
            .before(SHARED)
            .spec(move |spec| {
                spec.capability("CAP_SYS_ADMIN")
                    .bind("@P@/src", "/mnt", &["rbind", "rslave"])
                    .set("/linux/rootfsPropagation", value)
            })
            .exec("mounts", "mounts | grep -E ' (/|/mnt[^ ]*|/proc|/dev) '")
            .node(
                "a mount of the node's",
                "mount -t tmpfs none src/later; mounts $PID | grep -c /mnt/later || true",
            )
            .exec(
                "a mount of its own",
                "mount -t tmpfs none /mnt/out; mounts | grep -c /mnt/out",
            )
            .node("seen on the node", "mounts | grep -c $P/src/out || true")
            .restored()
    };
    let bind = |name, options: &'static [&'static str]| {
        Case::new(13, name)
            .before(SHARED)
            .spec(move |spec| {
                spec.capability("CAP_SYS_ADMIN")
                    .bind("@P@/src", "/mnt", options)
            })
            .exec("mounts", "mounts | grep /mnt")
            .node(
                "a mount of the node's",
                "mount -t tmpfs none src/later; mounts $PID | grep -c /mnt/later || true",
            )
            .exec(
                "a mount of its own",
                "mount -t tmpfs none /mnt/out; mounts | grep -c /mnt/out",
            )
            .node("seen on the node", "mounts | grep -c $P/src/out || true")
            .restored()
    };
    vec![
        rootfs("rootfs propagation: none", ""),
        rootfs("rootfs propagation: private", "private"),
        rootfs("rootfs propagation: rprivate", "rprivate"),
        rootfs("rootfs propagation: slave", "slave"),
        rootfs("rootfs propagation: rslave", "rslave"),
        rootfs("rootfs propagation: shared", "shared"),
        rootfs("rootfs propagation: rshared", "rshared"),
        rootfs("rootfs propagation: unbindable", "unbindable"),
        rootfs("rootfs propagation: runbindable", "runbindable"),
        rootfs("rootfs propagation: unknown", "nonsense"),
        bind("bind propagation: none", &["rbind"]),
        bind("bind propagation: private", &["rbind", "private"]),
        bind("bind propagation: rprivate", &["rbind", "rprivate"]),
        bind("bind propagation: slave", &["rbind", "slave"]),
        bind("bind propagation: rslave", &["rbind", "rslave"]),
        bind("bind propagation: shared", &["rbind", "shared"]),
        bind("bind propagation: rshared", &["rbind", "rshared"]),
        bind("bind propagation: unbindable", &["rbind", "unbindable"]),
        bind("bind propagation: runbindable", &["rbind", "runbindable"]),
        bind(
            "bind propagation: rshared, and the rootfs too",
            &["rbind", "rshared"],
        )
        .spec(|spec| spec.set("/linux/rootfsPropagation", "rshared"))
        .cold_because("a mount that it shares with the node"),
        bind(
            "bind propagation: rslave, and the rootfs too",
            &["rbind", "rslave"],
        )
        .spec(|spec| spec.set("/linux/rootfsPropagation", "rslave")),
        Case::new(13, "a source that is no shared mount, to be shared")
            .before("mkdir src; mount -t tmpfs none src; mount --make-private src")
            .spec(|spec| spec.bind("@P@/src", "/mnt", &["rbind", "rshared"]))
            .runs("mounts | grep /mnt"),
        Case::new(13, "propagation of a tmpfs")
            .spec(|spec| {
                spec.mount("/mnt", "tmpfs", "tmpfs", &["rshared", "size=1m"])
                    .mount("/srv", "tmpfs", "tmpfs", &["rslave", "size=1m"])
            })
            .runs("mounts | grep -E ' (/mnt|/srv) '"),
    ]
}

fn flags() -> Vec<Case> {
    let on = |name, before: &'static str, options: &'static [&'static str]| {
        Case::new(32, name)
            .before(before)
            .spec(move |spec| spec.bind("@P@/src", "/mnt", options))
            .runs("mounts | grep /mnt; touch /mnt/made; mknod /mnt/node c 1 3; [ ! -e /mnt/node ] || /probe open /mnt/node r")
            .after("the source", "mounts | grep $P/src | cut -d' ' -f3-5")
            .restored()
    };
    const ALL: &str = "mkdir src; mount -t tmpfs -o nosuid,nodev,noexec,noatime none src; mkdir src/in; mount -t tmpfs -o nosuid,nodev,noexec none src/in";
    const RO: &str = "mkdir src; mount -t tmpfs -o ro,nosuid,nodev,noexec none src";
    const PLAIN: &str = "mkdir src; mount -t tmpfs -o strictatime none src; mkdir src/in; mount -t tmpfs none src/in";
    vec![
        on("a source with flags, none asked for", ALL, &["rbind"]),
        on(
            "rw, exec, suid and dev clear the source's",
            RO,
            &["rbind", "rw", "exec", "suid", "dev"],
        ),
        on("exec clears noexec alone", ALL, &["rbind", "exec"]),
        on("suid clears nosuid alone", ALL, &["rbind", "suid"]),
        on("dev clears nodev alone", ALL, &["rbind", "dev"]),
        on("rw on a read-only source", RO, &["rbind", "rw"]),
        on("ro on a source with flags", ALL, &["rbind", "ro"]),
        on("ro, then rw", PLAIN, &["rbind", "ro", "rw"]),
        on("defaults", ALL, &["rbind", "defaults"]),
        on("atime flags", PLAIN, &["rbind", "noatime", "nodiratime"]),
        on("relatime on a noatime source", ALL, &["rbind", "relatime"]),
        on(
            "strictatime on a noatime source",
            ALL,
            &["rbind", "strictatime"],
        ),
        on("nosymfollow", PLAIN, &["rbind", "nosymfollow"]).cold_because("a nosymfollow mount"),
        on("recursive read-only", PLAIN, &["rbind", "rro"]),
        on(
            "recursive noexec, nosuid, nodev",
            PLAIN,
            &["rbind", "rnoexec", "rnosuid", "rnodev"],
        ),
        on(
            "recursive exec, suid, dev",
            ALL,
            &["rbind", "rexec", "rsuid", "rdev"],
        ),
        on("recursive rw", RO, &["rbind", "rrw"]),
        on("a bind that is not recursive", PLAIN, &["bind", "ro"]),
        on("an unknown option", PLAIN, &["rbind", "nonsense"]),
        on(
            "options of a file system on a bind",
            PLAIN,
            &["rbind", "size=1m", "mode=700"],
        ),
        Case::new(32, "a bind in the user namespace keeps what is locked")
            .in_user_namespace()
            .before(ALL)
            .spec(|spec| spec.bind("@P@/src", "/mnt", &["rbind", "ro"]))
            .runs("mounts | grep /mnt"),
        Case::new(
            32,
            "a bind in the user namespace that would clear what is locked",
        )
        .in_user_namespace()
        .before(ALL)
        .spec(|spec| spec.bind("@P@/src", "/mnt", &["rbind", "exec", "suid"]))
        .runs("mounts | grep /mnt"),
        Case::new(32, "a bind by type none")
            .before(PLAIN)
            .spec(|spec| spec.mount("/mnt", "none", "@P@/src", &["rbind", "nosuid"]))
            .runs("mounts | grep /mnt"),
        Case::new(32, "a bind by option only")
            .before(PLAIN)
            .spec(|spec| spec.mount("/mnt", "", "@P@/src", &["rbind", "nosuid"]))
            .runs("mounts | grep /mnt"),
    ]
}

fn tmpfs() -> Vec<Case> {
    let at = |name, destination: &'static str, options: &'static [&'static str]| {
        Case::new(34, name)
            .image("mkdir -p data/sub; echo text > data/file; echo more > data/sub/file; chmod 750 data; chown 7:8 data data/file; ln -s file data/link; mkdir -m 1777 sticky")
            .spec(move |spec| spec.mount(destination, "tmpfs", "tmpfs", options))
            .runs("mounts | grep -E ' (/data|/sticky|/new[^ ]*) '; stat -c '%A %u:%g %n' /data /sticky /new /new/deep; find /data ! -type l -exec stat -c '%A %u:%g %n' {} + | sort; readlink /data/link")
            .restored()
    };
    vec![
        at("tmpfs with tmpcopyup", "/data", &["tmpcopyup", "nosuid"]),
        at("tmpfs with tmpcopyup, read-only", "/data", &["tmpcopyup", "ro"]),
        at("tmpfs takes the mode of its directory", "/sticky", &["nosuid", "nodev"]),
        at("tmpfs takes the mode of a closed directory", "/data", &["nosuid"]),
        at("tmpfs with a mode, size and owner", "/data", &["mode=700", "size=1m", "uid=5", "gid=6"]),
        at("tmpfs on what is not there", "/new/deep", &["size=65536k"]),
        at("tmpfs, nosymfollow", "/data", &["nosymfollow"])
            .cold_because("a nosymfollow mount"),
        at("tmpfs, read-only", "/data", &["ro", "noexec"]),
        at("tmpfs, noswap and inodes", "/data", &["nr_inodes=100"]),
        at("tmpfs with an unknown option", "/data", &["nonsense=1"]),
        Case::new(34, "a file system that is not there")
            .spec(|spec| spec.mount("/mnt", "nosuchfs", "none", &[]))
            .runs("true"),
        Case::new(34, "mqueue, sysfs and devpts with options")
            .spec(|spec| {
                spec.unmount("/dev/pts").mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0660", "mode=0600", "gid=5"])
                    .mount("/mnt", "sysfs", "sysfs", &["ro"])
            })
            .runs("mounts | grep -E ' (/dev/pts|/mnt|/dev/mqueue) '; stat -c '%A %u:%g %n' /dev/pts/ptmx; ls -l /dev/ptmx | sed 's/.* .dev/dev/'"),
        Case::new(34, "a read-only rootfs")
            .spec(|spec| spec.set("/root/readonly", true))
            .runs("mounts | grep -E ' / '; touch /made; touch /tmp/made; touch /dev/shm/made && echo shm")
            .restored(),
    ]
}
