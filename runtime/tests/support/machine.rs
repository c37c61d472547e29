//! Programs of a few instructions that make one system call and exit with its error
//! number: for calls that no program of the image makes.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "shared by test binaries that each use some of it"
)]

/// How the call is made.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// `syscall`, as x86_64 programs do.
    Wide,
    /// `int 0x80`: the kernel takes it for a call of an i386 program.
    Old,
}

/// An ELF program for x86_64.
pub fn program(call: u32, door: Door) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut code = vec![0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2]; // edi, esi, edx = 0
    code.extend([0x31, 0xdb, 0x31, 0xc9]); // ebx, ecx = 0
    code.push(0xb8); // eax = call
    code.extend(call.to_le_bytes());
    code.extend(match door {
        Door::Wide => [0x0f, 0x05],
        Door::Old => [0xcd, 0x80],
    });
    code.extend([0xf7, 0xd8, 0x89, 0xc7]); // edi = -eax
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit(edi)
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, n: u16| elf.extend(n.to_le_bytes());
    let word = |elf: &mut Vec<u8>, n: u32| elf.extend(n.to_le_bytes());
    let long = |elf: &mut Vec<u8>, n: u64| elf.extend(n.to_le_bytes());
    half(&mut elf, 2); // executable
    half(&mut elf, 62); // x86_64
    word(&mut elf, 1);
    long(&mut elf, BASE + HEADERS); // entry
    long(&mut elf, 64); // program headers
    long(&mut elf, 0);
    word(&mut elf, 0);
    for n in [64, 56, 1, 0, 0, 0] {
        half(&mut elf, n);
    }
    word(&mut elf, 1); // load
    word(&mut elf, 5); // read, execute
    for n in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut elf, n);
    }
    elf.extend(code);
    elf
}
