//! Device rules for v2: a small program that the kernel asks at every open and
//! mknod (`BPF_PROG_TYPE_CGROUP_DEVICE`, linux/bpf.h).

use std::fs::File;
use std::path::Path;

use super::devices::{Access, Rules};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::sys::{self, BpfInsn};

const LDX_W: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV32_K: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOV32_X: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND32_K: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RSH32_K: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JNE_K: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JNE_X: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const JNE32_K: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JEQ_K: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// Registers of the program.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Puts the rules in force for the cgroup and everything below it, in the place
/// of all that were attached to it before: systemd's say the same, or less. The
/// program lives as long as the cgroup.
///
/// # Errors
/// The kernel refuses it: the container must not start then, since it could use
/// every device.
pub(super) fn attach(dir: &Path, rules: &Rules) -> Result<()> {
    let refused = |e: &std::io::Error| {
        Error::because(
            format_args!(
                "Cannot put device rules in force for {}; the kernel needs CONFIG_CGROUP_BPF \
                 and Reprise needs CAP_SYS_ADMIN or CAP_BPF with CAP_NET_ADMIN",
                dir.display()
            ),
            e,
        )
        .with_kind(ErrorKind::FailedPrecondition)
    };
    let cgroup = File::open(dir).doing(format_args!("Cannot open {}", dir.display()))?;
    let before = sys::bpf_device_programs(&cgroup).map_err(|e| refused(&e))?;
    if !(rules.allow_by_default && rules.exceptions.is_empty()) {
        let program = sys::bpf_load_device_program(&program(rules)).map_err(|e| refused(&e))?;
        sys::bpf_attach_device_program(&cgroup, &program).map_err(|e| refused(&e))?;
    }
    // Only now: at no moment is the cgroup without rules. One that we may not
    // touch (an LSM's doing) can but forbid more.
    for old in before {
        sys::bpf_detach_device_program(&cgroup, &old).map_err(|e| refused(&e))?;
    }
    Ok(())
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
    BpfInsn {
        code,
        regs: src << 4 | dst,
        off,
        imm,
    }
}

/// The program: takes type, access, major and minor out of its context
/// (`struct bpf_cgroup_dev_ctx`), then asks one exception after the other.
fn program(rules: &Rules) -> Vec<BpfInsn> {
    let mut code = vec![
        insn(LDX_W, TYPE, CONTEXT, 0, 0),
        insn(MOV32_X, ACCESS, TYPE, 0, 0),
        insn(AND32_K, TYPE, 0, 0, 0xffff),
        insn(RSH32_K, ACCESS, 0, 0, 16),
        insn(LDX_W, MAJOR, CONTEXT, 4, 0),
        insn(LDX_W, MINOR, CONTEXT, 8, 0),
    ];
    for (device, access) in &rules.exceptions {
        // Every test jumps to the next exception when it fails; the distances
        // are filled in once the length of this one is known.
        let mut block = vec![insn(JNE_K, TYPE, 0, 0, if device.block { 1 } else { 2 })];
        if access.0 != Access::ALL {
            let bits = kernel_bits(access.0);
            block.push(insn(MOV32_X, SCRATCH, ACCESS, 0, 0));
            block.push(insn(AND32_K, SCRATCH, 0, 0, bits));
            block.push(if rules.allow_by_default {
                // Denied when it asks for any of these.
                insn(JEQ_K, SCRATCH, 0, 0, 0)
            } else {
                // Allowed when it asks for nothing but these.
                insn(JNE_X, SCRATCH, ACCESS, 0, 0)
            });
        }
        for (register, number) in [(MAJOR, device.major), (MINOR, device.minor)] {
            if let Some(number) = number {
                block.push(insn(
                    JNE32_K,
                    register,
                    0,
                    0,
                    i32::from_ne_bytes(number.to_ne_bytes()),
                ));
            }
        }
        block.push(insn(
            MOV32_K,
            RESULT,
            0,
            0,
            i32::from(!rules.allow_by_default),
        ));
        block.push(insn(EXIT, 0, 0, 0, 0));
        let end = block.len();
        for (at, step) in block.iter_mut().enumerate() {
            if matches!(step.code, JNE_K | JNE_X | JNE32_K | JEQ_K) {
                step.off = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
            }
        }
        code.append(&mut block);
    }
    code.push(insn(
        MOV32_K,
        RESULT,
        0,
        0,
        i32::from(rules.allow_by_default),
    ));
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

/// `BPF_DEVCG_ACC_*`: mknod 1, read 2, write 4.
fn kernel_bits(access: u8) -> i32 {
    [(Access::MKNOD, 1), (Access::READ, 2), (Access::WRITE, 4)]
        .into_iter()
        .filter_map(|(ours, theirs)| (access & ours != 0).then_some(theirs))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(code: &[BpfInsn], block: bool, major: u32, minor: u32, access: u8) -> bool {
        let kind: u32 = if block { 1 } else { 2 };
        let context = [
            u32::try_from(kernel_bits(access)).unwrap() << 16 | kind,
            major,
            minor,
        ];
        let mut r = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let step = code[at];
            let (dst, src) = ((step.regs & 15) as usize, (step.regs >> 4) as usize);
            let imm = u64::from(u32::from_ne_bytes(step.imm.to_ne_bytes()));
            let mut jump = false;
            match step.code {
                LDX_W => r[dst] = u64::from(context[usize::try_from(step.off).unwrap() / 4]),
                MOV32_K => r[dst] = imm,
                MOV32_X => r[dst] = r[src],
                AND32_K => r[dst] &= imm,
                RSH32_K => r[dst] >>= imm,
                JNE_K | JNE32_K => jump = r[dst] != imm,
                JNE_X => jump = r[dst] != r[src],
                JEQ_K => jump = r[dst] == imm,
                EXIT => return r[0] == 1,
                other => panic!("unknown code {other:#x}"),
            }
            at += 1;
            if jump {
                at += usize::try_from(step.off).unwrap();
            }
        }
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let lists = [
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#,
            r#"[{"allow":true,"access":"rwm"},
                {"allow":false,"type":"b","major":8,"minor":1,"access":"w"},
                {"allow":false,"type":"c","major":4294967295,"access":"rwm"}]"#,
            "[]",
        ];
        for list in lists {
            let list: Vec<oci_spec::runtime::LinuxDeviceCgroup> =
                serde_json::from_str(list).unwrap();
            let rules = Rules::of(Some(&list), &[]).unwrap();
            let code = program(&rules);
            for block in [false, true] {
                for major in [0, 1, 5, 8, 10, 136, u32::MAX] {
                    for minor in [0, 1, 2, 3, 200, 229] {
                        for access in 1..=Access::ALL {
                            assert_eq!(
                                run(&code, block, major, minor, access),
                                rules.allows(block, major, minor, access),
                                "{block} {major}:{minor} {access}"
                            );
                        }
                    }
                }
            }
        }
    }
}
