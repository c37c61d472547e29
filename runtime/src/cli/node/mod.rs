//! `reprise node`: installs Reprise on a node, and removes it. It runs on the node
//! itself, or in a container that sees the node (a DaemonSet's).
//!
//! ```text
//!  install ──> fitness     the findings of `reprise check`, on the node
//!          ──> binaries    a directory for each version, and who runs from it
//!          ──> settings    containerd's configuration as text: pure
//!          ──> containerd  what containerd makes of it; its restart
//!          ──> record      what was there before
//!  uninstall, status       from the record
//!          ──> cluster     with --node: the node's label, and events
//!  everywhere              all nodes of a cluster, through its API server
//! ```

mod binaries;
mod cluster;
mod containerd;
mod everywhere;
mod files;
mod fitness;
mod host;
mod install;
mod record;
mod settings;
mod status;
mod uninstall;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::fcntl::{Flock, FlockArg};
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};

use self::containerd::Restart;
use self::host::Host;
use super::{Outcome, Places};

/// Exit code: the node is not fit, or not as it should be.
const UNFIT: u8 = 3;
/// Exit code: something remains to be done, later.
const UNFINISHED: u8 = 4;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong \
                  usage, 3 the node is not fit, 4 Reprise stays because pods still run under it."
)]
pub(super) enum Node {
    /// Check this node, put the programs in place and tell containerd; also upgrades
    Install(InstallArgs),
    /// Put back what was there before `install`
    Uninstall(UninstallArgs),
    /// Have the installer's pods of a cluster uninstall, and wait until all have
    UninstallEverywhere(EverywhereArgs),
    /// Show what is installed, and whether the node is fit
    Status(StatusArgs),
}

/// Which node.
#[derive(Debug, Args)]
struct Where {
    /// The node's root, in a container that has it mounted (and the node's processes)
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The node's containerd [default: looked up on PATH]
    #[arg(long, value_name = "FILE")]
    containerd: Option<PathBuf>,
}

/// In a pod of the installer's.
#[derive(Debug, Args)]
struct InCluster {
    /// This node's name: gives it the label reprise.dev/runtime=true while Reprise works on
    /// it, and tells of events. For pods: it takes their token and API server
    #[arg(long = "node", value_name = "NAME", conflicts_with = "no_restart")]
    name: Option<String>,
}

/// How containerd is restarted when its configuration has changed.
#[derive(Debug, Args)]
struct HowToRestart {
    /// Its unit, for `systemctl restart`
    #[arg(long, value_name = "UNIT", default_value = "containerd")]
    unit: String,
    /// Run this shell command on the node instead
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_restart")]
    restart_command: Option<String>,
    /// Leave it to somebody else
    #[arg(long)]
    no_restart: bool,
}

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    node: Where,
    /// Directory of the programs to install [default: that of this program]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Directory on the node for links to them
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    bin_dir: PathBuf,
    /// Install in spite of this finding of `reprise check` (more than once)
    #[arg(long, value_name = "NAME")]
    accept: Vec<String>,
    #[command(flatten)]
    restart: HowToRestart,
    #[command(flatten)]
    cluster: InCluster,
    /// Call the version this
    #[arg(long, value_name = "VERSION", hide = true, default_value = env!("CARGO_PKG_VERSION"))]
    version_name: String,
}

#[derive(Debug, Args)]
pub(super) struct UninstallArgs {
    #[command(flatten)]
    node: Where,
    /// Wait so long for the pods under Reprise to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Remove the checkpoints as well
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    restart: HowToRestart,
    #[command(flatten)]
    cluster: InCluster,
}

#[derive(Debug, Args)]
pub(super) struct EverywhereArgs {
    /// The installer's DaemonSet; its init container `node` gets the new command
    #[arg(long, value_name = "NAMESPACE/NAME")]
    daemonset: String,
    /// Arguments of `reprise node uninstall` on each node
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    node: Where,
    /// Call it fit in spite of this finding (more than once)
    #[arg(long, value_name = "NAME")]
    accept: Vec<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What a command has to say, line by line.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// What keeps Reprise from the node.
    findings: Vec<String>,
    notes: Vec<String>,
    code: u8,
    /// Whether the node is another one than before.
    changed: bool,
}

impl Said {
    /// Something was done.
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Nothing was done, and that is worth a line.
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl From<Said> for Outcome {
    fn from(said: Said) -> Self {
        let mut text = String::new();
        let findings = said.findings.iter().map(|why| format!("not fit: {why}"));
        let findings: Vec<String> = findings.collect();
        for line in said.lines.iter().chain(&findings).chain(&said.notes) {
            text.push_str(line);
            text.push('\n');
        }
        Self {
            text,
            code: said.code,
        }
    }
}

impl HowToRestart {
    fn way(&self) -> Restart {
        match &self.restart_command {
            Some(command) => Restart::Command(command.clone()),
            None if self.no_restart => Restart::Later,
            None => Restart::Unit(self.unit.clone()),
        }
    }
}

impl Where {
    fn host(&self) -> Result<Host> {
        Host::at(&self.root, self.containerd.as_deref())
    }
}

impl Node {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed, and what is to be done.
    pub(super) fn run(&self, places: &Places) -> Result<Outcome> {
        let main = &places.containerd_config;
        let said = match self {
            Self::Install(args) => {
                let host = args.node.host()?;
                let _alone = alone(&host)?;
                let socket = socket(places, &host);
                let from = match &args.from {
                    Some(dir) => dir.clone(),
                    None => own_directory()?,
                };
                let done = install::Install {
                    host: &host,
                    from: &from,
                    version: &args.version_name,
                    bin_dir: &args.bin_dir,
                    main,
                    socket: &socket,
                    restart: args.restart.way(),
                    accepted: &args.accept,
                }
                .run();
                let there =
                    || status::Status::of(&host, main, &args.accept).map(status::Status::there);
                match &args.cluster.name {
                    Some(node) => cluster::told::install(node, &args.version_name, done, there)?,
                    None => done?,
                }
            }
            Self::Uninstall(args) => {
                let host = args.node.host()?;
                let _alone = alone(&host)?;
                let socket = socket(places, &host);
                let store = || match &places.store {
                    Some(store) => Ok(store.clone()),
                    None => places.settings_of(&host).map(|config| config.store.path),
                };
                let removal = uninstall::Uninstall {
                    host: &host,
                    socket: &socket,
                    restart: args.restart.way(),
                    wait: Duration::from_secs(args.wait),
                    purge: args.purge.then(store).transpose()?,
                    run_root: &places.run_root,
                };
                match &args.cluster.name {
                    Some(node) => cluster::told::uninstall(node, || removal.run())?,
                    None => removal.run()?,
                }
            }
            Self::UninstallEverywhere(args) => everywhere::run(&args.daemonset, &args.args)?,
            Self::Status(args) => {
                status::Status::of(&args.node.host()?, main, &args.accept)?.said(args.json)
            }
        };
        Ok(said.into())
    }
}

impl Places {
    /// The settings that the node has.
    fn settings_of(&self, host: &Host) -> Result<reprise_runtime::policy::Config> {
        reprise_runtime::policy::Config::load(&host.follow(&self.config))
    }
}

/// containerd's socket, on the node. A broken configuration of ours is a finding, and
/// no reason to fail before the findings are told.
fn socket(places: &Places, host: &Host) -> PathBuf {
    match &places.address {
        Some(address) => address.clone(),
        None => {
            let settings = places.settings_of(host).unwrap_or_default();
            settings.containerd.address
        }
    }
}

/// Keeps two of us from changing one node at once. The lock is on a directory that
/// every node has, so that no file is left.
fn alone(host: &Host) -> Result<Flock<File>> {
    let dir = File::open(host.follow(Path::new("/var/lib"))).doing("Cannot open /var/lib")?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        Error::new(
            ErrorKind::Unavailable,
            format!("Another `reprise node` is at work on this node ({errno}); try again later"),
        )
    })
}

fn own_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().doing("Cannot tell where this program is; use --from")?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}
