//! System calls that are newer than a profile: they shall get ENOSYS, which makes a
//! C library or a Go runtime fall back to older ones, and not the profile's default
//! (mostly EPERM), which they take for a verdict.
//!
//! Newer is what has a higher number than any call that the profile names, for each
//! architecture of the profile. The test stands before libseccomp's program:
//!
//! ```text
//!  ld arch
//!  jeq X86_64, else next ──┐        one part for each architecture
//!    ld number             │
//!    number > highest ?  ret ENOSYS
//!    ja end                │
//!  jeq I386, else next  <──┘
//!    ...
//!  end: libseccomp's program
//! ```

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

/// One instruction of classic BPF, as the kernel has it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where `struct seccomp_data` has the call's number and its architecture.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// x86_64 and x32 are one architecture to the kernel; the bit tells them apart.
const X32_BIT: u32 = 1 << 30;
const RET_ENOSYS: u32 = 0x0005_0000 | 38;

/// The instructions to put before a profile's program; none where the default
/// allows what is unknown, or says ENOSYS by itself.
pub(super) fn prefix(profile: &LinuxSeccomp, architectures: &[ScmpArch]) -> Vec<u8> {
    use LinuxSeccompAction as A;
    let asked = match profile.default_action() {
        A::ScmpActAllow | A::ScmpActLog | A::ScmpActTrace => return Vec::new(),
        A::ScmpActErrno => profile.default_errno_ret() != Some(38),
        _ => true,
    };
    if !asked {
        return Vec::new();
    }
    let highest = |arch| highest(profile, arch);
    encode(&program(&parts(architectures, highest)))
}

/// The highest number among the calls that the profile names; those that the
/// architecture does not have are negative.
fn highest(profile: &LinuxSeccomp, arch: ScmpArch) -> Option<u32> {
    let rules = profile.syscalls().iter().flatten();
    let numbers = rules
        .flat_map(|rule| rule.names())
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok())
        .map(i32::from);
    numbers
        .max()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n > 0)
}

/// What is tested for one architecture of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    audit: u32,
    highest: Highest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Highest {
    Plain(u32),
    /// s390: number 0 is what calls with large numbers come as.
    Multiplexed(u32),
    /// Of x86_64, of x32.
    X86(Option<u32>, Option<u32>),
}

fn parts(architectures: &[ScmpArch], highest: impl Fn(ScmpArch) -> Option<u32>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for arch in architectures {
        let (Some(audit), Some(number)) = (audit(*arch), highest(*arch)) else {
            continue;
        };
        let is_x86 = matches!(arch, ScmpArch::X8664 | ScmpArch::X32);
        let known = parts.iter_mut().find(|part| part.audit == audit);
        match known.map(|part| &mut part.highest) {
            Some(Highest::X86(wide, x32)) => {
                let of = if *arch == ScmpArch::X32 { x32 } else { wide };
                *of = Some(number);
            }
            Some(_) => {}
            None => parts.push(Part {
                audit,
                highest: match arch {
                    ScmpArch::X32 => Highest::X86(None, Some(number)),
                    _ if is_x86 => Highest::X86(Some(number), None),
                    ScmpArch::S390 | ScmpArch::S390X => Highest::Multiplexed(number),
                    _ => Highest::Plain(number),
                },
            }),
        }
    }
    parts
}

fn program(parts: &[Part]) -> Vec<Instruction> {
    if parts.is_empty() {
        return Vec::new();
    }
    let bodies: Vec<_> = parts.iter().map(|part| body(part.highest)).collect();
    // Each part is its test, its body and the jump to the end.
    let length: usize = bodies.iter().map(|body| body.len() + 2).sum();
    let mut program = vec![load(ARCH)];
    for (part, body) in parts.iter().zip(bodies) {
        program.push(jump_if(IF_EQUAL, part.audit, 0, small(body.len() + 1)));
        program.extend(body);
        let left = length - program.len();
        program.push(Instruction {
            code: JUMP,
            jt: 0,
            jf: 0,
            k: u32::from(small(left)),
        });
    }
    program
}

/// Returns ENOSYS or goes on behind itself.
fn body(highest: Highest) -> Vec<Instruction> {
    let enosys = Instruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: RET_ENOSYS,
    };
    let mut body = vec![load(NUMBER)];
    match highest {
        Highest::Plain(number) => body.push(jump_if(IF_GREATER, number, 0, 1)),
        Highest::Multiplexed(number) => {
            body.push(jump_if(IF_EQUAL, 0, 1, 0));
            body.push(jump_if(IF_GREATER, number, 0, 1));
        }
        Highest::X86(Some(wide), Some(x32)) => {
            body.push(jump_if(IF_BITS, X32_BIT, 1, 0));
            body.push(jump_if(IF_GREATER, wide, 1, 2));
            body.push(jump_if(IF_GREATER, x32, 0, 1));
        }
        Highest::X86(Some(wide), None) => {
            body.push(jump_if(IF_BITS, X32_BIT, 2, 0));
            body.push(jump_if(IF_GREATER, wide, 0, 1));
        }
        Highest::X86(None, x32) => {
            body.push(jump_if(IF_BITS, X32_BIT, 0, 2));
            body.push(jump_if(IF_GREATER, x32.unwrap_or(u32::MAX), 0, 1));
        }
    }
    body.push(enosys);
    body
}

fn load(at: u32) -> Instruction {
    Instruction {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: at,
    }
}

fn jump_if(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Distances are short: a part has seven instructions at most, and there are
/// fewer than twenty architectures.
fn small(distance: usize) -> u8 {
    u8::try_from(distance).unwrap_or(u8::MAX)
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|one| {
            let [c0, c1] = one.code.to_ne_bytes();
            let [k0, k1, k2, k3] = one.k.to_ne_bytes();
            [c0, c1, one.jt, one.jf, k0, k1, k2, k3]
        })
        .collect()
}

/// The kernel's name of an architecture (`AUDIT_ARCH_*`): the ELF machine with a
/// bit for 64-bit ones and one for little-endian ones.
fn audit(arch: ScmpArch) -> Option<u32> {
    const WIDE: u32 = 0x8000_0000;
    const LITTLE: u32 = 0x4000_0000;
    const N32: u32 = 0x2000_0000;
    Some(match arch {
        ScmpArch::X86 => 3 | LITTLE,
        ScmpArch::X8664 | ScmpArch::X32 => 62 | WIDE | LITTLE,
        ScmpArch::Arm => 40 | LITTLE,
        ScmpArch::Aarch64 => 183 | WIDE | LITTLE,
        ScmpArch::Mips => 8,
        ScmpArch::Mips64 => 8 | WIDE,
        ScmpArch::Mips64N32 => 8 | WIDE | N32,
        ScmpArch::Mipsel => 8 | LITTLE,
        ScmpArch::Mipsel64 => 8 | WIDE | LITTLE,
        ScmpArch::Mipsel64N32 => 8 | WIDE | LITTLE | N32,
        ScmpArch::Ppc => 20,
        ScmpArch::Ppc64 => 21 | WIDE,
        ScmpArch::Ppc64Le => 21 | WIDE | LITTLE,
        ScmpArch::S390 => 22,
        ScmpArch::S390X => 22 | WIDE,
        ScmpArch::Riscv64 => 243 | WIDE | LITTLE,
        ScmpArch::Loongarch64 => 258 | WIDE | LITTLE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = u32::MAX;

    /// What the program says to a call: ENOSYS, or on to the end.
    fn run(program: &[Instruction], arch: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        while let Some(one) = program.get(at) {
            let step = |yes: bool| usize::from(if yes { one.jt } else { one.jf });
            at += 1;
            at += match one.code {
                LOAD => {
                    loaded = if one.k == ARCH { arch } else { number };
                    0
                }
                JUMP => one.k as usize,
                IF_EQUAL => step(loaded == one.k),
                IF_GREATER => step(loaded > one.k),
                IF_BITS => step(loaded & one.k != 0),
                RETURN => return one.k,
                other => panic!("instruction {other:#x}"),
            };
        }
        assert_eq!(at, program.len(), "jumped beyond the end");
        END
    }

    fn of(architectures: &[ScmpArch], highest: u32) -> Vec<Instruction> {
        let of = |arch| {
            Some(match arch {
                ScmpArch::X32 => highest | X32_BIT,
                _ => highest,
            })
        };
        program(&parts(architectures, of))
    }

    const ALL: [ScmpArch; 18] = [
        ScmpArch::X86,
        ScmpArch::X8664,
        ScmpArch::X32,
        ScmpArch::Arm,
        ScmpArch::Aarch64,
        ScmpArch::Mips,
        ScmpArch::Mips64,
        ScmpArch::Mips64N32,
        ScmpArch::Mipsel,
        ScmpArch::Mipsel64,
        ScmpArch::Mipsel64N32,
        ScmpArch::Ppc,
        ScmpArch::Ppc64,
        ScmpArch::Ppc64Le,
        ScmpArch::S390,
        ScmpArch::S390X,
        ScmpArch::Riscv64,
        ScmpArch::Loongarch64,
    ];

    #[test]
    fn each_architecture_has_its_limit() {
        let program = of(&ALL, 400);
        for arch in ALL {
            let audit = audit(arch).unwrap();
            let bit = if arch == ScmpArch::X32 { X32_BIT } else { 0 };
            assert_eq!(run(&program, audit, 400 | bit), END, "{arch:?}");
            assert_eq!(run(&program, audit, 401 | bit), RET_ENOSYS, "{arch:?}");
            let multiplexed = matches!(arch, ScmpArch::S390 | ScmpArch::S390X);
            let zero = if multiplexed { RET_ENOSYS } else { END };
            assert_eq!(run(&program, audit, bit), zero, "{arch:?}");
        }
        assert_eq!(
            run(&program, 0x1234, 5000),
            END,
            "an unknown one is libseccomp's"
        );
    }

    #[test]
    fn x32_and_x86_64_alone_leave_the_other_to_libseccomp() {
        let audit = audit(ScmpArch::X8664).unwrap();
        let wide = of(&[ScmpArch::X8664], 400);
        assert_eq!(run(&wide, audit, 401), RET_ENOSYS);
        assert_eq!(run(&wide, audit, 401 | X32_BIT), END);
        let x32 = of(&[ScmpArch::X32], 400);
        assert_eq!(run(&x32, audit, 401), END);
        assert_eq!(run(&x32, audit, 401 | X32_BIT), RET_ENOSYS);
    }

    #[test]
    fn permissive_profiles_get_nothing() {
        let profile = |text: &str| -> LinuxSeccomp { serde_json::from_str(text).unwrap() };
        let names = r#""syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]"#;
        for default in ["ALLOW", "LOG", "TRACE"] {
            let text = format!("{{\"defaultAction\":\"SCMP_ACT_{default}\",{names}}}");
            assert!(prefix(&profile(&text), &[ScmpArch::X8664]).is_empty());
        }
        let text =
            format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38,{names}}}");
        assert!(prefix(&profile(&text), &[ScmpArch::X8664]).is_empty());
        let text = format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",{names}}}");
        assert_eq!(prefix(&profile(&text), &[ScmpArch::X8664]).len() % 8, 0);
        let empty = profile("{\"defaultAction\":\"SCMP_ACT_ERRNO\"}");
        assert!(
            prefix(&empty, &[ScmpArch::X8664]).is_empty(),
            "no call is named"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_choice_of_architectures_and_limits(
            chosen in proptest::collection::vec(0..ALL.len(), 1..ALL.len()),
            highest in 1u32..1000,
            number in 1u32..2000,
        ) {
            let chosen: Vec<_> = chosen.into_iter().map(|at| ALL[at]).collect();
            let program = of(&chosen, highest);
            for arch in ALL {
                let bit = if arch == ScmpArch::X32 { X32_BIT } else { 0 };
                let said = run(&program, audit(arch).unwrap(), number | bit);
                let limited = chosen.contains(&arch) && number > highest;
                proptest::prop_assert_eq!(said == RET_ENOSYS, limited);
            }
        }
    }
}
