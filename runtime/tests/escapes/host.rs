//! What is watched on the host: a tree of canaries, our binary, the kernel's knobs,
//! the mount table, device nodes, and the names in places where a stray path would
//! leave something. A difference between two looks is a change of the host.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Where everything of these tests is.
const UNIT: &str = "/run/reprise-unit";

/// An integer that anybody may know and nobody misses: the knob that attacks turn.
pub(crate) const KNOB: &str = "/proc/sys/kernel/printk_ratelimit_burst";

/// A mount namespace of our own, shared within as a host's is: what a container's
/// mounts do to the host shows there, and no other program's mounts do.
pub(crate) fn stand_apart() {
    crate::support::stand_apart();
    let (none, shared) = (None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC);
    mount(none, "/", none, shared, none).unwrap();
}

/// What was seen, by name.
type Look = BTreeMap<String, String>;

/// The host, as it was.
pub(crate) struct Host {
    /// The canaries; nothing in there may change, or be read.
    pub(crate) canary: PathBuf,
    /// In the canaries, and nowhere else.
    pub(crate) secret: String,
    /// Files beside the canaries that may not change either.
    watched: Vec<PathBuf>,
    before: Look,
}

impl Host {
    #[allow(clippy::new_without_default, reason = "it makes files")]
    pub(crate) fn new() -> Self {
        let mut host = Self {
            canary: Path::new(UNIT).join("host/canary"),
            secret: format!("secret-of-the-host-{}", std::process::id()),
            watched: Vec::new(),
            before: Look::new(),
        };
        host.repair();
        host
    }

    /// Puts things back after a change, and looks anew.
    pub(crate) fn repair(&mut self) {
        let dir = &self.canary;
        while umount2(dir, MntFlags::MNT_DETACH).is_ok() {}
        fs::remove_dir_all(dir).ok();
        fs::create_dir_all(dir.join("dir/deep")).unwrap();
        for (name, mode) in [
            ("secret", 0o600),
            ("config", 0o644),
            ("tool", 0o755),
            ("0", 0o666),
        ] {
            fs::write(dir.join(name), &self.secret).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.join("dir/deep/file"), &self.secret).unwrap();
        chown(dir.join("config"), Some(1000), Some(1000)).unwrap();
        symlink("secret", dir.join("link")).unwrap();
        mknod(
            &dir.join("node"),
            SFlag::S_IFCHR,
            Mode::S_IRUSR,
            makedev(1, 5),
        )
        .unwrap();
        set_file_capability(&dir.join("tool"), "cap_chown+ei");
        if let Some(value) = self.before.get(&format!("knob {KNOB}")) {
            fs::write(KNOB, value.trim()).unwrap();
        }
        self.before = self.look();
    }

    /// Watches one more file.
    pub(crate) fn watch(&mut self, path: &Path) {
        self.watched.push(path.to_owned());
    }

    /// What is different from before; empty when nothing is.
    pub(crate) fn changes(&self) -> Vec<String> {
        let now = self.look();
        let mut all = Vec::new();
        for (name, was) in &self.before {
            match now.get(name) {
                None => all.push(format!("{name} is gone (was {was})")),
                Some(is) if is != was => all.push(format!("{name}: {was} -> {is}")),
                Some(_) => {}
            }
        }
        let new = now
            .iter()
            .filter(|(name, _)| !self.before.contains_key(*name));
        all.extend(new.map(|(name, is)| format!("{name} is new ({is})")));
        all
    }

    /// What is different and stays so: the same tests may run beside these, and their
    /// controls turn the same knob for a moment.
    pub(crate) fn lasting_changes(&self) -> Vec<String> {
        for _ in 0..20 {
            if self.changes().is_empty() {
                return Vec::new();
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.changes()
    }

    fn look(&self) -> Look {
        let mut look = Look::new();
        walk(&self.canary, &mut look);
        for path in self
            .watched
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new("/proc/self/exe")])
        {
            let meta = fs::metadata(path).unwrap();
            look.insert(format!("program {}", path.display()), described(&meta));
        }
        knobs(&mut look);
        mounts(&mut look);
        for dir in ["/", "/etc", "/root", "/usr/local/bin"] {
            names(Path::new(dir), &mut look, |_| String::new());
        }
        names(Path::new("/dev"), &mut look, |meta| {
            let (mode, uid) = (meta.mode(), meta.uid());
            format!("{mode:o} {uid} {:x}", meta.rdev())
        });
        look
    }
}

fn described(meta: &fs::Metadata) -> String {
    format!(
        "{:o} {}:{} {} bytes, {} links, rdev {:x}, modified {}.{:09}, changed {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.len(),
        meta.nlink(),
        meta.rdev(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

fn walk(path: &Path, look: &mut Look) {
    let meta = fs::symlink_metadata(path).unwrap();
    let mut what = described(&meta);
    if meta.is_file() {
        what += &format!(", {:?}", fs::read_to_string(path).unwrap_or_default());
    }
    if meta.is_symlink() {
        what += &format!(", to {:?}", fs::read_link(path).unwrap());
    }
    look.insert(format!("file {}", path.display()), what);
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), look);
        }
    }
}

fn knobs(look: &mut Look) {
    let mut all: Vec<PathBuf> = [
        KNOB,
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/domainname",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/msgmax",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/net/ipv4/ip_default_ttl",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/vm/overcommit_memory",
        "/sys/kernel/uevent_helper",
    ]
    .map(PathBuf::from)
    .to_vec();
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten() {
        let dir = controller.unwrap().path();
        all.push(dir.join("release_agent"));
        all.push(dir.join("notify_on_release"));
    }
    for path in all {
        if let Ok(value) = fs::read_to_string(&path) {
            look.insert(format!("knob {}", path.display()), value);
        }
    }
}

/// The mount table, without the ids that new mounts elsewhere shift.
fn mounts(look: &mut Look) {
    let mut table = String::new();
    let mut file = fs::File::open("/proc/self/mountinfo").unwrap();
    file.read_to_string(&mut table).unwrap();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        look.insert(
            format!("mount {} {}", words[0], words[4]),
            words[5..].join(" "),
        );
    }
}

fn names(dir: &Path, look: &mut Look, what: impl Fn(&fs::Metadata) -> String) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if let Ok(meta) = fs::symlink_metadata(&path) {
            look.insert(format!("name {}", path.display()), what(&meta));
        }
    }
}

/// Gives a file's capability attribute a value.
pub(crate) fn set_file_capability(path: &Path, value: &str) {
    let mut setcap = Command::new("setcap");
    assert!(setcap.arg(value).arg(path).status().unwrap().success());
}

/// A change in the canaries' directory, or elsewhere.
type Change<'a> = &'a dyn Fn(&Path);

/// Makes each kind of change on purpose: the watch must name it, and once things
/// are back it must be silent.
pub(crate) fn prove() {
    let mut host = Host::new();
    assert_eq!(host.changes(), [""; 0]);
    let kinds: [(&str, Change); 10] = [
        ("canary/config:", &|dir| {
            fs::write(dir.join("config"), "x").unwrap();
        }),
        ("canary/tool:", &|dir| {
            chown(dir.join("tool"), Some(7), None).unwrap();
        }),
        ("canary/secret:", &|dir| {
            fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("canary/tool:", &|dir| {
            set_file_capability(&dir.join("tool"), "cap_kill+ep");
        }),
        ("canary/dir/deep/file is gone", &|dir| {
            fs::remove_file(dir.join("dir/deep/file")).unwrap();
        }),
        ("canary/new is new", &|dir| {
            fs::create_dir(dir.join("new")).unwrap();
        }),
        ("canary/node:", &|dir| {
            fs::remove_file(dir.join("node")).unwrap();
            mknod(
                &dir.join("node"),
                SFlag::S_IFCHR,
                Mode::S_IRUSR,
                makedev(1, 3),
            )
            .unwrap();
        }),
        ("mount ", &|dir| {
            let bind = MsFlags::MS_BIND;
            mount(
                Some(dir),
                &dir.join("dir"),
                None::<&str>,
                bind,
                None::<&str>,
            )
            .unwrap();
        }),
        (KNOB, &|_| fs::write(KNOB, "77").unwrap()),
        ("/etc/reprise-escape is new", &|_| {
            fs::create_dir("/etc/reprise-escape").unwrap();
        }),
    ];
    for (name, change) in kinds {
        change(&host.canary);
        let seen = host.changes();
        fs::remove_dir("/etc/reprise-escape").ok();
        assert!(
            seen.iter().any(|line| line.contains(name)),
            "{name} in {seen:?}"
        );
        umount2(&host.canary.join("dir"), MntFlags::MNT_DETACH).ok();
        host.repair();
        assert_eq!(host.changes(), [""; 0]);
    }
}
