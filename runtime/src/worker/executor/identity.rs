//! Who the process becomes: user, groups, capabilities.

use std::str::FromStr;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Capabilities, Process, User};

use super::{Inside, words};
use crate::sys;

/// Runs `look` with the eyes of the user: its ids and capabilities where files
/// are concerned. Everything is as before afterwards. A user that there cannot be is
/// refused.
pub(super) fn as_user<T>(process: &Process, look: impl FnOnce() -> T) -> Inside<T> {
    let user = process.user();
    let groups = nix::unistd::getgroups().map_err(words)?;
    let sets = Sets::of(process)?;
    let (all, _, inheritable) = current()?;
    set_groups(user)?;
    nix::unistd::setfsgid(Gid::from_raw(user.gid()));
    nix::unistd::setfsuid(Uid::from_raw(user.uid()));
    let exists = check_mapped(user);
    let seen =
        exists.and_then(|()| capset(sets.effective_of(user), all, inheritable).map(|()| look()));
    capset(all, all, inheritable)?;
    nix::unistd::setfsuid(Uid::from_raw(0));
    nix::unistd::setfsgid(Gid::from_raw(0));
    // setfsuid took the capabilities that deal with files; this brings them back.
    capset(all, all, inheritable)?;
    nix::unistd::setgroups(&groups).map_err(words)?;
    seen
}

/// Numbers that this user namespace does not have were not taken.
fn check_mapped(user: &User) -> Inside<()> {
    const ASK: u32 = u32::MAX;
    if nix::unistd::setfsgid(Gid::from_raw(ASK)).as_raw() != user.gid() {
        return Err(cannot_become("gid", user.gid(), Errno::EINVAL));
    }
    if nix::unistd::setfsuid(Uid::from_raw(ASK)).as_raw() != user.uid() {
        return Err(cannot_become("uid", user.uid(), Errno::EINVAL));
    }
    Ok(())
}

fn cannot_become(what: &str, number: u32, e: Errno) -> String {
    match e {
        Errno::EINVAL => format!(
            "unable to setup user: cannot set{what} to unmapped {what} {number} in user namespace"
        ),
        other => format!("unable to setup user: {}", words(other)),
    }
}

/// Groups, group and user, the permitted capabilities kept.
pub(super) fn become_user(user: &User) -> Inside<()> {
    set_groups(user)?;
    let keep = |on| {
        nix::sys::prctl::set_keepcaps(on).map_err(|e| format!("unable to keep caps: {}", words(e)))
    };
    keep(true)?;
    let gid = Gid::from_raw(user.gid());
    let uid = Uid::from_raw(user.uid());
    nix::unistd::setresgid(gid, gid, gid).map_err(|e| cannot_become("gid", user.gid(), e))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|e| cannot_become("uid", user.uid(), e))?;
    keep(false)
}

/// The mask for new files.
pub(super) fn set_umask(mask: Option<u32>) {
    umask(Mode::from_bits_truncate(mask.unwrap_or(0o022) & 0o777));
}

fn set_groups(user: &User) -> Inside<()> {
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    match nix::unistd::setgroups(&groups) {
        // A user namespace of an unprivileged maker, which has no groups to give:
        // root may not only there.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(e) => Err(format!("unable to setup user: setgroups: {}", words(e))),
    }
}

/// The capability sets that a process shall have. A spec that does not speak of
/// them leaves all, as with runc; one that gives an empty set means it.
#[derive(Debug)]
pub(super) struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: CapsHashSet,
}

impl Sets {
    pub(super) fn of(process: &Process) -> Inside<Self> {
        let known = bits(&caps::runtime::thread_all_supported());
        let (_, held, inheritable) = current()?;
        let Some(caps) = process.capabilities().as_ref() else {
            return Ok(Self {
                bounding: known,
                effective: held,
                permitted: held,
                inheritable,
                ambient: CapsHashSet::new(),
            });
        };
        let mask = |set: &Option<Capabilities>| bits(&translate(set.as_ref())) & known;
        Ok(Self {
            bounding: mask(caps.bounding()),
            effective: mask(caps.effective()) & held,
            permitted: mask(caps.permitted()) & held,
            inheritable: mask(caps.inheritable()),
            ambient: translate(caps.ambient().as_ref()),
        })
    }

    /// Refuses what the kernel would refuse when it is too late to be told of.
    pub(super) fn check(&self) -> Inside<()> {
        if self.effective & !self.permitted == 0 {
            return Ok(());
        }
        let refused = words(Errno::EPERM);
        Err(format!(
            "unable to apply caps: can't apply capabilities: {refused}"
        ))
    }

    /// What a process of `user` may use before its execve.
    fn effective_of(&self, user: &User) -> u64 {
        // Only what is held now can be effective for a look; the sets of root
        // are the spec's, those of others likewise (ambient).
        let held = current().map_or(0, |(_, permitted, _)| permitted);
        if user.uid() == 0 {
            self.effective & held
        } else {
            self.effective & bits(&self.ambient) & held
        }
    }

    /// Takes everything else out of the bounding set.
    pub(super) fn drop_bounding(&self) -> Inside<()> {
        let now = caps::read(None, CapSet::Bounding).map_err(|e| told("read", &e))?;
        for cap in now {
            if self.bounding & cap.bitmask() == 0 {
                caps::drop(None, CapSet::Bounding, cap).map_err(|e| told("drop bounding", &e))?;
            }
        }
        Ok(())
    }

    /// Sets what must be set while everything is permitted, the ambient set among
    /// it, and makes `CAP_SYS_ADMIN` effective when a filter needs it.
    pub(super) fn raise_for_filter(&self, wanted: bool) -> Inside<()> {
        let (_, held, _) = current()?;
        let admin = if wanted {
            Capability::CAP_SYS_ADMIN.bitmask() & held
        } else {
            0
        };
        capset(
            (self.effective & held) | admin,
            held,
            self.inheritable & held,
        )?;
        let ambient: CapsHashSet = self
            .ambient
            .iter()
            .copied()
            .filter(|cap| cap.bitmask() & held & self.inheritable & self.permitted != 0)
            .collect();
        // Kernels before 4.3 have none; runc ignores what cannot be raised too.
        caps::set(None, CapSet::Ambient, &ambient).ok();
        Ok(())
    }

    /// The final sets; ambient ones stay, being a part of both.
    pub(super) fn apply(&self) -> Inside<()> {
        let (_, held, _) = current()?;
        let permitted = self.permitted & held;
        capset(
            self.effective & permitted,
            permitted,
            self.inheritable & held,
        )
    }
}

fn current() -> Inside<(u64, u64, u64)> {
    let read = |set| {
        caps::read(None, set)
            .map(|set| bits(&set))
            .map_err(|e| told("read", &e))
    };
    Ok((
        read(CapSet::Effective)?,
        read(CapSet::Permitted)?,
        read(CapSet::Inheritable)?,
    ))
}

fn capset(effective: u64, permitted: u64, inheritable: u64) -> Inside<()> {
    sys::capset(effective, permitted, inheritable).map_err(|e| {
        format!(
            "unable to apply caps: can't apply capabilities: {}",
            words(e)
        )
    })
}

fn told(what: &str, e: &caps::errors::CapsError) -> String {
    format!("unable to {what} caps: {e}")
}

fn bits(set: &CapsHashSet) -> u64 {
    set.iter().fold(0, |all, cap| all | cap.bitmask())
}

fn translate(set: Option<&Capabilities>) -> CapsHashSet {
    set.into_iter()
        .flatten()
        .filter_map(|cap| Capability::from_str(&format!("CAP_{cap}")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_has_its_bit() {
        use oci_spec::runtime::Capability as C;
        let set: Capabilities = [C::Chown, C::CheckpointRestore, C::NetBindService].into();
        let bit = |n| 1u64 << n;
        assert_eq!(bits(&translate(Some(&set))), bit(0) | bit(40) | bit(10));
    }
}
