//! `reprise node uninstall`: the node as it was before.
//!
//! Nothing is changed for as long as pods run under Reprise. Without the handler
//! containerd refuses every exec in them, and with it their probes; and one that is
//! restarted and does not find the shim of a running container deletes its state.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;

use super::containerd::{self, Restart};
use super::files;
use super::host::Host;
use super::record::{Change, Ours, Record, place};
use super::{Said, UNFINISHED, binaries, settings};

/// Where checkpoints are unless somebody says otherwise.
const STORE: &str = "/var/lib/reprise";

/// How removal is done.
#[derive(Debug)]
pub(super) struct Uninstall<'a> {
    pub(super) host: &'a Host,
    pub(super) socket: &'a Path,
    pub(super) restart: Restart,
    /// How long to wait for pods to end.
    pub(super) wait: Duration,
    /// The store of checkpoints, if that is to go, too.
    pub(super) purge: Option<PathBuf>,
    /// What shims say of their containers, gone with the last of them.
    pub(super) run_root: &'a Path,
}

impl Uninstall<'_> {
    /// Does it.
    ///
    /// # Errors
    /// What failed; it can be done again.
    pub(super) fn run(&self) -> Result<Said> {
        let mut said = Said::default();
        let Some(mut record) = Record::load(self.host)? else {
            said.line("Reprise is not installed here by `reprise node install`");
            return Ok(said);
        };
        if self.pods_run(self.wait, &mut said) {
            return Ok(said);
        }
        self.configuration(&mut record, &mut said)?;
        // One that came in between keeps its shim.
        if self.pods_run(Duration::ZERO, &mut said) {
            return Ok(said);
        }
        for version in binaries::versions(self.host) {
            binaries::remove(self.host, &version)?;
        }
        put_back(self.host, &record, &mut said)?;
        let run_root = self.host.follow(self.run_root);
        if !has_containers(&run_root) {
            remove_tree(&run_root)?;
        }
        match &self.purge {
            Some(store) => remove_tree(&self.host.follow(store))?,
            None => {
                // A cache, which `reprise verify` makes anew.
                let store = self.host.follow(Path::new(STORE));
                remove_tree(&store.join("index"))?;
                remove_empty(&store);
            }
        }
        said.line("the node is as it was before");
        said.changed = true;
        Ok(said)
    }

    /// Whether pods still run under Reprise after some time; says so.
    fn pods_run(&self, wait: Duration, said: &mut Said) -> bool {
        let begun = Instant::now();
        let count = || -> usize { binaries::running(self.host).values().sum() };
        let mut running = count();
        while running > 0 && begun.elapsed() < wait {
            std::thread::sleep(Duration::from_millis(200));
            running = count();
        }
        if running == 0 {
            return false;
        }
        said.line(format!(
            "shims that still run: {running}; Reprise stays for their pods. Delete those pods \
             and uninstall again"
        ));
        said.code = UNFINISHED;
        true
    }

    /// Takes the handler out of containerd's configuration.
    fn configuration(&self, record: &mut Record, said: &mut Said) -> Result<()> {
        let is_configuration = |change: &Change| !matches!(change.ours, Ours::Link(_));
        let all = record.changes.iter().rev().filter(|c| is_configuration(c));
        let mut changed = false;
        for change in all {
            changed |= undo(self.host, change, said)?;
        }
        if changed {
            record.restart_pending = true;
            record.save(self.host)?;
        }
        if !record.restart_pending {
            return Ok(());
        }
        // A configuration that containerd does not take now was not taken before:
        // restarting would only stop it.
        containerd::dump(self.host, &record.main)
            .map_err(|e| containerd::broken(&record.main, &e.message))?;
        if self.restart.run(self.host, self.socket)? {
            record.restart_pending = false;
            record.save(self.host)?;
            said.line("containerd was restarted, without the handler");
        } else {
            said.line("containerd has to be restarted before it forgets the handler");
        }
        Ok(())
    }
}

/// Whether a shim that is not one of ours still has containers.
fn has_containers(run_root: &Path) -> bool {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let mut namespaces = entries(run_root).filter(|entry| entry.file_name() != "criu");
    namespaces.any(|namespace| entries(&namespace.path()).next().is_some())
}

fn remove_tree(dir: &Path) -> Result<()> {
    files::gone(fs::remove_dir_all(dir)).doing(format!("Cannot remove {}", dir.display()))
}

/// Removes directories in which there is nothing, and keeps the given one.
fn remove_empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
            // One with checkpoints in it stays.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Puts everything back that the record knows, and forgets it.
///
/// # Errors
/// I/O.
pub(super) fn put_back(host: &Host, record: &Record, said: &mut Said) -> Result<()> {
    for change in record.changes.iter().rev() {
        undo(host, change, said)?;
    }
    Record::forget(host)?;
    for dir in record.dirs.iter().rev() {
        // Somebody else may have put something there in the meantime.
        fs::remove_dir(host.follow(dir)).ok();
    }
    Ok(())
}

/// Undoes one change; whether there was anything to undo.
fn undo(host: &Host, change: &Change, said: &mut Said) -> Result<bool> {
    let at = place(host, &change.path, &change.ours);
    if change.ours.is_at(&at) || is_a_link_of_ours(change, &at) {
        change.before.put_back(&at, &keep(host))?;
        return Ok(true);
    }
    let shown = change.path.display();
    match &change.ours {
        Ours::Link(_) => {
            if at.symlink_metadata().is_ok() && !change.before.is_at(&at, &keep(host)) {
                said.line(format!("{shown} is no longer ours, and stays"));
            }
            Ok(false)
        }
        Ours::DropIn(_) => {
            if at.symlink_metadata().is_err() || change.before.is_at(&at, &keep(host)) {
                return Ok(false);
            }
            change.before.put_back(&at, &keep(host))?;
            Ok(true)
        }
        Ours::Main(_) => {
            let drop_in = super::install::drop_in(&change.path);
            let edited = files::text(&at)?.unwrap_or_default();
            let Some(without) = settings::without_import(&edited, &drop_in) else {
                return Ok(false);
            };
            let (mode, owner) = files::mode_of(&at).unwrap_or((0o644, (0, 0)));
            files::write(&at, without.as_bytes(), mode, Some(owner))?;
            said.line(format!(
                "{shown} was edited since; only our entry was removed"
            ));
            Ok(true)
        }
    }
}

/// A run that died half-way may have left a link to the version before.
fn is_a_link_of_ours(change: &Change, at: &Path) -> bool {
    let there = fs::read_link(at);
    matches!(change.ours, Ours::Link(_)) && there.is_ok_and(|to| to.starts_with(binaries::OPT))
}

fn keep(host: &Host) -> PathBuf {
    host.here(Path::new(super::record::DIR))
}
