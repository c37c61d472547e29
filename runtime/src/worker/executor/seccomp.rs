//! The container's system call filter: compiled by libseccomp before Start, with
//! ENOSYS for newer calls put before it, installed by ourselves as the last thing
//! before execve.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::{Inside, enosys, words};
use crate::sys;

/// From this many calls on, libseccomp shall make a tree and no list.
const MANY: usize = 32;

/// A compiled filter.
#[derive(Debug)]
pub(super) struct Filter {
    program: Vec<u8>,
    flags: u64,
}

impl Filter {
    /// Compiles a profile. Calls that this libseccomp does not know are skipped,
    /// as under runc.
    pub(super) fn compile(profile: &LinuxSeccomp) -> Inside<Self> {
        build(profile).map_err(|e| format!("unable to init seccomp: {e}"))
    }

    /// Installs it for this process. A descriptor comes back when the profile
    /// sends calls to an agent: the agent's end.
    pub(super) fn load(&self) -> Inside<Option<OwnedFd>> {
        sys::seccomp_set_filter(&self.program, self.flags).map_err(|e| {
            format!(
                "unable to init seccomp: error loading seccomp filter into kernel: \
                 error loading seccomp filter: {}",
                words(e)
            )
        })
    }
}

fn build(profile: &LinuxSeccomp) -> Inside<Filter> {
    refuse_notify_of_write(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(|e| e.to_string())?;
    context.set_ctl_nnp(false).map_err(|e| e.to_string())?;
    let mut architectures = vec![ScmpArch::native()];
    for arch in profile.architectures().iter().flatten() {
        let arch = architecture(*arch);
        context
            .add_arch(arch)
            .map_err(|e| format!("error adding architecture to seccomp filter: {arch:?}: {e}"))?;
        architectures.push(arch);
    }
    let rules = profile.syscalls().iter().flatten();
    if rules.map(|rule| rule.names().len()).sum::<usize>() > MANY {
        // An old libseccomp cannot, and its list works as well.
        context.set_ctl_optimize(2).ok();
    }
    for rule in profile.syscalls().iter().flatten() {
        add_rule(&mut context, rule, default)?;
    }
    let mut program = enosys::prefix(profile, &architectures);
    program.extend(export(&context)?);
    Ok(Filter {
        program,
        flags: flags(profile),
    })
}

/// Between the filter and the agent that gets its descriptor stands a `write`: ours,
/// that tells the descriptor.
fn refuse_notify_of_write(profile: &LinuxSeccomp) -> Inside<()> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err("SCMP_ACT_NOTIFY cannot be used as default action".to_owned());
    }
    let asks_for_write = |rule: &LinuxSyscall| {
        rule.action() == LinuxSeccompAction::ScmpActNotify
            && rule.names().iter().any(|name| name == "write")
    };
    if profile.syscalls().iter().flatten().any(asks_for_write) {
        return Err("SCMP_ACT_NOTIFY cannot be used for the write syscall".to_owned());
    }
    Ok(())
}

/// Whether calls are sent to an agent.
fn notifies(profile: &LinuxSeccomp) -> bool {
    let mut rules = profile.syscalls().iter().flatten();
    rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify && !rule.names().is_empty())
}

fn add_rule(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> Inside<()> {
    let action = action(rule.action(), rule.errno_ret())?;
    if action == default {
        // libseccomp refuses a rule that changes nothing.
        return Ok(());
    }
    let conditions: Vec<ScmpArgCompare> = rule
        .args()
        .iter()
        .flatten()
        .map(condition)
        .collect::<Inside<_>>()?;
    let mut indices = HashSet::new();
    let repeated = rule
        .args()
        .iter()
        .flatten()
        .any(|arg| !indices.insert(arg.index()));
    for name in rule.names() {
        if name.is_empty() {
            return Err("empty string is not a valid syscall".to_owned());
        }
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        let failed =
            |e: libseccomp::error::SeccompError| format!("error adding rule for {name}: {e}");
        if conditions.is_empty() {
            context.add_rule(action, call).map_err(failed)?;
        } else if repeated {
            // Conditions on the same argument are alternatives: one rule each.
            for condition in &conditions {
                context
                    .add_rule_conditional(action, call, &[*condition])
                    .map_err(failed)?;
            }
        } else {
            context
                .add_rule_conditional(action, call, &conditions)
                .map_err(failed)?;
        }
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Inside<ScmpAction> {
    use LinuxSeccompAction as A;
    let value = errno.map_or(Ok(libc::EPERM), i32::try_from);
    let value = value.map_err(|e| format!("invalid errnoRet {errno:?}: {e}"))?;
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => ScmpAction::KillThread,
        A::ScmpActKillProcess => ScmpAction::KillProcess,
        A::ScmpActTrap => ScmpAction::Trap,
        A::ScmpActErrno => ScmpAction::Errno(value),
        A::ScmpActTrace => ScmpAction::Trace(
            u16::try_from(value).map_err(|e| format!("invalid errnoRet {value}: {e}"))?,
        ),
        A::ScmpActLog => ScmpAction::Log,
        A::ScmpActAllow => ScmpAction::Allow,
        A::ScmpActNotify => ScmpAction::Notify,
    })
}

fn condition(arg: &LinuxSeccompArg) -> Inside<ScmpArgCompare> {
    use LinuxSeccompOperator as O;
    let index = u32::try_from(arg.index()).map_err(|e| format!("invalid argument index: {e}"))?;
    let (op, datum) = match arg.op() {
        O::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        O::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        O::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        O::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        O::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        O::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // The mask is the first value, what must remain the second.
        O::ScmpCmpMaskedEq => (
            ScmpCompareOp::MaskedEqual(arg.value()),
            arg.value_two().unwrap_or(0),
        ),
    };
    Ok(ScmpArgCompare::new(index, op, datum))
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// TSYNC is left out: the process has one thread, and it changes what errors
/// mean. Without flags the kernel's mitigation of Speculative Store Bypass, which
/// costs much, stays off, as under runc.
fn flags(profile: &LinuxSeccomp) -> u64 {
    use LinuxSeccompFilterFlag as F;
    let wanted = profile.flags().as_deref();
    let mut flags = wanted
        .unwrap_or(&[F::SeccompFilterFlagSpecAllow])
        .iter()
        .fold(0, |all, flag| {
            all | match flag {
                F::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                F::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                F::SeccompFilterFlagWaitKillableRecv => {
                    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
                F::SeccompFilterFlagTsync => 0,
            }
        });
    if notifies(profile) {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    } else {
        // The kernel refuses it where there is nobody to wait for.
        flags &= !libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    flags
}

/// libseccomp's program.
fn export(context: &ScmpFilterContext) -> Inside<Vec<u8>> {
    let file =
        memfd_create(c"reprise-filter", MemFdCreateFlag::MFD_CLOEXEC).map_err(|e| e.to_string())?;
    let mut file = File::from(file);
    context.export_bpf(&file).map_err(|e| e.to_string())?;
    let mut program = Vec::new();
    file.rewind().map_err(|e| e.to_string())?;
    file.read_to_end(&mut program).map_err(|e| e.to_string())?;
    Ok(program)
}
