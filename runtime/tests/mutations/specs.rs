//! The specs to start from: what a real containerd writes for a pod's sandbox, its
//! container, and `ctr run`; fitted to a bundle that has no pod around it.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

/// Stands for the cgroup that each side gets for itself.
pub(crate) const CGROUP: &str = "/reprise-unit-own";

/// What stands for a file, or a directory, of the pod's.
pub(crate) const FILE: &str = "/run/reprise-unit/pod/file";
/// See [`FILE`].
pub(crate) const DIR: &str = "/run/reprise-unit/pod/dir";

/// The exit code of a container that ran as it should.
pub(crate) const CODE: i32 = 7;

/// Recorded specs by name.
#[derive(Clone)]
pub(crate) struct Specs(pub(crate) Vec<(&'static str, Value)>);

impl Specs {
    /// Starts a containerd, once, and reads what it wrote.
    pub(crate) fn record() -> Self {
        static RECORDED: OnceLock<Specs> = OnceLock::new();
        RECORDED.get_or_init(record).clone()
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        let found = self.0.iter().find(|(one, _)| *one == name);
        found.unwrap().1.clone()
    }
}

fn record() -> Specs {
    std::fs::create_dir_all(DIR).unwrap();
    std::fs::write(FILE, "").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "run",
        "-q",
        "-p",
        "integration",
        "--bin",
        "record-specs",
        "--",
    ]);
    let done = cargo
        .arg(dir.path())
        .current_dir(workspace)
        .status()
        .unwrap();
    assert!(done.success(), "cannot record containerd's specs");
    let read = |name| {
        let text = std::fs::read(dir.path().join(format!("{name}.json"))).unwrap();
        (name, fitted(serde_json::from_slice(&text).unwrap()))
    };
    Specs(["container", "sandbox", "ctr"].map(read).to_vec())
}

fn fitted(mut spec: Value) -> Value {
    spec["process"]["args"] = json!(["sh", "-c", format!("exit {CODE}")]);
    spec["root"]["path"] = json!("rootfs");
    spec["linux"]["cgroupsPath"] = json!(CGROUP);
    for one in spec["linux"]["namespaces"].as_array_mut().unwrap() {
        one.as_object_mut().unwrap().remove("path");
    }
    for one in spec["mounts"].as_array_mut().unwrap() {
        let at = one["destination"].as_str().unwrap().to_owned();
        if one["type"] == "bind" {
            one["source"] = json!(if at == "/dev/shm" { DIR } else { FILE });
        }
    }
    spec
}
