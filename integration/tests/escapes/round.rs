//! One attack, many times, on one node: attempt, watch, count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use integration::{Container, ContainerSpec, Leftovers, Node, Pod, PodSpec, eventually};

use crate::host::Host;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// No container, or no process: with the reason.
    Refused(String),
    /// It ran, and this is what it said.
    Ran(String),
}

/// How many attempts of each; `REPRISE_ESCAPE_ATTEMPTS` asks for more.
pub(crate) fn attempts() -> u32 {
    let asked = std::env::var("REPRISE_ESCAPE_ATTEMPTS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(50)
}

/// The attacker's programs, in a directory of the node.
pub(crate) fn arm(node: &Node) -> Result<PathBuf> {
    let dir = node.dir().join("attack");
    fs::create_dir_all(&dir)?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes");
    for (source, made, flags) in [
        (
            "attacker.c",
            "attacker",
            &["-static", "-Wall", "-Werror"][..],
        ),
        ("library.c", "library.so", &["-shared", "-fPIC"]),
    ] {
        let mut cc = Command::new("cc");
        cc.arg("-O1").args(flags).arg("-o").arg(dir.join(made));
        let done = cc.arg(sources.join(source)).status().context("cc")?;
        ensure!(done.success(), "{source} does not compile");
    }
    Ok(dir)
}

/// A neighbour of the pod that swaps two names of a volume all the time.
pub(crate) struct Neighbour<'n> {
    _container: Container<'n>,
    count: PathBuf,
}

impl<'n> Neighbour<'n> {
    pub(crate) fn swapping(
        pod: &Pod<'n>,
        attack: &Path,
        volume: &Path,
        [one, other]: [&str; 2],
    ) -> Result<Self> {
        let count = attack.join(format!("count-{one}"));
        let (one_at, other_at) = (format!("/vol/{one}"), format!("/vol/{other}"));
        let told = format!("/attack/count-{one}");
        let spec = ContainerSpec::new(integration::programs::BUSYBOX)
            .name(&format!("neighbour-{one}"))
            .command(&["/attack/attacker", "swap", &one_at, &other_at, &told])
            .mount(&attack.display().to_string(), "/attack", false)
            .mount(&volume.display().to_string(), "/vol", false);
        let neighbour = Self {
            _container: pod.run(&spec)?,
            count,
        };
        eventually("the neighbour's first swaps", || neighbour.swaps() > 3)?;
        Ok(neighbour)
    }

    pub(crate) fn swaps(&self) -> u64 {
        let text = fs::read_to_string(&self.count).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}

/// A pod, what is watched around it, and what came of the attempts.
pub(crate) struct Round<'n> {
    pub(crate) host: Host,
    pub(crate) pod: Pod<'n>,
    raced: u32,
    tried: u32,
    seen: BTreeMap<String, u32>,
    before: Leftovers,
}

impl<'n> Round<'n> {
    pub(crate) fn new(node: &'n Node, spec: &PodSpec, programs: &[PathBuf]) -> Result<Self> {
        Ok(Self {
            host: Host::new(node, programs)?,
            before: Leftovers::of(node)?,
            pod: node.run_pod(spec)?,
            raced: 0,
            tried: 0,
            seen: BTreeMap::new(),
        })
    }

    /// Makes a container of the pod, and hears it out.
    pub(crate) fn container(&self, spec: &ContainerSpec) -> Result<Outcome> {
        let container = self.create(spec)?;
        let outcome = match container.start() {
            Err(refused) => Outcome::Refused(format!("{refused:#}")),
            Ok(()) => {
                container.wait()?;
                Outcome::Ran(container.log()?)
            }
        };
        container.remove()?;
        Ok(outcome)
    }

    /// Each attempt has a log of its own.
    fn create(&self, spec: &ContainerSpec) -> Result<Container<'n>> {
        let name = format!("attempt-{}", self.tried);
        self.pod.create(&spec.clone().name(&name))
    }

    /// Counts what an attempt came to, and fails at once where it was a success.
    pub(crate) fn hear(&mut self, outcome: Outcome) -> Result<()> {
        self.tried += 1;
        let (kind, said) = match outcome {
            Outcome::Refused(why) => ("refused", why),
            Outcome::Ran(said) => ("ran", said),
        };
        if self.host.betrayed_by(&said) {
            bail!("an escape: it {kind} and said {said}");
        }
        ensure!(!said.contains("panicked"), "{said}");
        *self.seen.entry(format!("{kind}: {said}")).or_default() += 1;
        Ok(())
    }

    /// The same, where a neighbour is to have swapped meanwhile.
    pub(crate) fn raced(
        &mut self,
        neighbours: &[&Neighbour<'_>],
        attempt: impl FnOnce(&Self) -> Result<Outcome>,
    ) -> Result<()> {
        let swaps = || neighbours.iter().map(|one| one.swaps()).sum::<u64>();
        let before = swaps();
        let outcome = attempt(self)?;
        self.raced += u32::from(swaps() > before);
        self.hear(outcome)
    }

    /// Nothing of the host has changed, and the attack was one: what must have been
    /// seen was, and where it raced, it mostly did.
    pub(crate) fn close(self, races: bool, must_see: &[&str]) -> Result<()> {
        let changes = self.host.changes()?;
        ensure!(changes.is_empty(), "the host has changed: {changes:#?}");
        for words in must_see {
            let seen = self.seen.keys().any(|outcome| outcome.contains(words));
            ensure!(seen, "no outcome with {words:?} in {:#?}", self.seen);
        }
        let enough = self.raced * 10 >= self.tried * 9;
        ensure!(
            !races || enough,
            "only {} of {} raced",
            self.raced,
            self.tried
        );
        let refused = self
            .seen
            .iter()
            .filter(|(outcome, _)| outcome.starts_with("refused"));
        let refused: u32 = refused.map(|(_, count)| count).sum();
        println!(
            "{} attempts, {} raced, {refused} refused, no change of the host",
            self.tried, self.raced
        );
        let node = self.pod.node();
        self.pod.remove()?;
        node.is_as_before(&self.before)
    }
}

impl Round<'_> {
    /// Makes a container that goes on, looks into it by an exec as well, ends it.
    pub(crate) fn looked_into(&self, spec: &ContainerSpec, script: &str) -> Result<Outcome> {
        let container = self.create(spec)?;
        let outcome = match container.start() {
            Err(refused) => Outcome::Refused(format!("{refused:#}")),
            Ok(()) => {
                let done = container.exec(&["/bin/sh", "-c", script])?;
                container.stop(0)?;
                Outcome::Ran(container.log()? + &done.stdout + &done.stderr)
            }
        };
        container.remove()?;
        Ok(outcome)
    }
}
