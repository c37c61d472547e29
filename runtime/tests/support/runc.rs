//! The same bundle under real runc, to compare with.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::Case;

/// The runc that `hack/setup` installs, or the node's.
fn runc() -> PathBuf {
    let ours = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/runc");
    if ours.exists() { ours } else { "runc".into() }
}

impl Case {
    /// Runs the container under runc, on a writable layer of its own: exit code,
    /// and what it and runc said.
    pub fn run_under_runc(&self) -> (i32, String) {
        let dir = self.dir.join("runc");
        for sub in ["rootfs", "upper", "work"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        for sub in ["upper", "work"] {
            let meta = fs::metadata(self.dir.join(sub)).unwrap();
            chown(dir.join(sub), Some(meta.uid()), Some(meta.gid())).unwrap();
        }
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = json!(format!("/reprise-unit-{}-runc", self.id));
        fs::write(dir.join("config.json"), spec.to_string()).unwrap();
        let at = |sub: &str| dir.join(sub).display().to_string();
        let mut lower = self.lower.clone();
        lower.push(self.dir.join("image").display().to_string());
        let options = format!(
            "index=off,lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            at("upper"),
            at("work")
        );
        let rootfs = dir.join("rootfs");
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let flags = MsFlags::empty();
        mount(
            Some("overlay"),
            &rootfs,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        let out = Command::new(runc())
            .arg("--root")
            .arg(dir.join("state"))
            .args(["run", "--bundle"])
            .arg(&dir)
            .arg(format!("{}-runc", self.id))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        umount2(&rootfs, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap_or(-1), text.into_owned())
    }

    /// What the container does under us, with an error in creating it as runc
    /// tells it: exit code 1 and the message.
    pub fn run_or_refuse(&mut self) -> (i32, String) {
        let (worker, prepared, [stdout, stderr]) = self.prepare();
        match prepared.and_then(|made| worker.start().map(|()| made.pid)) {
            Ok(pid) => {
                let out = super::text(stdout) + &super::text(stderr);
                (super::exit_code(pid), out)
            }
            Err(e) => (1, e.to_string()),
        }
    }

    /// Adds a mount to the spec.
    pub fn mount(&mut self, mount: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }
}
