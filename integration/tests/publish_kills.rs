//! Whoever is killed at whatever moment while a checkpoint is published: the image is
//! there as a whole or not at all, and nothing else is left.

#![expect(
    clippy::print_stdout,
    reason = "figures and seeds are what one looks for in a test's output"
)]

use anyhow::{Context, Result, bail};
use integration::store::{self, Store};
use integration::{Container, Node, Pod, PodSpec, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many kills without `REPRISE_TEST_KILLS`; a hundred take some three minutes.
const KILLS: u32 = 30;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Publisher,
    Shim,
    Containerd,
}

/// Numbers that look like chance, the same for the same seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Restarting containerd, or a pod, takes most of the time.
    fn victim(&mut self) -> Victim {
        match self.below(10) {
            0..=6 => Victim::Publisher,
            7..=8 => Victim::Shim,
            _ => Victim::Containerd,
        }
    }
}

fn pod(name: &str) -> PodSpec {
    PodSpec::new("kills", name)
}

#[test]
fn an_image_is_whole_or_absent_whoever_is_killed() -> Result<()> {
    let kills = match std::env::var("REPRISE_TEST_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS,
    };
    let seed = match std::env::var("REPRISE_TEST_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => u64::from(std::process::id()) | 1,
    };
    println!("REPRISE_TEST_SEED={seed}");
    let node = Node::start()?;
    let mut chance = Chance(seed);
    let mut target = node.run_heart(&pod("web"))?;
    let before = Store::of(&node)?;
    // How long one takes, from the command's start.
    let began = Instant::now();
    node.reprise(["checkpoint", target.1.id()])?;
    let whole = u64::try_from(began.elapsed().as_micros())?;

    let mut hits = 0;
    for n in 0..kills {
        let (victim, delay) = (chance.victim(), chance.below(whole * 5 / 4));
        let delay = Duration::from_micros(delay);
        let hit = strike(&node, &target, victim, delay);
        hits += u32::from(hit.with_context(|| format!("kill {n}: {victim:?} after {delay:?}"))?);
        match victim {
            Victim::Publisher => target.1.next_beat().map(drop)?,
            Victim::Containerd => node.start_containerd()?,
            Victim::Shim => {
                wait_for("the pod's removal", Duration::from_secs(30), || {
                    Ok(target.0.remove().ok())
                })?;
                target = node.run_heart(&pod("web"))?;
            }
        }
    }
    println!("{hits} of {kills} met somebody at work");
    assert!(hits * 3 >= kills, "{hits} of {kills} met somebody at work");

    // The next one sweeps what all of them have left.
    node.reprise(["checkpoint", target.1.id()])?;
    let checkpoints = are_whole(&node)?;
    println!("{checkpoints} images");
    // It may have been restored from one of them.
    target.0.remove()?;
    for image in store::images(&node)? {
        if image.starts_with("reprise.local/") {
            node.ctr(["images", "rm", "--sync", &image])?;
        }
    }
    for checkpoint in fs::read_dir(node.path("/var/lib/reprise/checkpoints"))? {
        let id = checkpoint?.file_name().to_string_lossy().into_owned();
        node.reprise(["rm", &id])?;
    }
    store::is_as_before(&node, &before).with_context(|| format!("seed {seed}"))
}

/// Kills somebody so long after a checkpoint was begun; whether there was somebody.
fn strike(
    node: &Node,
    target: &(Pod<'_>, Container<'_>),
    victim: Victim,
    delay: Duration,
) -> Result<bool> {
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| node.run("reprise", ["checkpoint", target.1.id()]));
        std::thread::sleep(delay);
        let hit = match victim {
            Victim::Publisher => kill_all(node, |line| line.ends_with(" publish "))?,
            Victim::Shim => kill_all(node, |line| {
                line.contains("containerd-shim-reprise-v2") && line.contains(target.0.id())
            })?,
            Victim::Containerd => node.kill_containerd().map(|()| true)?,
        };
        match taken.join() {
            Ok(finished) => finished.map(drop)?,
            Err(_panic) => bail!("no answer"),
        }
        Ok(hit)
    })
}

/// Kills the node's processes with such a command line, whose words are each followed
/// by a blank; whether there were any.
fn kill_all(node: &Node, is: impl Fn(&str) -> bool) -> Result<bool> {
    let namespace = fs::read_link(node.path("/proc/1/ns/pid"))?;
    let mut hit = false;
    for entry in fs::read_dir("/proc")? {
        let dir: PathBuf = entry?.path();
        let line = fs::read(dir.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = fs::read_link(dir.join("ns/pid")).is_ok_and(|ns| ns == namespace);
        if inside && is(&line) {
            let pid = dir.file_name().unwrap_or_default().to_string_lossy();
            // It may have ended by itself.
            hit |= kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL).is_ok();
        }
    }
    Ok(hit)
}

/// Every checkpoint image has all that it names, and its base image is untouched.
fn are_whole(node: &Node) -> Result<usize> {
    let listed = node.ctr(["images", "ls", "-q", "labels.\"reprise.dev/checkpoint\""])?;
    let snapshots = node.ctr(["snapshots", "ls"])?;
    for image in listed.lines() {
        let shown = node.ctr(["images", "inspect", "--content", image])?;
        let id = image.rsplit(':').next().unwrap_or_default();
        assert!(
            snapshots.contains(&format!("reprise-rootfs-{id} ")),
            "{image}"
        );
        let config = shown
            .lines()
            .find(|line| line.contains("image.config.v1+json @"));
        let digest = config.and_then(|line| line.split("sha256:").nth(1));
        let digest: String = digest
            .with_context(|| format!("a config in {shown}"))?
            .chars()
            .take_while(char::is_ascii_hexdigit)
            .collect();
        let config = node.ctr(["content", "get", &format!("sha256:{digest}")])?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        let data = config["rootfs"]["diff_ids"][0]
            .as_str()
            .context("a diff id")?;
        assert!(snapshots.contains(&format!("{data} ")), "{image}: {data}");
    }
    Ok(listed.lines().count())
}
