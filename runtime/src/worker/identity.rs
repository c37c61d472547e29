//! Who a process is, as /proc tells it, and who it may be, as the spec says.

use oci_spec::runtime::{Capabilities, Capability, Spec};

use crate::error::{Doing, Error, Result};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// The lines of a thread's status that say what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    zombie: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
    /// Inheritable, permitted, effective, ambient.
    sets: [u64; 4],
    bounding: u64,
    no_new_privs: bool,
    seccomp_mode: u32,
}

impl Status {
    /// Every thread of `pid`.
    pub(super) fn of_threads(pid: i32) -> Result<Vec<Self>> {
        let dir = format!("/proc/{pid}/task");
        let threads = std::fs::read_dir(&dir).doing(format!("Cannot list {dir}"))?;
        threads
            .map(|thread| {
                let file = thread
                    .doing(format!("Cannot list {dir}"))?
                    .path()
                    .join("status");
                let text = std::fs::read_to_string(&file);
                let text = text.doing(format!("Cannot read {}", file.display()))?;
                Self::parse(&text)
                    .ok_or_else(|| Error::internal(format!("Cannot understand {}", file.display())))
            })
            .collect()
    }

    /// It has died and waits for its parent: it has no rights and no namespaces.
    pub(super) fn is_zombie(&self) -> bool {
        self.zombie
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let numbers = |name: &str| -> Option<Vec<u32>> {
            field(name)?
                .split_whitespace()
                .map(|number| number.parse().ok())
                .collect()
        };
        let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            zombie: field("State")?.starts_with(['Z', 'X']),
            uids: numbers("Uid")?,
            gids: numbers("Gid")?,
            groups: numbers("Groups")?,
            sets: [
                set("CapInh")?,
                set("CapPrm")?,
                set("CapEff")?,
                set("CapAmb")?,
            ],
            bounding: set("CapBnd")?,
            no_new_privs: field("NoNewPrivs")? == "1",
            seccomp_mode: field("Seccomp")?.parse().ok()?,
        })
    }
}

/// What the processes of a container may be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent rights, each read once"
)]
pub(super) struct Allowed {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    bounding: u64,
    /// For all other sets.
    capabilities: u64,
    may_change_uid: bool,
    may_change_gid: bool,
    no_new_privs: bool,
    seccomp: bool,
}

impl Allowed {
    /// What processes of a container with this spec can become.
    pub(super) fn by(spec: &Spec) -> Result<Self> {
        let process = spec.process().as_ref();
        let process = process.ok_or_else(|| Error::internal("The spec has no process"))?;
        let user = process.user();
        let sets = process.capabilities().as_ref();
        let mask = |set: Option<&Option<Capabilities>>| {
            let names = set.and_then(Option::as_ref).into_iter().flatten();
            names.fold(0, |mask, name| {
                mask | 1_u64.checked_shl(number(*name)).unwrap_or(0)
            })
        };
        let bounding = mask(sets.map(oci_spec::runtime::LinuxCapabilities::bounding));
        let ambient = mask(sets.map(oci_spec::runtime::LinuxCapabilities::ambient));
        let no_new_privs = process.no_new_privileges() == Some(true);
        // Set-id programs and file capabilities give a process all of its
        // bounding set, unless that is ruled out.
        let stuck = no_new_privs && user.uid() != 0;
        let capabilities = if stuck { ambient } else { bounding | ambient };
        // Not root, a process becomes another user through a set-uid program
        // only. Rare in a checkpoint, and cheap to fake in an image: refused.
        let own = if user.uid() == 0 {
            capabilities
        } else {
            ambient
        };
        let seccomp = spec
            .linux()
            .as_ref()
            .is_some_and(|linux| linux.seccomp().is_some());
        Ok(Self {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            bounding,
            capabilities,
            may_change_uid: own & 1 << CAP_SETUID != 0,
            may_change_gid: own & 1 << CAP_SETGID != 0,
            no_new_privs,
            seccomp,
        })
    }

    /// Whether processes can have the capability.
    pub(super) fn has_capability(&self, number: u32) -> bool {
        self.capabilities & 1 << number != 0
    }

    /// Says what a thread has and may not have.
    pub(super) fn check(&self, status: &Status) -> std::result::Result<(), String> {
        if status.zombie {
            return Ok(());
        }
        if !self.may_change_uid && status.uids.iter().any(|uid| *uid != self.uid) {
            return Err(format!(
                "it runs as user {:?}, not {}",
                status.uids, self.uid
            ));
        }
        if !self.may_change_gid {
            self.check_groups(status)?;
        }
        if status.bounding & !self.bounding != 0 {
            return Err(too_much("CapBnd", status.bounding, self.bounding));
        }
        for (name, set) in ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .iter()
            .zip(status.sets)
        {
            // An inheritable set counts only together with what is checked besides.
            let allowed = self.capabilities | if *name == "CapInh" { self.bounding } else { 0 };
            if set & !allowed != 0 {
                return Err(too_much(name, set, allowed));
            }
        }
        if self.no_new_privs && !status.no_new_privs {
            return Err("it lacks no_new_privs".to_owned());
        }
        if self.seccomp && status.seccomp_mode != 2 {
            return Err("it has no seccomp filter".to_owned());
        }
        Ok(())
    }

    fn check_groups(&self, status: &Status) -> std::result::Result<(), String> {
        if status.gids.iter().any(|gid| *gid != self.gid) {
            return Err(format!(
                "it runs as group {:?}, not {}",
                status.gids, self.gid
            ));
        }
        let known = |gid: &u32| *gid == self.gid || self.groups.contains(gid);
        match status.groups.iter().find(|gid| !known(gid)) {
            Some(gid) => Err(format!(
                "it is in group {gid}, which the spec does not give"
            )),
            None => Ok(()),
        }
    }
}

fn too_much(name: &str, has: u64, allowed: u64) -> String {
    format!(
        "its {name} {has:#x} has {:#x} more than the spec allows",
        has & !allowed
    )
}

/// The kernel's number of a capability.
fn number(capability: Capability) -> u32 {
    use Capability as C;
    const ORDER: [Capability; 41] = [
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::Kill,
        C::Setgid,
        C::Setuid,
        C::Setpcap,
        C::LinuxImmutable,
        C::NetBindService,
        C::NetBroadcast,
        C::NetAdmin,
        C::NetRaw,
        C::IpcLock,
        C::IpcOwner,
        C::SysModule,
        C::SysRawio,
        C::SysChroot,
        C::SysPtrace,
        C::SysPacct,
        C::SysAdmin,
        C::SysBoot,
        C::SysNice,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Mknod,
        C::Lease,
        C::AuditWrite,
        C::AuditControl,
        C::Setfcap,
        C::MacOverride,
        C::MacAdmin,
        C::Syslog,
        C::WakeAlarm,
        C::BlockSuspend,
        C::AuditRead,
        C::Perfmon,
        C::Bpf,
        C::CheckpointRestore,
    ];
    let at = ORDER.iter().position(|one| *one == capability);
    at.and_then(|at| u32::try_from(at).ok()).unwrap_or(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxCapabilitiesBuilder, ProcessBuilder, SpecBuilder, UserBuilder};

    const STATUS: &str = "Name:\tsh\nState:\tt (tracing stop)\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\n\
        Groups:\t8 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000081\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn allowed(uid: u32, bounding: &[Capability], no_new_privs: bool) -> Allowed {
        let set = || bounding.iter().copied().collect::<Capabilities>();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(set())
            .permitted(set())
            .effective(set())
            .build()
            .unwrap();
        let user = UserBuilder::default()
            .uid(uid)
            .gid(uid)
            .additional_gids([8])
            .build()
            .unwrap();
        let process = ProcessBuilder::default()
            .user(user)
            .capabilities(capabilities)
            .no_new_privileges(no_new_privs)
            .build()
            .unwrap();
        Allowed::by(&SpecBuilder::default().process(process).build().unwrap()).unwrap()
    }

    fn status(change: (&str, &str)) -> Status {
        Status::parse(&STATUS.replace(change.0, change.1)).unwrap()
    }

    #[test]
    fn what_a_cold_start_could_have_become_is_accepted() {
        let both = [Capability::Chown, Capability::Setuid];
        assert_eq!(allowed(7, &both, true).check(&status(("", ""))), Ok(()));
        // Root that may change its user drops to another one.
        let root = allowed(
            0,
            &[Capability::Chown, Capability::Setuid, Capability::Setgid],
            false,
        );
        assert_eq!(root.check(&status(("", ""))), Ok(()));
    }

    #[test]
    fn what_it_could_not_is_named() {
        let both = [Capability::Chown, Capability::Setuid];
        let stuck = allowed(7, &both, true);
        let refusal = |allowed: &Allowed, from, to| allowed.check(&status((from, to))).unwrap_err();
        assert!(refusal(&stuck, "Uid:\t7", "Uid:\t0").contains("user [0, 7, 7, 7], not 7"));
        assert!(refusal(&stuck, "Groups:\t8", "Groups:\t0").contains("group 0"));
        assert!(refusal(&stuck, "Gid:\t7", "Gid:\t0").contains("group [0"));
        assert!(refusal(&stuck, "81", "181").contains("CapBnd 0x181 has 0x100 more"));
        assert!(refusal(&stuck, "NoNewPrivs:\t1", "NoNewPrivs:\t0").contains("no_new_privs"));
        assert!(
            refusal(
                &stuck,
                "CapPrm:\t0000000000000000",
                "CapPrm:\t0000000000000001"
            )
            .contains("CapPrm")
        );
        let other = allowed(9, &both, false);
        assert!(refusal(&other, "", "").contains("not 9"));
        // Without file capabilities ruled out, the bounding set is the limit.
        let free = allowed(7, &both, false);
        assert_eq!(
            free.check(&status((
                "CapPrm:\t0000000000000000",
                "CapPrm:\t0000000000000001"
            ))),
            Ok(())
        );
    }

    #[test]
    fn a_missing_filter_is_noticed() {
        let mut wants = allowed(7, &[Capability::Chown, Capability::Setuid], true);
        wants.seccomp = true;
        assert_eq!(wants.check(&status(("", ""))), Ok(()));
        assert!(
            wants
                .check(&status(("Seccomp:\t2", "Seccomp:\t0")))
                .unwrap_err()
                .contains("seccomp")
        );
    }
}
