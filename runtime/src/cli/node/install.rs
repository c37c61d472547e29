//! `reprise node install`: the same for a first time, a second time and an upgrade.
//!
//! ```text
//!  stage the programs ─> check the node ─> try the configuration out    nothing is in use yet
//!      ─> note what is there ─> links ─> drop-in ─> main file           each by rename
//!      ─> restart containerd, if its configuration changed ─> remove versions nobody runs
//! ```
//!
//! The handler is never there without its shim, and the main file never imports a
//! drop-in that is not there: containerd would not start.

use std::path::{Path, PathBuf};

use reprise_runtime::{Error, ErrorKind, Result};

use super::containerd::{self, Restart};
use super::files;
use super::fitness::{self, BY_INSTALL};
use super::host::Host;
use super::record::{Ours, Record};
use super::{Said, UNFIT, binaries, settings, uninstall};

/// What is to be installed, and how.
#[derive(Debug)]
pub(super) struct Install<'a> {
    pub(super) host: &'a Host,
    pub(super) from: &'a Path,
    pub(super) version: &'a str,
    pub(super) bin_dir: &'a Path,
    pub(super) main: &'a Path,
    pub(super) socket: &'a Path,
    pub(super) restart: Restart,
    pub(super) accepted: &'a [String],
}

/// What is to be where.
struct Plan {
    links: Vec<(PathBuf, Ours)>,
    drop_in: (PathBuf, String),
    main: Option<String>,
}

impl Install<'_> {
    /// Does it.
    ///
    /// # Errors
    /// What failed. The node is as it was before then.
    pub(super) fn run(&self) -> Result<Said> {
        plain(self.version)?;
        let known = Record::load(self.host)?;
        let fresh = known.is_none();
        let mut record = known.unwrap_or_else(|| Record::new(self.host, self.main));
        if record.main != self.main {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "Reprise is installed in {}; uninstall it there first",
                    record.main.display()
                ),
            ));
        }
        let new = !binaries::versions(self.host).contains(self.version);
        let configuration = Configuration::read(self.host, self.main)?;
        let done = self.change(&mut record);
        if matches!(&done, Ok(said) if said.code == 0) {
            return done;
        }
        let undone = self.undo(&record, fresh, &configuration);
        if new && (fresh || record.installed != self.version) {
            binaries::remove(self.host, self.version)?;
        }
        if fresh {
            uninstall::put_back(self.host, &record, &mut Said::default())?;
        }
        match (done, undone) {
            (Err(mut why), Err(more)) => {
                why.detail.push(format!("And when that was undone: {more}"));
                Err(why)
            }
            (done, undone) => undone.and(done),
        }
    }

    fn change(&self, record: &mut Record) -> Result<Said> {
        let mut said = Said::default();
        record.make_dirs(self.host, Path::new(binaries::OPT))?;
        if binaries::stage(self.host, self.from, self.version)? {
            let place = binaries::bin(self.version);
            said.line(format!(
                "programs of {} are in {}",
                self.version,
                place.display()
            ));
        }
        let Some(with_criu) = self.check(&mut said)? else {
            return Ok(said);
        };
        let main = files::text(&self.host.follow(self.main))?;
        let version = settings::version(main.as_deref().unwrap_or("version = 3"));
        let version = version.map_err(|why| containerd::broken(self.main, &why))?;
        let before = containerd::dump(self.host, self.main)
            .map_err(|e| containerd::broken(self.main, &e.message))?;
        let plan = self.plan(main.as_deref(), version, with_criu, &before)?;
        record.make_dirs(self.host, self.main.parent().unwrap_or(Path::new("/")))?;
        let drop_in = &plan.drop_in.1;
        containerd::try_out(self.host, self.main, main.as_deref(), drop_in, &before)?;

        self.note(record, &plan)?;
        self.put(&plan, &mut said)?;
        if record.restart_pending {
            let after = containerd::dump(self.host, self.main)?;
            containerd::judge(self.main, &before, &after)?;
            if self.restart.run(self.host, self.socket)? {
                record.restart_pending = false;
                record.save(self.host)?;
                said.line("containerd was restarted");
            } else {
                said.line("containerd has to be restarted before it knows the handler");
            }
        }
        self.clean(&mut said)?;
        said.changed = !said.is_empty();
        if !said.changed {
            said.line(format!("{} is installed already", self.version));
        }
        Ok(said)
    }

    /// The findings; whether our CRIU is to be used, or none if the node is not fit.
    fn check(&self, said: &mut Said) -> Result<Option<bool>> {
        let mut findings = fitness::findings(self.host, self.version, self.main)?;
        let missing = findings.iter().any(|f| f.check == "criu" && !f.ok);
        let with_criu =
            binaries::brings_criu(self.from) && (missing || self.linked_criu().is_some());
        if with_criu {
            let host = self.host.with_path(&binaries::bin(self.version));
            findings = fitness::findings(&host, self.version, self.main)?;
        }
        for finding in fitness::unfit(&findings, &BY_INSTALL, self.accepted) {
            said.findings
                .push(format!("{}: {}", finding.check, finding.text));
        }
        let fit = said.findings.is_empty();
        if !fit {
            said.code = UNFIT;
            said.note("nothing was changed; --accept NAME installs in spite of a finding");
        }
        Ok(fit.then_some(with_criu))
    }

    /// Where the `criu` in the directory of links leads, if to one of ours.
    fn linked_criu(&self) -> Option<PathBuf> {
        let link = self.host.here(&self.bin_dir.join(binaries::CRIU));
        let target = std::fs::read_link(link).ok()?;
        target.starts_with(binaries::OPT).then_some(target)
    }

    fn plan(
        &self,
        main: Option<&str>,
        main_version: i64,
        with_criu: bool,
        before: &str,
    ) -> Result<Plan> {
        let programs = [binaries::SHIM, binaries::CLI];
        let criu = with_criu.then_some(binaries::CRIU);
        let link = |name| {
            let target = binaries::bin(self.version).join(name);
            (self.bin_dir.join(name), Ours::Link(target))
        };
        let links = programs.into_iter().chain(criu).map(link).collect();
        // Where containerd does not look for shims it is told the path.
        let searched = containerd::search_path(self.host, self.socket);
        let found = searched.is_none_or(|dirs| dirs.iter().any(|dir| dir == self.bin_dir));
        let shim = (!found).then(|| self.bin_dir.join(binaries::SHIM));
        let snapshotter = settings::snapshotter(before);
        let drop_in = drop_in(self.main);
        let covered = match main {
            None => Ok(false),
            Some(text) => {
                let dir = self.main.parent().unwrap_or(Path::new("/"));
                settings::imports(text, dir, &drop_in)
            }
        };
        let broken = |why: String| containerd::broken(self.main, &why);
        Ok(Plan {
            links,
            main: match covered.map_err(broken)? {
                true => None,
                false => Some(settings::with_import(main, &drop_in).map_err(broken)?),
            },
            drop_in: (
                drop_in,
                settings::drop_in(main_version, snapshotter, shim.as_deref()),
            ),
        })
    }

    /// Writes down what is about to be done, and what is there.
    fn note(&self, record: &mut Record, plan: &Plan) -> Result<()> {
        let (drop_in, text) = &plan.drop_in;
        for dir in [Some(self.bin_dir), drop_in.parent()].into_iter().flatten() {
            record.make_dirs(self.host, dir)?;
        }
        for (path, link) in &plan.links {
            record.note(self.host, path, link.clone())?;
        }
        let ours = Ours::DropIn(text.clone());
        record.restart_pending |= plan.main.is_some() || !ours.is_at(&self.host.here(drop_in));
        record.note(self.host, drop_in, ours)?;
        if let Some(text) = &plan.main {
            record.note(self.host, self.main, Ours::Main(text.clone()))?;
        }
        self.version.clone_into(&mut record.installed);
        record.save(self.host)
    }

    /// Links first, the main file last.
    fn put(&self, plan: &Plan, said: &mut Said) -> Result<()> {
        for (path, ours) in &plan.links {
            let place = self.host.here(path);
            if let Ours::Link(target) = ours
                && !ours.is_at(&place)
            {
                files::link(&place, target)?;
                said.line(format!("{} leads to {}", path.display(), target.display()));
            }
        }
        let (path, text) = &plan.drop_in;
        let place = self.host.here(path);
        if !Ours::DropIn(text.clone()).is_at(&place) {
            files::write(&place, text.as_bytes(), 0o644, None)?;
            said.line(format!("{} has the handler", path.display()));
        }
        if let Some(text) = &plan.main {
            let place = self.host.follow(self.main);
            let (mode, owner) = files::mode_of(&place).unwrap_or((0o644, (0, 0)));
            files::write(&place, text.as_bytes(), mode, Some(owner))?;
            said.line(format!("{} imports it", self.main.display()));
        }
        Ok(())
    }

    /// Removes versions from which nothing runs.
    fn clean(&self, said: &mut Said) -> Result<()> {
        let running = binaries::running(self.host);
        let criu = self.linked_criu();
        for version in binaries::versions(self.host) {
            // A new image without a CRIU may leave the link to that of an old one.
            let has_the_criu = criu
                .as_ref()
                .is_some_and(|criu| criu.starts_with(binaries::bin(&version)));
            if version == self.version || has_the_criu {
                continue;
            }
            match running.get(&version) {
                Some(n) => said.note(format!("{version} stays for what runs from it: {n}")),
                None => {
                    binaries::remove(self.host, &version)?;
                    said.line(format!("{version} is removed: nothing runs from it"));
                }
            }
        }
        Ok(())
    }

    /// Gives containerd the configuration that it had, if it got another.
    fn undo(&self, record: &Record, fresh: bool, before: &Configuration) -> Result<()> {
        if !before.put_back()? {
            return Ok(());
        }
        let restarted = self.restart.run(self.host, self.socket);
        if !fresh {
            record.save(self.host)?;
        }
        restarted.map(drop)
    }
}

/// Where the drop-in is: in `conf.d` beside the main file.
pub(super) fn drop_in(main: &Path) -> PathBuf {
    let dir = main.parent().unwrap_or(Path::new("/"));
    dir.join("conf.d/reprise.toml")
}

/// containerd's files before this run.
struct Configuration(Vec<(PathBuf, Option<String>)>);

impl Configuration {
    fn read(host: &Host, main: &Path) -> Result<Self> {
        let places = [host.follow(main), host.here(&drop_in(main))];
        let read = |place: PathBuf| Ok((place.clone(), files::text(&place)?));
        Ok(Self(places.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// The main file first, for it may import the drop-in. Whether anything had changed.
    fn put_back(&self) -> Result<bool> {
        let mut changed = false;
        for (place, text) in &self.0 {
            if files::text(place)? == *text {
                continue;
            }
            changed = true;
            match text {
                None => files::remove(place)?,
                Some(text) => {
                    let (mode, owner) = files::mode_of(place).unwrap_or((0o644, (0, 0)));
                    files::write(place, text.as_bytes(), mode, Some(owner))?;
                }
            }
        }
        Ok(changed)
    }
}

fn plain(version: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
    if version.starts_with(|c: char| c.is_ascii_alphanumeric()) && version.chars().all(fine) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{version:?} is no version; use one like 1.2.3"),
    ))
}
