//! The file tree of a container, compared with the one that runc makes of the same
//! bundle.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use serde_json::json;
use support::Case;
use support::compare::{Host, bind, both_refuse, same, sh, tmpfs};

support::tests![
    the_usual_tree,
    flags_of_binds,
    propagation_of_mounts,
    propagation_of_the_root,
    read_only_trees,
    destinations_behind_links,
    what_may_cover_proc,
    proc_behind_a_link,
    temporary_file_systems,
    masked_and_read_only_paths,
    a_dev_of_the_node,
    devices,
    cgroups,
    what_is_refused,
    create_hooks_see_the_mounts_and_the_node,
];

const MOUNTS: &str = "cat /proc/self/mountinfo";

fn the_usual_tree() {
    same(&mut sh(MOUNTS));
    let script = "ls -ln /dev | awk '{print $1,$3,$4,$5,$6,$NF}' | grep -v total; readlink /dev/*";
    same(&mut sh(script));
    same(&mut sh(
        "stat -c '%n %a %u:%g' / /dev /dev/shm /proc /sys /dev/pts; ls /",
    ));
    let mut case = sh(MOUNTS);
    case.set("/root/readonly", json!(true));
    same(&mut case);
}

fn flags_of_binds() {
    let strict = MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    for options in [
        &["rbind"][..],
        &["rbind", "rprivate"],
        &["bind", "ro"],
        &["rbind", "rw"],
        &["rbind", "exec", "suid", "dev"],
        &["rbind", "noexec"],
        &["rbind", "ro", "nosymfollow"],
        &["rbind", "noatime"],
        &["rbind", "strictatime", "nodiratime"],
        &["rbind", "relatime", "ro", "nosuid"],
        &["rbind", "sync", "dirsync"],
        &["rbind", "ro", "rw"],
    ] {
        for flags in [MsFlags::empty(), strict, MsFlags::MS_STRICTATIME] {
            let mut case = sh("grep ' /vol ' /proc/self/mountinfo");
            let host = Host::tmpfs(&case, "vol", flags);
            case.mount(bind(&host.0, "/vol", options));
            same(&mut case);
        }
    }
}

fn propagation_of_mounts() {
    for source in [MsFlags::MS_SHARED, MsFlags::MS_PRIVATE] {
        for root in [None, Some("rslave"), Some("rshared"), Some("rprivate")] {
            for word in [
                "",
                "private",
                "rprivate",
                "rslave",
                "slave",
                "rshared",
                "shared",
                "runbindable",
            ] {
                let mut case = sh("grep ' /vol' /proc/self/mountinfo");
                let host = Host::tmpfs(&case, "vol", MsFlags::empty());
                host.propagate(source);
                fs::create_dir(host.0.join("inner")).unwrap();
                let inner = Host::tmpfs(&case, "vol/inner", MsFlags::empty());
                inner.propagate(source);
                if let Some(root) = root {
                    case.set("/linux/rootfsPropagation", json!(root));
                }
                let options = ["rbind", word];
                let options = if word.is_empty() {
                    &options[..1]
                } else {
                    &options[..]
                };
                case.mount(bind(&host.0, "/vol", options));
                same(&mut case);
                drop(inner);
            }
        }
    }
}

fn propagation_of_the_root() {
    for root in [
        "rslave", "slave", "rshared", "shared", "rprivate", "private", "sideways",
    ] {
        let mut case = sh(MOUNTS);
        case.set("/linux/rootfsPropagation", json!(root));
        if root == "sideways" {
            both_refuse(&mut case);
        } else {
            same(&mut case);
        }
    }
}

fn read_only_trees() {
    for options in [
        &["rbind", "ro"][..],
        &["rbind", "rro"],
        &["bind", "rro"],
        &["rbind", "ro", "rrw"],
        &["rbind", "rnoexec", "rnoatime"],
    ] {
        let mut case = sh("grep ' /vol' /proc/self/mountinfo; touch /vol/x; touch /vol/inner/x");
        let host = Host::tmpfs(&case, "vol", MsFlags::empty());
        fs::create_dir(host.0.join("inner")).unwrap();
        let inner = Host::tmpfs(&case, "vol/inner", MsFlags::empty());
        case.mount(bind(&host.0, "/vol", options));
        same(&mut case);
        drop(inner);
    }
}

fn destinations_behind_links() {
    let mut case = sh(
        "cat /etc/resolv.conf /run/real/resolv.conf /var/run/secret/x; \
                       grep -e /run /proc/self/mountinfo; ls -l /etc/resolv.conf | awk '{print $1,$NF}'",
    );
    let image = case.dir.join("image");
    fs::create_dir_all(image.join("var")).unwrap();
    symlink("../run/real/resolv.conf", image.join("etc/resolv.conf")).unwrap();
    symlink("/run", image.join("var/run")).unwrap();
    let file = case.dir.join("resolv");
    fs::write(&file, "nameserver\n").unwrap();
    let secret = case.dir.join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("x"), "secret\n").unwrap();
    case.mount(bind(&file, "/etc/resolv.conf", &["rbind", "ro"]));
    case.mount(bind(&secret, "/var/run/secret", &["rbind", "ro"]));
    same(&mut case);

    let mut case = sh("cat /link/file; ls /");
    let outside = case.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, case.dir.join("image/link")).unwrap();
    case.mount(bind(&file_with(&case, "text\n"), "/link/file", &["bind"]));
    same(&mut case);
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "the node was written to"
    );

    let mut case = sh("cat /a/b/c; stat -c %a /a /a/b; ls -ld /file | awk '{print $1}'");
    case.mount(bind(&file_with(&case, "deep\n"), "/a/b/c", &["bind"]));
    case.mount(bind(&file_with(&case, "x\n"), "/x/../../file", &["bind"]));
    same(&mut case);
}

fn file_with(case: &Case, text: &str) -> PathBuf {
    let file = case.dir.join(format!("file-{}", text.trim()));
    fs::write(&file, text).unwrap();
    file
}

fn what_may_cover_proc() {
    let mut case = sh("cat /proc/cpuinfo; grep /proc/ /proc/self/mountinfo");
    case.mount(bind(
        &file_with(&case, "cpu\n"),
        "/proc/cpuinfo",
        &["bind", "ro"],
    ));
    same(&mut case);
    for at in [
        "/proc/sys",
        "/proc/self",
        "/proc/self/attr",
        "/proc/1/fd",
        "/proc/./sys/kernel",
        "/proc/new",
    ] {
        let mut case = sh("true");
        let dir = case.dir.join("vol");
        fs::create_dir(&dir).unwrap();
        case.mount(bind(&dir, at, &["rbind"]));
        both_refuse(&mut case);
        let mut case = sh("true");
        case.mount(tmpfs(at, &[]));
        both_refuse(&mut case);
    }
    let mut case = sh("true");
    case.spec["mounts"][0] = tmpfs("/proc", &[]);
    both_refuse(&mut case);
    let mut case = sh("grep ' /proc ' /proc/self/mountinfo");
    case.spec["mounts"][0] = bind(Path::new("/proc"), "/proc", &["rbind"]);
    case.set("/linux/maskedPaths", json!([]));
    case.set("/linux/readonlyPaths", json!([]));
    let namespaces = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
    case.set("/linux/namespaces", namespaces);
    same(&mut case);
    // A link of the image that leads below /proc.
    let mut case = sh("true");
    symlink("/proc/sys", case.dir.join("image/innocent")).unwrap();
    case.mount(tmpfs("/innocent/kernel", &[]));
    both_refuse(&mut case);
}

fn proc_behind_a_link() {
    for typ in ["proc", "sys"] {
        let mut case = sh("true");
        let at = case.dir.join("image").join(typ);
        fs::remove_dir(&at).unwrap();
        symlink("tmp", at).unwrap();
        both_refuse(&mut case);
        let mut case = sh("true");
        let at = case.dir.join("image").join(typ);
        fs::remove_dir(&at).unwrap();
        fs::write(at, "").unwrap();
        both_refuse(&mut case);
    }
}

fn temporary_file_systems() {
    let look =
        "grep ' /t' /proc/self/mountinfo; stat -c '%n %a' /t; touch /t/new; ls /t; cat /t/old";
    for options in [
        &[][..],
        &["tmpcopyup"],
        &["tmpcopyup", "ro"],
        &["mode=700", "size=1m"],
        &["ro", "noexec", "nosymfollow"],
        &["nosuid", "nodev", "strictatime", "rprivate"],
        &["rshared"],
    ] {
        let mut case = sh(look);
        let dir = case.dir.join("image/t");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("old"), "old\n").unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1730)).unwrap();
        case.mount(tmpfs("/t", options));
        same(&mut case);
        let mut case =
            sh("grep ' /new' /proc/self/mountinfo; stat -c '%n %a' /new/t; touch /new/t/new");
        case.mount(tmpfs("/new/t", options));
        same(&mut case);
    }
    let mut case =
        sh("grep ' /dev ' /proc/self/mountinfo; touch /dev/x; echo > /dev/null; ls /dev");
    case.spec["mounts"][1] = tmpfs("/dev", &["nosuid", "ro", "mode=755"]);
    same(&mut case);
}

fn masked_and_read_only_paths() {
    let script = "grep -e /etc -e /l -e /masked /proc/self/mountinfo; cat /link /etc/secret; ls /masked; \
                  cp /bin/busybox /ro/ ; /ro/run echo ran; touch /ro/run; ls -la /dirlink/ | wc -l";
    let mut case = sh(script);
    let image = case.dir.join("image");
    fs::create_dir_all(image.join("masked/in")).unwrap();
    fs::create_dir_all(image.join("ro")).unwrap();
    fs::copy(image.join("bin/busybox"), image.join("ro/busybox")).unwrap();
    fs::write(image.join("ro/run"), "#!/bin/sh\n\"$@\"\n").unwrap();
    fs::set_permissions(image.join("ro/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(image.join("etc/secret"), "secret\n").unwrap();
    symlink("/etc/secret", image.join("link")).unwrap();
    symlink("masked", image.join("dirlink")).unwrap();
    let masked = json!([
        "/link",
        "/masked",
        "/dirlink",
        "/none",
        "/masked",
        "/proc/kcore",
        "/sys/firmware"
    ]);
    case.set("/linux/maskedPaths", masked);
    case.set("/linux/readonlyPaths", json!(["/ro", "/none", "/proc/sys"]));
    same(&mut case);
    let mut case = sh(MOUNTS);
    let masked = json!(["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/scsi",]);
    case.set("/linux/maskedPaths", masked);
    same(&mut case);
    // The root itself, and what is behind the links of processes.
    for path in ["/", "/proc/self/root", "/proc/1/root/etc", "/proc/self/exe"] {
        let mut case = sh("echo > /made; echo > /etc/made; ls /etc");
        case.set("/linux/readonlyPaths", json!([path]));
        let (_, out) = same(&mut case);
        let guarded = out.contains("can't create /etc/made: Read-only file system");
        assert_eq!(guarded, path != "/proc/self/exe", "{path}: {out}");
    }
    let mut case = sh("ls /etc");
    case.set("/linux/maskedPaths", json!(["/proc/1/root/etc"]));
    assert_eq!(same(&mut case).1, "");
    for path in ["/proc/self/exe", "/proc/self/ns/net"] {
        let mut case = sh("true");
        case.set("/linux/maskedPaths", json!([path]));
        assert_ne!(case.run_under_runc().0, 0);
        assert_ne!(case.run_or_refuse().0, 0);
    }
}

fn a_dev_of_the_node() {
    let before = names("/dev");
    let mut case = sh("grep ' /dev' /proc/self/mountinfo; ls /dev | grep -c .");
    case.set(
        "/mounts",
        json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            bind(Path::new("/dev"), "/dev", &["rbind", "rprivate"]),
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        ]),
    );
    same(&mut case);
    assert_eq!(names("/dev"), before, "the node's /dev was changed");
    let mut case = sh("grep ' /dev' /proc/self/mountinfo; ls /dev; cat /dev/null");
    let image = case.dir.join("image");
    fs::write(image.join("dev/null"), "of the image").unwrap();
    case.set(
        "/mounts",
        json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
    );
    case.set("/linux/maskedPaths", json!([]));
    both_refuse(&mut case);
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn devices() {
    let node = |path: &str, minor: u32| json!({"path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o622, "uid": 5});
    let script = "stat -c '%n %F %t:%T %a %u' /data/deep/disk /data /data/deep /dev/twice /dev/zero /dev/pipe /dev/block; ls /dev";
    let mut case = sh(script);
    case.set(
        "/linux/devices",
        json!([
            node("/data/deep/disk", 3),
            node("/dev/twice", 5),
            node("/dev/twice", 7),
            node("/dev/zero", 3),
            node("/dev/ptmx", 3),
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/dev/block", "type": "b", "major": 7, "minor": 0},
        ]),
    );
    same(&mut case);
    let mut case = sh("true");
    case.set(
        "/linux/devices",
        json!([{"path": "/dev/any", "type": "c", "major": 1, "minor": -1}]),
    );
    both_refuse(&mut case);
}

fn cgroups() {
    let script = "grep -e cgroup /proc/self/mountinfo; mkdir /sys/fs/cgroup/memory/x; \
                  touch /sys/fs/cgroup/x; ls -l /sys/fs/cgroup | awk '{print $1,$NF}' | grep -v total";
    same(&mut sh(script));
    for options in [&["nosuid", "noexec", "nodev"][..], &["ro", "rprivate"], &[]] {
        let mut case = sh("grep -e cgroup /proc/self/mountinfo");
        case.spec["mounts"][6]["options"] = json!(options);
        same(&mut case);
    }
    let mut case = sh(script);
    let all = case.spec["linux"]["namespaces"].as_array_mut().unwrap();
    all.push(json!({"type": "cgroup"}));
    same(&mut case);
}

fn what_is_refused() {
    for mount in [
        tmpfs("/", &[]),
        bind(Path::new("/no/such/place"), "/vol", &["rbind"]),
        bind(Path::new("/etc"), "/vol", &["rbind", "size=1m"]),
        json!({"destination": "/vol", "type": "nosuchfs", "source": "none"}),
        json!({"destination": "/vol", "type": "bind", "source": "/etc"}),
        tmpfs("/etc/passwd/below", &[]),
        tmpfs("/vol", &["nosuchoption=1"]),
        tmpfs("/vol", &["size=many"]),
        bind(Path::new("/etc"), "/etc/passwd", &["rbind"]),
        tmpfs(&"/long".repeat(1000), &[]),
        bind(Path::new("/etc"), &"long/".repeat(1000), &["rbind"]),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}),
    ] {
        let mut case = sh("true");
        case.mount(mount);
        both_refuse(&mut case);
    }
}

fn create_hooks_see_the_mounts_and_the_node() {
    let mut case = sh("cat /vol/from-hook; grep -c . /proc/self/mountinfo; ls /hooked");
    let volume = Host::tmpfs(&case, "vol", MsFlags::empty());
    let told = case.dir.join("told");
    case.mount(bind(&volume.0, "/vol", &["rbind"]));
    // It works in the rootfs, through the container's mount, with the node's shell.
    let script = format!(
        "cat > /dev/null; pwd > {told}; echo written > vol/from-hook; mkdir -p hooked/here; \
         grep -c ' /proc ' proc/self/mountinfo >> {told}; true",
        told = told.display()
    );
    let hooks = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    case.spec["hooks"] = hooks;
    let heard = || {
        fs::read_to_string(&told)
            .unwrap()
            .replace("/runc/rootfs", "/bundle/rootfs")
    };
    let theirs = case.run_under_runc();
    let theirs_heard = heard();
    let ours = case.run_or_refuse();
    assert_eq!(ours, theirs);
    assert_eq!(heard(), theirs_heard);
    assert!(ours.1.starts_with("written"), "{}", ours.1);
    assert!(theirs_heard.contains("bundle/rootfs"), "{theirs_heard}");
}
