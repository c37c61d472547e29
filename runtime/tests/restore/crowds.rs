//! Many at once, and large ones.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use crate::ground::*;
use serde_json::json;

pub(super) fn ten_at_once() {
    let checkpoint = counting(&Pod::new("pod"));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..10 {
            let checkpoint = &checkpoint;
            scope.spawn(move || {
                let pod = Pod::new(&format!("pod{n}"));
                let mut case = pod.case(&["sh", "-c", COUNT]);
                let (pid, lines) = restore(&mut case, checkpoint);
                assert!((0..5).any(|_| lines.next_count().1 == format!("pod{n}")));
                finish(pid);
            });
        }
    });
    println!("  {} ms with pods and removal", begin.elapsed().as_millis());
}

pub(super) fn how_long_it_takes() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    let checkpoint = Checkpoint::new();
    let dumped = checkpoint.dump(&mut case, output.pid, |_| {}).unwrap();
    println!(
        "  dump: frozen {} us, {} bytes, {} of memory",
        dumped.frozen_us, dumped.image_bytes, dumped.memory_bytes
    );
    for timing in dumped.timings {
        println!("    {:20} {:6} us", timing.step, timing.us);
    }
    finish(output.pid);
    let mut all = Vec::new();
    for n in 0..10 {
        let mut copy = pod.case(&["sh", "-c", COUNT]);
        let begin = Instant::now();
        // As the shim does.
        std::thread::spawn(reprise_runtime::cgroup::prewarm);
        let (worker, prepared, out) = try_restore(&mut copy, checkpoint.restore(), None);
        let prepared = prepared.unwrap();
        let created = begin.elapsed();
        worker.start().unwrap();
        all.push(begin.elapsed().as_micros());
        Lines::of(out).next();
        if n == 9 {
            println!(
                "  restore: created after {} us, start answered after {} us",
                created.as_micros(),
                all[9]
            );
            for timing in prepared.timings {
                println!("    {:20} {:6} us", timing.step, timing.us);
            }
        }
        finish(prepared.pid);
    }
    all.sort_unstable();
    println!("  median {} us of {all:?}", all[all.len() / 2]);
}

/// Python and Java with heaps and threads, from the node's own files.
pub(super) fn large_programs() {
    const JAVA: &str = "import java.util.*; public class Beat { public static void main(String[] a) \
        throws Exception { var heap = new ArrayList<byte[]>(); for (int i = 0; i < 64; i++) heap.add(new byte[1 << 20]); \
        for (int i = 0; ; i++) { for (var b : heap) b[i % b.length] = 1; System.out.println(i + \" \" + heap.size()); Thread.sleep(20); } } }";
    let python = "import time\nx = [bytes([i]) * 1048576 for i in range(100)]\ni = 0\n\
        while True:\n    i += 1; print(i, len(x), flush=True); time.sleep(0.02)";
    let pod = Pod::new("pod");
    let programs: [&[&str]; 2] = [
        &["/usr/bin/python3", "-c", python],
        &[
            "java",
            "-Xint",
            "-XX:-UsePerfData",
            "-cp",
            "/classes",
            "Beat",
        ],
    ];
    let classes = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(classes.path().join("classes")).unwrap();
    fs::write(classes.path().join("classes/Beat.java"), JAVA).unwrap();
    let mut javac = std::process::Command::new("javac");
    let with_java = javac
        .arg(classes.path().join("classes/Beat.java"))
        .status()
        .is_ok_and(|s| s.success());
    for args in programs {
        if args[0] == "java" && !with_java || args[0] != "java" && !Path::new(args[0]).exists() {
            println!("  {}: not on this machine", args[0]);
            continue;
        }
        let make = || {
            let mut case = pod.case(args);
            case.set("/linux/resources/memory/limit", json!(1 << 30));
            with_the_nodes_programs(&mut case);
            bind(
                &mut case,
                "/classes",
                &classes.path().join("classes"),
                &["rbind", "rprivate", "ro"],
            );
            case
        };
        let mut case = make();
        let output = case.start();
        let errors = output.stderr;
        std::thread::spawn(move || std::io::copy(&mut File::from(errors), &mut std::io::stdout()));
        let lines = Lines::of(output.stdout);
        let seen = (0..5).map(|_| lines.next_count().0).next_back().unwrap();
        let checkpoint = Checkpoint::new();
        let dumped = checkpoint.dump(&mut case, output.pid, |_| {});
        let dumped = dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        lines.drain();
        lines.next();
        finish(output.pid);
        let mut copy = make();
        let begin = Instant::now();
        let (pid, lines) = restore(&mut copy, &checkpoint);
        let started = begin.elapsed();
        assert!(lines.next_count().0 >= seen);
        println!(
            "  {}: frozen {} ms, {} MB, restored in {} ms",
            args[0],
            dumped.frozen_us / 1000,
            dumped.memory_bytes >> 20,
            started.as_millis()
        );
        finish(pid);
    }
}
