//! Mappings of users and groups, and user namespaces that have them.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::sys;

/// Mappings of users and groups, as the kernel reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    uids: String,
    gids: String,
}

impl Ids {
    /// The mappings of a spec or of one of its mounts.
    pub(super) fn of(
        uids: Option<&Vec<LinuxIdMapping>>,
        gids: Option<&Vec<LinuxIdMapping>>,
    ) -> Option<Self> {
        let lines = |list: Option<&Vec<LinuxIdMapping>>| {
            let all = list.filter(|all| !all.is_empty())?.iter();
            let line = |one: &LinuxIdMapping| {
                format!("{} {} {}\n", one.container_id(), one.host_id(), one.size())
            };
            Some(all.map(line).collect())
        };
        Some(Self {
            uids: lines(uids)?,
            gids: lines(gids)?,
        })
    }

    /// The mappings in the options of a rootfs mount:
    /// `container-id:host-id:size[,...]`.
    pub(super) fn of_options(uids: &str, gids: &str) -> Result<Self> {
        Ok(Self {
            uids: lines_of(uids)?,
            gids: lines_of(gids)?,
        })
    }

    /// A user namespace with them.
    pub(super) fn namespace(&self) -> Result<OwnedFd> {
        sys::new_user_namespace(&self.uids, &self.gids)
            .doing("cannot make a user namespace for id mappings")
    }
}

fn lines_of(option: &str) -> Result<String> {
    let line = |part: &str| {
        let numbers: Vec<u32> = part.split(':').map_while(|n| n.parse().ok()).collect();
        match numbers[..] {
            [inside, outside, size] if part.split(':').count() == 3 => {
                Ok(format!("{inside} {outside} {size}\n"))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{option:?} is no id mapping: it is container-id:host-id:size"),
            )),
        }
    };
    option.split(',').map(line).collect()
}

/// The container's user namespace: made for it, or the one that it joins.
pub(super) fn of_container(spec: &Spec) -> Result<Option<OwnedFd>> {
    match namespaces::of(spec, LinuxNamespaceType::User) {
        Namespace::Host => Ok(None),
        Namespace::Joined(path) => File::open(path)
            .map(|file| Some(file.into()))
            .doing(format!("cannot open the namespace {}", path.display())),
        Namespace::Own => {
            let ids = of_spec(spec).ok_or_else(|| {
                let text = "user namespaces enabled, but no uid or gid mapping found";
                Error::new(ErrorKind::InvalidArgument, text)
            })?;
            ids.namespace().map(Some)
        }
    }
}

/// The user namespace of a running process that has one of its own.
pub(super) fn of_process(spec: &Spec, pid: i32) -> Result<Option<Joined>> {
    if namespaces::of(spec, LinuxNamespaceType::User) == Namespace::Host {
        return Ok(None);
    }
    let path = |name: &str| format!("/proc/{pid}/{name}");
    let what = || format!("cannot open the user namespace of process {pid}");
    Ok(Some(Joined {
        namespace: File::open(path("ns/user")).doing(what())?.into(),
        uids: std::fs::read_to_string(path("uid_map")).doing(what())?,
    }))
}

/// A user namespace that another process joins.
#[derive(Debug)]
pub(super) struct Joined {
    namespace: OwnedFd,
    /// Its `uid_map`, as the node sees it.
    uids: String,
}

impl Joined {
    /// What user `uid` of the namespace is outside.
    pub(super) fn outside(&self, uid: u32) -> Option<u32> {
        self.uids.lines().find_map(|line| {
            let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u32>().ok());
            let (inside, outside, size) = (numbers.next()?, numbers.next()?, numbers.next()?);
            let offset = uid.checked_sub(inside).filter(|offset| *offset < size)?;
            outside.checked_add(offset)
        })
    }

    /// Enters it as its root, with all of root's rights in it and none outside.
    pub(super) fn enter(&self) -> nix::Result<()> {
        nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWUSER)?;
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)
    }
}

/// The mappings of the container as a whole.
pub(super) fn of_spec(spec: &Spec) -> Option<Ids> {
    let linux = spec.linux().as_ref()?;
    Ids::of(linux.uid_mappings().as_ref(), linux.gid_mappings().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_a_number_outside() {
        let joined = Joined {
            namespace: std::fs::File::open("/dev/null").unwrap().into(),
            uids: "         0     100000      10\n        20          5       1\n".to_owned(),
        };
        assert_eq!(joined.outside(3), Some(100_003));
        assert_eq!(joined.outside(20), Some(5));
        assert_eq!(joined.outside(10), None);
    }

    #[test]
    fn options_are_mappings() {
        let ids = Ids::of_options("0:100000:65536", "0:5:1,1:9:2").unwrap();
        assert_eq!(ids.uids, "0 100000 65536\n");
        assert_eq!(ids.gids, "0 5 1\n1 9 2\n");
        for wrong in ["", "0:1", "0:1:2:3", "a:1:2", "0:1:-1", "0:1:2,"] {
            assert!(Ids::of_options(wrong, "0:1:2").is_err(), "{wrong}");
        }
    }
}
