//! The same bundle under runc: the yardstick.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio as StdioOf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use super::{Case, exit_code, text};

/// What came of a container or an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was not made, and why.
    Refused(String),
    /// How it ended, and what it said.
    Ended(i32, String),
}

pub fn runc() -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/bin/runc");
    let runc = PathBuf::from(ours);
    assert!(
        runc.exists(),
        "hack/setup brings runc, which this test needs"
    );
    runc
}

impl Case {
    /// Runs it through our worker.
    pub fn outcome(&mut self) -> Outcome {
        let (worker, prepared, [stdout, stderr]) = self.prepare();
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(e) => return Outcome::Refused(e.message),
        };
        if let Err(e) = worker.start() {
            exit_code(prepared.pid);
            return Outcome::Refused(e.message);
        }
        let said = text(stdout) + &text(stderr);
        Outcome::Ended(exit_code(prepared.pid), said)
    }

    /// Runs one more process through our worker.
    pub fn exec_outcome(&mut self, process: Value) -> Outcome {
        match self.try_exec(process) {
            (Ok(started), out) => {
                let said = text(out);
                Outcome::Ended(exit_code(started.pid), said)
            }
            (Err(e), _) => Outcome::Refused(e.message),
        }
    }

    /// Runs the same bundle, on the same rootfs, under runc.
    pub fn outcome_under_runc(&mut self) -> Outcome {
        self.with_runc(|case| {
            let args = [
                "run",
                "--bundle",
                case.dir.join("bundle").to_str().unwrap(),
                &case.id,
            ]
            .map(str::to_owned);
            case.call_runc(&args)
        })
    }

    /// Runs one more process under runc, in the container that runs already there.
    pub fn exec_outcome_under_runc(&mut self, process: &Value) -> Outcome {
        self.with_runc(|case| {
            let bundle = case.dir.join("bundle");
            let mut made = Command::new(runc());
            made.arg("--root").arg(case.dir.join("runc"));
            made.args(["run", "--detach", "--bundle"])
                .arg(&bundle)
                .arg(&case.id);
            let null = || StdioOf::null();
            let status = made.stdin(null()).stdout(null()).stderr(null()).status();
            assert!(status.unwrap().success());
            let file = case.dir.join("process.json");
            fs::write(&file, process.to_string()).unwrap();
            let args = ["exec", "--process", file.to_str().unwrap(), &case.id].map(str::to_owned);
            case.call_runc(&args)
        })
    }

    fn with_runc(&mut self, run: impl FnOnce(&Self) -> Outcome) -> Outcome {
        let create = self.create_request();
        let rootfs = create.bundle.join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        let options = create.rootfs[0].options.join(",");
        let overlay = Some("overlay");
        mount(
            overlay,
            &rootfs,
            overlay,
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        let outcome = run(self);
        let mut delete = Command::new(runc());
        delete.arg("--root").arg(self.dir.join("runc"));
        delete.args(["delete", "--force", &self.id]);
        delete.output().unwrap();
        umount2(&rootfs, MntFlags::MNT_DETACH).unwrap();
        outcome
    }

    fn call_runc(&self, args: &[String]) -> Outcome {
        let mut command = Command::new(runc());
        command.arg("--root").arg(self.dir.join("runc")).args(args);
        let output = command.stdin(StdioOf::null()).output().unwrap();
        let (mut said, mut refusal) = (String::from_utf8_lossy(&output.stdout).into_owned(), None);
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            if line.contains("level=error msg=") {
                let message = line.split_once("msg=").unwrap().1;
                let message: String = serde_json::from_str(message).unwrap();
                refusal = message
                    .split_once(" failed: ")
                    .map(|(_, why)| why.to_owned());
            } else if !line.contains("level=") {
                said.push_str(line);
                said.push('\n');
            }
        }
        match refusal {
            Some(why) => Outcome::Refused(why),
            None => Outcome::Ended(output.status.code().unwrap_or(-1), said),
        }
    }
}
