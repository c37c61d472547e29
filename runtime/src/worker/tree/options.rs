//! The options of a mount in the words of fstab and of the OCI spec: pure.

use nix::mount::MsFlags;
use oci_spec::runtime::Mount;

use crate::sys::{self, MountAttr};

/// `MS_NOSYMFOLLOW`, which nix does not know.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(0x100);
/// What a mount in another user namespace may have locked.
const ATIME: MsFlags = MsFlags::MS_NOATIME
    .union(MsFlags::MS_RELATIME)
    .union(MsFlags::MS_STRICTATIME)
    .union(MsFlags::MS_NODIRATIME);

/// A mount's options, sorted out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    /// Flags that are asked for; `MS_BIND` and `MS_REC` among them.
    pub(super) flags: MsFlags,
    /// Flags that are asked to be off (`rw`, `exec`, `suid`, `dev`).
    pub(super) cleared: MsFlags,
    /// Propagation, in the order in which it is to be set.
    pub(super) propagation: Vec<MsFlags>,
    /// Attributes of the mount and all below it (`rro`).
    pub(super) recursive: Option<MountAttr>,
    /// A tmpfs starts with what was there before.
    pub(super) copy_up: bool,
    /// `idmap`, or with true `ridmap`.
    pub(super) id_map: Option<bool>,
    /// The file system's own.
    pub(super) data: Vec<String>,
}

impl Options {
    /// These flags and nothing else.
    pub(super) fn only(flags: MsFlags) -> Self {
        Self {
            flags,
            cleared: MsFlags::empty(),
            propagation: Vec::new(),
            recursive: None,
            copy_up: false,
            id_map: None,
            data: Vec::new(),
        }
    }

    /// The options of the spec's mount.
    pub(super) fn of(mount: &Mount) -> Self {
        Self::parse(mount.options().iter().flatten().map(String::as_str))
    }

    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::only(MsFlags::empty());
        for word in words {
            if let Some((set, flag)) = flag(word) {
                all.flags.set(flag, set);
                all.cleared.set(flag, !set);
            } else if let Some(kind) = propagation(word) {
                all.propagation.push(kind);
            } else if let Some((set, attribute)) = recursive(word) {
                all.add_recursive(set, attribute);
            } else {
                match word {
                    // null and "" say nothing, to Go and to the kernel.
                    "" => {}
                    "tmpcopyup" => all.copy_up = true,
                    "idmap" => all.id_map = Some(false),
                    "ridmap" => all.id_map = Some(true),
                    data => all.data.push(data.to_owned()),
                }
            }
        }
        all
    }

    fn add_recursive(&mut self, set: bool, attribute: u64) {
        let attr = self.recursive.get_or_insert_default();
        if set {
            attr.set |= attribute;
            attr.clear &= !attribute;
        } else {
            attr.clear |= attribute;
            attr.set &= !attribute;
        }
        if attribute & sys::MOUNT_ATTR_ATIME == attribute {
            // The kernel takes access times as one field, cleared as a whole.
            attr.clear |= sys::MOUNT_ATTR_ATIME;
        }
    }

    /// Whether it is a bind mount.
    pub(super) fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }

    /// Whether a bind takes what is mounted below its source along.
    pub(super) fn is_deep(&self) -> bool {
        self.flags.contains(MsFlags::MS_REC)
    }

    /// Whether it is asked to be read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }

    /// The attributes of a bind mount that is asked for: exactly these flags, and
    /// none that its source happens to have. `None` leaves them as they are.
    pub(super) fn bind_attributes(&self) -> Option<MountAttr> {
        let plain = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_REMOUNT;
        let asked = self.flags - plain;
        if asked.is_empty() && self.cleared.is_empty() {
            return None;
        }
        let set = attributes(self.flags);
        let mut clear = sys::MOUNT_ATTR_RDONLY
            | sys::MOUNT_ATTR_NOSUID
            | sys::MOUNT_ATTR_NODEV
            | sys::MOUNT_ATTR_NOEXEC
            | sys::MOUNT_ATTR_NOSYMFOLLOW;
        if self.flags.intersects(ATIME) {
            clear |= sys::MOUNT_ATTR_ATIME | sys::MOUNT_ATTR_NODIRATIME;
        }
        Some(MountAttr {
            set,
            clear: clear & !set | (clear & sys::MOUNT_ATTR_ATIME),
            ..MountAttr::default()
        })
    }
}

/// Flags as attributes of a mount. Without a word about access times they are
/// `relatime`, which is zero.
pub(in crate::worker) fn attributes(flags: MsFlags) -> u64 {
    const PAIRS: [(MsFlags, u64); 6] = [
        (MsFlags::MS_RDONLY, sys::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, sys::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, sys::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, sys::MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NODIRATIME, sys::MOUNT_ATTR_NODIRATIME),
        (NOSYMFOLLOW, sys::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let plain = PAIRS
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(0, |all, (_, attribute)| all | attribute);
    if flags.contains(MsFlags::MS_STRICTATIME) {
        plain | sys::MOUNT_ATTR_STRICTATIME
    } else if flags.contains(MsFlags::MS_NOATIME) {
        plain | sys::MOUNT_ATTR_NOATIME
    } else {
        plain
    }
}

/// Flags that belong to a file system as a whole, by the names that it takes.
pub(super) fn superblock_words(flags: MsFlags) -> impl Iterator<Item = &'static str> {
    const PAIRS: [(MsFlags, &str); 5] = [
        (MsFlags::MS_RDONLY, "ro"),
        (MsFlags::MS_SYNCHRONOUS, "sync"),
        (MsFlags::MS_DIRSYNC, "dirsync"),
        (MsFlags::MS_MANDLOCK, "mand"),
        (MsFlags::MS_LAZYTIME, "lazytime"),
    ];
    PAIRS
        .into_iter()
        .filter(move |(flag, _)| flags.contains(*flag))
        .map(|(_, word)| word)
}

/// The propagation that an option asks for.
pub(in crate::worker) fn propagation(word: &str) -> Option<MsFlags> {
    Some(match word {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED | MsFlags::MS_REC,
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE | MsFlags::MS_REC,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE | MsFlags::MS_REC,
        _ => return None,
    })
}

/// The flag that an option sets or, with false, clears.
pub(in crate::worker) fn flag(word: &str) -> Option<(bool, MsFlags)> {
    Some(match word {
        "ro" => (true, MsFlags::MS_RDONLY),
        "rw" => (false, MsFlags::MS_RDONLY),
        "nosuid" => (true, MsFlags::MS_NOSUID),
        "suid" => (false, MsFlags::MS_NOSUID),
        "nodev" => (true, MsFlags::MS_NODEV),
        "dev" => (false, MsFlags::MS_NODEV),
        "noexec" => (true, MsFlags::MS_NOEXEC),
        "exec" => (false, MsFlags::MS_NOEXEC),
        "sync" => (true, MsFlags::MS_SYNCHRONOUS),
        "async" => (false, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (true, MsFlags::MS_DIRSYNC),
        "remount" => (true, MsFlags::MS_REMOUNT),
        "mand" => (true, MsFlags::MS_MANDLOCK),
        "nomand" => (false, MsFlags::MS_MANDLOCK),
        "noatime" => (true, MsFlags::MS_NOATIME),
        "atime" => (false, MsFlags::MS_NOATIME),
        "nodiratime" => (true, MsFlags::MS_NODIRATIME),
        "diratime" => (false, MsFlags::MS_NODIRATIME),
        "relatime" => (true, MsFlags::MS_RELATIME),
        "norelatime" => (false, MsFlags::MS_RELATIME),
        "strictatime" => (true, MsFlags::MS_STRICTATIME),
        "nostrictatime" => (false, MsFlags::MS_STRICTATIME),
        "lazytime" => (true, MsFlags::MS_LAZYTIME),
        "nolazytime" => (false, MsFlags::MS_LAZYTIME),
        "iversion" => (true, MsFlags::MS_I_VERSION),
        "noiversion" => (false, MsFlags::MS_I_VERSION),
        "silent" => (true, MsFlags::MS_SILENT),
        "loud" => (false, MsFlags::MS_SILENT),
        "nosymfollow" => (true, NOSYMFOLLOW),
        "symfollow" => (false, NOSYMFOLLOW),
        "bind" => (true, MsFlags::MS_BIND),
        "rbind" => (true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        _ => return None,
    })
}

/// The attribute that an option sets or, with false, clears in a whole tree.
fn recursive(word: &str) -> Option<(bool, u64)> {
    Some(match word {
        "rro" => (true, sys::MOUNT_ATTR_RDONLY),
        "rrw" => (false, sys::MOUNT_ATTR_RDONLY),
        "rnosuid" => (true, sys::MOUNT_ATTR_NOSUID),
        "rsuid" => (false, sys::MOUNT_ATTR_NOSUID),
        "rnodev" => (true, sys::MOUNT_ATTR_NODEV),
        "rdev" => (false, sys::MOUNT_ATTR_NODEV),
        "rnoexec" => (true, sys::MOUNT_ATTR_NOEXEC),
        "rexec" => (false, sys::MOUNT_ATTR_NOEXEC),
        "rnodiratime" => (true, sys::MOUNT_ATTR_NODIRATIME),
        "rdiratime" => (false, sys::MOUNT_ATTR_NODIRATIME),
        "rrelatime" => (true, 0),
        "rnorelatime" => (false, 0),
        "rnoatime" => (true, sys::MOUNT_ATTR_NOATIME),
        "ratime" => (false, sys::MOUNT_ATTR_NOATIME),
        "rstrictatime" => (true, sys::MOUNT_ATTR_STRICTATIME),
        "rnostrictatime" => (false, sys::MOUNT_ATTR_STRICTATIME),
        "rnosymfollow" => (true, sys::MOUNT_ATTR_NOSYMFOLLOW),
        "rsymfollow" => (false, sys::MOUNT_ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(words.split(','))
    }

    #[test]
    fn the_last_word_counts() {
        let options = parse("rbind,ro,rw,noexec,exec,size=1m,tmpcopyup,rslave,private");
        assert!(options.is_bind() && options.is_deep() && !options.is_read_only());
        assert_eq!(options.cleared, MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC);
        let kinds = [MsFlags::MS_SLAVE | MsFlags::MS_REC, MsFlags::MS_PRIVATE];
        assert_eq!(options.propagation, kinds);
        assert_eq!(options.data, ["size=1m"]);
        assert!(options.copy_up);
    }

    #[test]
    fn empty_words_say_nothing() {
        let options = parse("rbind,,ro,");
        assert!(options.is_bind() && options.is_read_only() && options.data.is_empty());
    }

    #[test]
    fn a_bind_has_the_flags_that_are_asked_for_and_no_others() {
        assert!(parse("rbind,rprivate").bind_attributes().is_none());
        let attr = parse("rbind,ro").bind_attributes().unwrap();
        assert_eq!(attr.set, sys::MOUNT_ATTR_RDONLY);
        assert!(attr.clear & sys::MOUNT_ATTR_NOEXEC != 0);
        assert_eq!(attr.clear & sys::MOUNT_ATTR_ATIME, 0);
        let attr = parse("bind,rw,noatime").bind_attributes().unwrap();
        assert_eq!(attr.set, sys::MOUNT_ATTR_NOATIME);
        assert!(attr.clear & sys::MOUNT_ATTR_RDONLY != 0);
        assert!(attr.clear & sys::MOUNT_ATTR_ATIME == sys::MOUNT_ATTR_ATIME);
    }

    #[test]
    fn access_times_are_one_field() {
        let attr = parse("rbind,rro,rnoatime").recursive.unwrap();
        assert_eq!(attr.set, sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOATIME);
        assert_eq!(attr.clear, sys::MOUNT_ATTR_ATIME);
        assert_eq!(attributes(MsFlags::MS_RELATIME), 0);
        let both = MsFlags::MS_STRICTATIME | MsFlags::MS_NOATIME;
        assert_eq!(attributes(both), sys::MOUNT_ATTR_STRICTATIME);
    }
}
