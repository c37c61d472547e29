//! Who the process becomes: labels, limits, user, groups, capabilities.

use std::str::FromStr;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Capabilities, PosixRlimitType, Process, User};

use super::{Inside, words};
use crate::sys;

/// Runs `look` with the eyes of the user: its ids and capabilities where files
/// are concerned. Everything is as before afterwards.
pub(super) fn as_user<T>(process: &Process, look: impl FnOnce() -> T) -> Inside<T> {
    let groups = nix::unistd::getgroups().map_err(words)?;
    let sets = Sets::of(process);
    let (all, _, inheritable) = current()?;
    set_groups(process.user())?;
    nix::unistd::setfsgid(Gid::from_raw(process.user().gid()));
    nix::unistd::setfsuid(Uid::from_raw(process.user().uid()));
    let seen = capset(sets.effective_of(process.user()), all, inheritable).map(|()| look());
    capset(all, all, inheritable)?;
    nix::unistd::setfsuid(Uid::from_raw(0));
    nix::unistd::setfsgid(Gid::from_raw(0));
    // setfsuid took the capabilities that deal with files; this brings them back.
    capset(all, all, inheritable)?;
    nix::unistd::setgroups(&groups).map_err(words)?;
    seen
}

/// Labels of security modules, to take effect at execve.
pub(super) fn set_labels(process: &Process) -> Inside<()> {
    if let Some(profile) = process
        .apparmor_profile()
        .as_deref()
        .filter(|p| !p.is_empty())
    {
        let text = format!("exec {profile}");
        std::fs::write("/proc/self/attr/apparmor/exec", &text)
            .or_else(|_old_kernel| std::fs::write("/proc/self/attr/exec", &text))
            .map_err(|e| format!("unable to apply apparmor profile: {e}"))?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
        std::fs::write("/proc/self/attr/exec", label)
            .map_err(|e| format!("unable to set the SELinux label {label:?}: {e}"))?;
    }
    Ok(())
}

/// Resource limits.
pub(super) fn set_limits(process: &Process) -> Inside<()> {
    for limit in process.rlimits().iter().flatten() {
        setrlimit(resource(limit.typ()), limit.soft(), limit.hard())
            .map_err(|e| format!("error setting rlimit type {:?}: {}", limit.typ(), words(e)))?;
    }
    Ok(())
}

fn resource(typ: PosixRlimitType) -> Resource {
    use PosixRlimitType as T;
    match typ {
        T::RlimitCpu => Resource::RLIMIT_CPU,
        T::RlimitFsize => Resource::RLIMIT_FSIZE,
        T::RlimitData => Resource::RLIMIT_DATA,
        T::RlimitStack => Resource::RLIMIT_STACK,
        T::RlimitCore => Resource::RLIMIT_CORE,
        T::RlimitRss => Resource::RLIMIT_RSS,
        T::RlimitNproc => Resource::RLIMIT_NPROC,
        T::RlimitNofile => Resource::RLIMIT_NOFILE,
        T::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        T::RlimitAs => Resource::RLIMIT_AS,
        T::RlimitLocks => Resource::RLIMIT_LOCKS,
        T::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        T::RlimitNice => Resource::RLIMIT_NICE,
        T::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        T::RlimitRttime => Resource::RLIMIT_RTTIME,
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
    nix::unistd::setresgid(gid, gid, gid)
        .map_err(|e| format!("unable to setgid {gid}: {}", words(e)))?;
    nix::unistd::setresuid(uid, uid, uid)
        .map_err(|e| format!("unable to setuid {uid}: {}", words(e)))?;
    keep(false)?;
    umask(Mode::from_bits_truncate(user.umask().unwrap_or(0o022)));
    Ok(())
}

fn set_groups(user: &User) -> Inside<()> {
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    if groups.is_empty() && setgroups_denied() {
        // Nothing asked and nothing possible: a user namespace of an
        // unprivileged maker.
        return Ok(());
    }
    nix::unistd::setgroups(&groups).map_err(|e| format!("unable to set groups: {}", words(e)))
}

fn setgroups_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// The capability sets that a process shall have; nothing given is nothing held.
#[derive(Debug)]
pub(super) struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: CapsHashSet,
}

impl Sets {
    pub(super) fn of(process: &Process) -> Self {
        let known = bits(&caps::runtime::thread_all_supported());
        let caps = process.capabilities().as_ref();
        let set = |pick: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<Capabilities>| {
            caps.map(|c| translate(pick(c).as_ref()))
                .unwrap_or_default()
        };
        let mask = |set: &CapsHashSet| bits(set) & known;
        Self {
            bounding: mask(&set(|c| c.bounding())),
            effective: mask(&set(|c| c.effective())),
            permitted: mask(&set(|c| c.permitted())),
            inheritable: mask(&set(|c| c.inheritable())),
            ambient: set(|c| c.ambient()),
        }
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
    sys::capset(effective, permitted, inheritable)
        .map_err(|e| format!("unable to apply caps: {}", words(e)))
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
