//! What goes wrong, and what is left of it: nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ground::*;
use crate::support::Case;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reprise_runtime::worker::CriuConfig;

pub(super) fn damaged_images() {
    let pod = Pod::new("pod");
    type Damage = fn(&Path);
    let garbage: Damage = |file| {
        let length = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        fs::write(file, vec![0xa5; length]).unwrap();
    };
    let damages: [(&str, Damage); 13] = [
        ("core-1.img", garbage),
        ("mm-1.img", garbage),
        ("inventory.img", garbage),
        ("files.img", garbage),
        ("pstree.img", garbage),
        ("pagemap-1.img", garbage),
        ("pages-1.img", |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(100)
                .unwrap();
        }),
        ("core-1.img", |file| fs::write(file, "garbage").unwrap()),
        ("mm-1.img", |file| fs::remove_file(file).unwrap()),
        ("inventory.img", |file| fs::write(file, "").unwrap()),
        ("files.img", |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(40)
                .unwrap();
        }),
        ("reprise.json", |file| {
            fs::write(file, "{\"version\":99}").unwrap();
        }),
        ("descriptors.json", |file| fs::remove_file(file).unwrap()),
    ];
    for (name, damage) in damages {
        let checkpoint = counting(&pod);
        damage(&checkpoint.images().join(name));
        let mut case = pod.case(&["sh", "-c", COUNT]);
        let begin = Instant::now();
        let (worker, refused, _) = try_restore(&mut case, checkpoint.restore(), None);
        let error = refused.expect_err(name);
        println!("  {name}: {error} ({} ms)", begin.elapsed().as_millis());
        assert!(begin.elapsed() < Duration::from_secs(5));
        drop(worker);
        assert_restartable(&mut case);
    }
}
pub(super) fn criu_that_cannot_be_used() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let plain = case.dir.join("plain");
    fs::write(&plain, "").unwrap();
    let old = "exec python3 -c 'import socket,sys\ns=socket.socket(fileno=int(sys.argv[2]))\n\
        s.recv(9999)\ns.send(bytes([8,7,16,1,82,4,8,3,16,18]))\ns.recv(9999)' \"$@\"";
    let cases = [
        (
            PathBuf::from("/nowhere/criu"),
            "There is no /nowhere/criu; install",
        ),
        (
            PathBuf::from("no-such-criu"),
            "No `no-such-criu` on PATH; install",
        ),
        (plain, "is not executable; chmod it"),
        (
            wrapper(&case, "exit 3"),
            "criu ended early (exit status: 3)",
        ),
        (wrapper(&case, old), "is CRIU 3.18, and 4.1 is the oldest"),
    ];
    for (path, expected) in cases {
        let config = CriuConfig {
            path,
            ..criu_config(&case.dir)
        };
        let (_, refused, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
        let error = refused.unwrap_err();
        println!("  {error}");
        assert!(error.message.contains(expected), "{error}");
        case.assert_clean();
    }
    assert_restartable(&mut case);
}

pub(super) fn criu_killed_while_restoring() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut failures = 0;
    for ms in (4..40).step_by(3) {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        let line = format!(
            "echo $$ >\"$(dirname $0)/criu.pid\"; (sleep 0.0{ms:02}; kill -9 $$) & exec criu \"$@\""
        );
        let config = CriuConfig {
            path: wrapper(&case, &line),
            ..criu_config(&case.dir)
        };
        let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
        match prepared {
            Err(error) => {
                println!("  after {ms} ms: {error}");
                failures += 1;
            }
            Ok(_) => {
                crate::support::eventually(|| is_over(&criu_pid(&case)));
                worker.start().unwrap_err();
            }
        }
        crate::support::eventually(|| !is_criu_left());
        assert_restartable(&mut case);
    }
    assert!(failures > 0);
    // And while it holds the tree, which runs then, but not for long.
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let path = wrapper(
        &case,
        "echo $$ >\"$(dirname $0)/criu.pid\"; exec criu \"$@\"",
    );
    let config = CriuConfig {
        path,
        ..criu_config(&case.dir)
    };
    let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
    prepared.unwrap();
    kill(
        Pid::from_raw(criu_pid(&case).parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    println!("  while held: {}", worker.start().unwrap_err());
    assert_restartable(&mut case);
}

/// What the wrapper of a case's criu has noted.
pub(super) fn criu_pid(case: &Case) -> String {
    let text = fs::read_to_string(case.dir.join("criu.pid")).unwrap();
    text.trim().to_owned()
}

/// Whether a process has ended, be it that nobody has asked for its end yet.
pub(super) fn is_over(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

/// Whether a child of criu's outlived it. We are the subreaper, so it is ours now.
pub(super) fn is_criu_left() -> bool {
    let mine = format!("PPid:\t{}\n", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("status")).ok())
        .filter(|status| !status.contains("State:\tZ"))
        .any(|status| status.starts_with("Name:\tcriu\n") && status.contains(&mine))
}

pub(super) fn criu_killed_while_dumping() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    for ms in (2..40).step_by(3) {
        let checkpoint = Checkpoint::new();
        let path = wrapper(
            &case,
            &format!("(sleep 0.0{ms:02}; kill -9 $$) & exec criu \"$@\""),
        );
        let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.criu.path = path);
        if let Err(error) = dumped {
            println!("  after {ms} ms: {error}");
            assert_eq!(fs::read_dir(checkpoint.images()).unwrap().count(), 0);
            assert!(!checkpoint.layer().exists());
        }
        crate::support::eventually(|| !is_criu_left());
        lines.drain();
        if !lines.go_on() {
            // Hit while CRIU sat in the program itself; docs/operations.md says so.
            println!("  after {ms} ms: the program ended with it");
            return;
        }
    }
    finish(output.pid);
}

pub(super) fn given_up_before_start() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), None);
    let pid = prepared.unwrap().pid;
    drop(worker);
    crate::support::eventually(|| !Path::new(&format!("/proc/{pid}")).exists());
    let state = case.dir.join("states").join(format!(".{}", case.id));
    crate::support::eventually(|| !state.exists());
    let group = format!("/sys/fs/cgroup/memory/reprise-unit-{}", case.id);
    crate::support::eventually(|| !Path::new(&group).exists());
    std::thread::sleep(Duration::from_millis(100));
    assert_restartable(&mut case);
}

/// A process with threads that is killed while CRIU holds it tells nobody by itself.
pub(super) fn killed_before_start() {
    let python = "import threading, time\n\
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
        print('1 there', flush=True)\n\
        while True: time.sleep(0.02); print('2 there', flush=True)";
    let pod = Pod::new("pod");
    let make = || {
        let mut case = pod.case(&["/usr/bin/python3", "-c", python]);
        with_the_nodes_programs(&mut case);
        case
    };
    let mut case = make();
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);

    let mut copy = make();
    let (worker, prepared, _out) = try_restore(&mut copy, checkpoint.restore(), None);
    let pid = prepared.unwrap().pid;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    assert!(threads.count() > 1, "python has no thread");
    finish(pid);
    drop(worker);
    copy.remove();
    assert_restartable(&mut copy);
}
