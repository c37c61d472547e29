//! `reprise check`: is this node fit, and the mend for what is not.

mod containerd;

use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use reprise_runtime::node;
use reprise_runtime::policy::Config;
use serde_json::json;

use super::{Outcome, Places, show};

pub(super) use containerd::CONFIG as CONTAINERD_CONFIG;

/// The oldest kernel: pidfds of others' children and `clone3` with a given pid.
const KERNEL_MIN: (u32, u32) = (5, 9);

/// One thing looked at: its name, and what was found or what is wrong with it.
type Finding = (&'static str, Result<String, String>);

pub(super) fn run(places: &Places, json: bool) -> Outcome {
    let settings = places.settings();
    let config = match &settings {
        Ok(_) if places.config.exists() => Ok(places.config.display().to_string()),
        Ok(_) => Ok(format!(
            "defaults, since {} does not exist",
            places.config.display()
        )),
        Err(error) => Err(error.message.clone()),
    };
    let settings = settings.unwrap_or_default();
    let mut findings = vec![
        ("config", config),
        ("rights", rights()),
        ("kernel", kernel()),
        ("criu", criu(&settings)),
        ("kdat", kdat(Path::new("/run"))),
        ("cgroups", cgroups()),
        (
            "store",
            store(places.store.as_ref().unwrap_or(&settings.store.path)),
        ),
    ];
    findings.extend(containerd::findings(&places.containerd_config));
    let good = findings.iter().all(|(_, found)| found.is_ok());
    let text = if json {
        let rows = findings.iter().map(|(name, found)| {
            let text = found.as_ref().unwrap_or_else(|why| why);
            json!({ "check": name, "ok": found.is_ok(), "text": text })
        });
        show::json(rows.collect())
    } else {
        table(findings)
    };
    Outcome {
        text,
        code: u8::from(!good),
    }
}

fn table(findings: impl IntoIterator<Item = Finding>) -> String {
    let rows: Vec<[String; 3]> = findings
        .into_iter()
        .map(|(name, found)| {
            let mark = if found.is_ok() { "ok" } else { "BAD" };
            [
                mark.to_owned(),
                name.to_owned(),
                found.unwrap_or_else(|why| why),
            ]
        })
        .collect();
    show::columns(&rows)
}

fn rights() -> Result<String, String> {
    if nix::unistd::geteuid().is_root() {
        Ok("root".to_owned())
    } else {
        Err("not root; run `sudo reprise check`".to_owned())
    }
}

fn kernel() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if node::kernel_version(&text) >= KERNEL_MIN {
        Ok(text.trim().to_owned())
    } else {
        let (major, minor) = KERNEL_MIN;
        Err(format!(
            "{} is too old; boot {major}.{minor} or later",
            text.trim()
        ))
    }
}

fn criu(settings: &Config) -> Result<String, String> {
    let path = &settings.criu.path;
    node::criu_version(path).map(|v| format!("{} ({})", node::show(v), path.display()))
}

fn kdat(run: &Path) -> Result<String, String> {
    match statfs(run) {
        Ok(found) if found.filesystem_type() == TMPFS_MAGIC => {
            Ok("/run is a tmpfs, so CRIU keeps what it knows of the kernel".to_owned())
        }
        Ok(_) => Err(
            "/run is not a tmpfs, so CRIU asks the kernel anew each time (15-90 ms); \
                      mount a tmpfs there"
                .to_owned(),
        ),
        Err(e) => Err(format!(
            "/run cannot be looked at ({e}); mount a tmpfs there"
        )),
    }
}

fn cgroups() -> Result<String, String> {
    let mut spec = oci_spec::runtime::Spec::default();
    let mut linux = oci_spec::runtime::Linux::default();
    linux.set_cgroups_path(Some("/check".into()));
    spec.set_linux(Some(linux));
    reprise_runtime::cgroup::Cgroup::of(&spec, "check")
        .map(|cgroup| if cgroup.is_v2() { "v2" } else { "v1" }.to_owned())
        .map_err(|e| e.message)
}

fn store(path: &Path) -> Result<String, String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(shown.to_string()),
        Ok(_) => Err(format!("{shown} is not a directory; move it away")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{shown}, which the first checkpoint makes"))
        }
        Err(e) => Err(format!(
            "{shown} cannot be read ({e}); use sudo, or set store.path"
        )),
    }
}
