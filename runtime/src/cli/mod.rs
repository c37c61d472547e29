//! The commands of `reprise`.

mod bench;
mod check;
mod checkpoint;
mod contents;
mod exchange;
mod explain;
mod idle;
mod list;
mod manual;
mod node;
mod progress;
mod prune;
mod push;
mod refresh;
mod shim;
mod show;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use reprise_runtime::policy::{CONFIG_PATH, Config, Seal};
use reprise_runtime::store::Store;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::json;

use crate::images::records::Record;
use crate::images::{Client, background, hold, names, serve};

/// Checkpoints of containers on this node
#[derive(Debug, Parser)]
#[command(
    name = "reprise",
    version,
    after_help = "Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage."
)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where things are.
#[derive(Debug, Args)]
struct Places {
    /// Config file
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Store of checkpoints [default: store.path of the config file]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// containerd's socket [default: containerd.address of the config file]
    #[arg(long, global = true, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// Where shims keep what they say about their containers
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/reprise"
    )]
    run_root: PathBuf,
    /// containerd's config file, which `check` looks at and `node` changes
    #[arg(long, global = true, value_name = "FILE", default_value = check::CONTAINERD_CONFIG)]
    containerd_config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the checkpoints on this node, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Take a checkpoint of a running container
    Checkpoint(checkpoint::Checkpoint),
    /// Show everything about one checkpoint
    Inspect {
        /// Checkpoint id, or a prefix that only one has
        id: String,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Say why a container was or was not restored, and in what it differs from the
    /// nearest checkpoint
    Explain(explain::Explain),
    /// Remove checkpoints that no container uses
    Rm {
        /// Checkpoint ids, or prefixes that only one has
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Remove what the limits of the config file do not allow, least recently restored
    /// first
    Prune(prune::Prune),
    /// Check that checkpoints can be used, and mend the index
    Verify {
        /// Checkpoint id, or a prefix that only one has [default: all]
        id: Option<String>,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Bring this node's records in line with containerd's images
    Refresh(refresh::Refresh),
    /// Let containers be restored from an image that came from elsewhere
    Trust(refresh::Trust),
    /// Take in a checkpoint that another engine or another node made
    Import(exchange::Import),
    /// Write a checkpoint as an archive, for containerd with runc or another node
    Export(exchange::Export),
    /// Time how long a checkpoint takes to restore on this node, in scratch containers
    Bench(bench::Bench),
    /// Check that this node can take and restore checkpoints
    Check {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Install Reprise on this node, or remove it
    #[command(subcommand)]
    Node(node::Node),
    /// Print completions for a shell (reprise completions bash > /etc/bash_completion.d/reprise)
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory (reprise man /usr/local/share/man/man1)
    Man {
        /// Made if it is not there
        dir: PathBuf,
    },
    /// Make the layer of a checkpoint image, so that others can push it
    Seal(push::Seal),
    /// Push a checkpoint image to a registry; seals it first
    Push(push::Push),
    /// Publish a checkpoint that a shim takes; speaks with it on standard input
    #[command(hide = true)]
    Publish,
    /// Have a restored container keep the snapshots that it reads
    #[command(hide = true)]
    Hold {
        /// containerd's namespace
        namespace: String,
        /// Container id
        container: String,
        /// Checkpoint id
        checkpoint: String,
    },
    /// Print the version
    Version,
}

/// What a command prints, and whether it is a success.
struct Outcome {
    text: String,
    /// The exit code: 0 is a success.
    code: u8,
}

impl From<String> for Outcome {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = run(&cli).unwrap_or_else(|error| {
        let mut text = format!("reprise: {error}\n");
        for line in &error.detail {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
        // Nobody is left to tell when standard error is closed.
        drop(io::stderr().write_all(text.as_bytes()));
        Outcome {
            text: String::new(),
            code: 1,
        }
    });
    let mut out = io::stdout().lock();
    let written = out
        .write_all(outcome.text.as_bytes())
        .and_then(|()| out.flush());
    // A reader that has seen enough (`| head`) is no failure.
    let read = !matches!(&written, Err(e) if e.kind() != io::ErrorKind::BrokenPipe);
    if read {
        ExitCode::from(outcome.code)
    } else {
        ExitCode::FAILURE
    }
}

fn run(cli: &Cli) -> Result<Outcome> {
    let places = &cli.places;
    match &cli.command {
        Command::List { json } => list::run(&places.open()?, *json).map(Into::into),
        Command::Checkpoint(command) => command.run(places).map(Into::into),
        Command::Inspect { id, json } => {
            let store = places.open()?;
            let id = full_id(&store, id)?;
            let stored = store.load(&id)?.ok_or_else(|| none(&id))?;
            let contents = contents::Contents::read(&stored.images())?;
            Ok(if *json {
                let mut whole = show::whole(&stored, &places.run_root);
                whole["contents"] = json!(contents);
                show::json(vec![whole])
            } else {
                show::page(&stored, &places.run_root) + &contents::page(&contents)
            }
            .into())
        }
        Command::Explain(command) => command.run(places).map(Into::into),
        Command::Rm { ids } => {
            let store = places.open()?;
            let mut text = String::new();
            for id in ids {
                let id = full_id(&store, id)?;
                remove(places, &store, &id)?;
                text.push_str(&id);
                text.push('\n');
            }
            Ok(text.into())
        }
        Command::Prune(command) => command.run(places).map(Into::into),
        Command::Verify { id, json } => verify(places, id.as_deref(), *json),
        Command::Refresh(command) => command.run(places).map(Into::into),
        Command::Trust(command) => command.run(places).map(Into::into),
        Command::Import(command) => command.run(places).map(Into::into),
        Command::Export(command) => command.run(places).map(Into::into),
        Command::Bench(command) => command.run(places).map(Into::into),
        Command::Check { json } => Ok(check::run(places, *json)),
        Command::Node(command) => command.run(places),
        Command::Completions { shell } => Ok(manual::completions(Cli::command(), *shell).into()),
        Command::Man { dir } => manual::pages(Cli::command(), dir).map(Into::into),
        Command::Seal(command) => command.run(places).map(Into::into),
        Command::Push(command) => command.run(places).map(Into::into),
        Command::Publish => {
            let store = places.store_path()?;
            let published = serve::serve(
                |namespace| places.containerd(namespace),
                &store,
                || prune::enforce(places),
            )?;
            if let Some(published) = published
                && places.settings()?.images.seal == Seal::Background
            {
                background::seal_published(&published, &store)?;
            }
            Ok(String::new().into())
        }
        Command::Hold {
            namespace,
            container,
            checkpoint,
        } => {
            let store = places.open()?;
            store.note_restore(checkpoint)?;
            let stored = store.load(checkpoint)?;
            let stored = stored.ok_or_else(|| none(checkpoint))?;
            let client = places.containerd(namespace)?;
            hold::hold(&client, container, &stored.source()?)?;
            Ok(String::new().into())
        }
        Command::Version => Ok(format!("reprise {}\n", env!("CARGO_PKG_VERSION")).into()),
    }
}

impl Places {
    fn settings(&self) -> Result<Config> {
        Config::load(&self.config)
    }

    fn store_path(&self) -> Result<PathBuf> {
        match &self.store {
            Some(path) => Ok(path.clone()),
            None => Ok(self.settings()?.store.path),
        }
    }

    /// A connection to containerd.
    fn containerd(&self, namespace: &str) -> Result<Client> {
        match &self.address {
            Some(address) => Client::connect(address, namespace),
            None => Client::connect(&self.settings()?.containerd.address, namespace),
        }
    }

    fn open(&self) -> Result<Store> {
        let path = self.store_path()?;
        readable(&path)?;
        Ok(Store::at(&path))
    }
}

/// The image that a checkpoint's id, or an image's own name, stands for.
fn image_of(places: &Places, given: &str, namespace: &str) -> Result<(Client, String)> {
    // A name has a slash, which no id has.
    if given.contains('/') {
        return Ok((places.containerd(namespace)?, given.to_owned()));
    }
    let store = places.open()?;
    let source = store.source(&full_id(&store, given)?)?;
    let image = source.names.first().cloned().unwrap_or_default();
    Ok((places.containerd(&source.namespace)?, image))
}

/// Removes a checkpoint: its record, so that nobody finds it, then its image.
fn remove(places: &Places, store: &Store, id: &str) -> Result<()> {
    // One that is damaged may still say where its image is.
    let source = store.source(id);
    store.remove(id, &places.run_root)?;
    let Ok(source) = source else { return Ok(()) };
    let client = places.containerd(&source.namespace)?;
    for name in &source.names {
        let image = client.image(name)?;
        // A name that somebody chose may have moved to another checkpoint.
        let is_of = |image: Record| {
            image
                .labels
                .get(names::CHECKPOINT)
                .is_none_or(|of| of == id)
        };
        if image.is_some_and(is_of) {
            client.remove_image(name, true)?;
        }
    }
    Ok(())
}

/// The store belongs to root; say so instead of "Permission denied".
fn readable(path: &Path) -> Result<()> {
    match std::fs::read_dir(path.join("checkpoints")) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "Only root may read the store at {}; use sudo",
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

fn verify(places: &Places, id: Option<&str>, json: bool) -> Result<Outcome> {
    let store = &places.open()?;
    if id.is_none() {
        match refresh::all(places, true) {
            // Without containerd there is still what the node knows.
            Err(error) if error.kind == ErrorKind::Unavailable => drop(store.rebuild_index()?),
            refreshed => drop(refreshed?),
        }
    }
    let mut entries = store.entries()?;
    if let Some(id) = id {
        let id = full_id(store, id)?;
        entries.retain(|(other, _)| *other == id);
    }
    let good = entries.iter().all(|(_, entry)| entry.is_ok());
    let mut text = String::new();
    let mut rows = Vec::new();
    for (id, entry) in &entries {
        let reason = entry.as_ref().err().map(|e| e.message.as_str());
        rows.push(json!({ "id": id, "usable": reason.is_none(), "reason": reason }));
        text.push_str(&match reason {
            None => format!(
                "ok    {id}
"
            ),
            Some(reason) => format!(
                "BAD   {reason}; `reprise rm {id}` removes it
"
            ),
        });
    }
    let text = if json { show::json(rows) } else { text };
    Ok(Outcome {
        text,
        code: u8::from(!good),
    })
}

/// The one checkpoint whose id begins so; an exact id always wins.
fn full_id(store: &Store, prefix: &str) -> Result<String> {
    let ids = store.entries()?.into_iter().map(|(id, _)| id);
    unique("checkpoint", prefix, ids, "`reprise list` shows them")
}

/// The one name that begins so; an exact one always wins.
fn unique(
    what: &str,
    prefix: &str,
    names: impl Iterator<Item = String>,
    hint: &str,
) -> Result<String> {
    let mut hits: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    if let Some(at) = hits.iter().position(|name| name == prefix) {
        return Ok(hits.swap_remove(at));
    }
    match (hits.pop(), hits.len()) {
        (Some(hit), 0) if !prefix.is_empty() => Ok(hit),
        (None, _) => Err(Error::new(
            ErrorKind::NotFound,
            format!("There is no {what} {prefix}; {hint}"),
        )),
        (Some(_), more) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} {what}s begin with {prefix:?}; give more of the id",
                more + 1
            ),
        )),
    }
}

fn none(id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("There is no checkpoint {id}; `reprise list` shows them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_prefix_names_one_or_is_refused() {
        let names = || ["abc", "abcd", "xyz"].map(ToOwned::to_owned).into_iter();
        let ask = |prefix| unique("container", prefix, names(), "look");
        assert_eq!(ask("x").unwrap(), "xyz");
        assert_eq!(ask("abc").unwrap(), "abc");
        assert!(
            ask("ab")
                .unwrap_err()
                .message
                .contains("2 containers begin")
        );
        assert_eq!(ask("q").unwrap_err().kind, ErrorKind::NotFound);
        assert!(ask("").is_err());
    }
}
