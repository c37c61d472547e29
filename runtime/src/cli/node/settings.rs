//! What is written into containerd's configuration: pure, on text.
//!
//! The drop-in adds the handler. The main file is changed only where it does not
//! import the drop-in, and then by one entry; every other byte of it stays.

use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value};

/// The handler's name.
pub(super) const HANDLER: &str = "reprise";
/// What is written behind an `imports` that is ours.
const MARK: &str = "# by `reprise node install`";

/// What of a main file matters here.
#[derive(Debug, Deserialize)]
struct Main {
    #[serde(default)]
    version: i64,
    imports: Option<Spanned<Vec<Spanned<String>>>>,
}

/// The drop-in, in the format version of the main file.
///
/// In containerd 2.2 a file of version 3 that is imported makes the whole
/// configuration one of version 3: what a main file of version 2 says of CRI would
/// be ignored.
pub(super) fn drop_in(main_version: i64, snapshotter: Option<&str>, shim: Option<&Path>) -> String {
    let (version, cri) = match main_version {
        2 => (2, "io.containerd.grpc.v1.cri"),
        _ => (3, "io.containerd.cri.v1.runtime"),
    };
    let mut text = format!(
        "# Made by `reprise node install`, which writes it anew; `reprise node uninstall`\n\
         # removes it. Settings of Reprise are in /etc/reprise/config.toml.\n\
         version = {version}\n\n\
         [plugins.'{cri}'.containerd.runtimes.{HANDLER}]\n  \
         runtime_type = 'io.containerd.reprise.v2'\n  \
         pod_annotations = ['reprise.dev/*']\n  \
         container_annotations = ['reprise.dev/*', 'io.kubernetes.container.*']\n"
    );
    if let Some(snapshotter) = snapshotter {
        text.push_str(&format!("  snapshotter = '{snapshotter}'\n"));
    }
    if let Some(shim) = shim {
        text.push_str(&format!("  runtime_path = '{}'\n", shim.display()));
    }
    text
}

/// The format version of a main file; 0 when it does not say.
///
/// # Errors
/// No TOML: one line.
pub(super) fn version(main: &str) -> Result<i64, String> {
    parse(main).map(|main| main.version)
}

/// Whether a main file in the directory `dir` imports `file`.
///
/// # Errors
/// No TOML: one line.
pub(super) fn imports(main: &str, dir: &Path, file: &Path) -> Result<bool, String> {
    let main = parse(main)?;
    let patterns = main.imports.into_iter().flat_map(Spanned::into_inner);
    Ok(patterns
        .map(Spanned::into_inner)
        .any(|pattern| covers(&dir.join(pattern), file)))
}

/// A main file that imports `file`, too. Made from nothing when there is none.
///
/// # Errors
/// No TOML: one line.
pub(super) fn with_import(main: Option<&str>, file: &Path) -> Result<String, String> {
    let entry = format!("'{}'", file.display());
    let line = format!("imports = [{entry}] {MARK}\n");
    let Some(main) = main else {
        return Ok(format!("version = 3\n{line}"));
    };
    // Before everything else: what follows a table's header belongs to the table.
    let start = if main.starts_with('\u{feff}') { 3 } else { 0 };
    let (at, added) = match parse(main)?.imports {
        None => (start, line),
        Some(list) => {
            let span = list.span();
            match list.get_ref().last() {
                Some(last) => (last.span().end, format!(", {entry}")),
                None => (span.start + 1, entry),
            }
        }
    };
    let (head, tail) = main.split_at(at);
    Ok(format!("{head}{added}{tail}"))
}

/// A main file without what [`with_import`] added, whatever else has changed in it
/// since; none if that is not there.
pub(super) fn without_import(main: &str, file: &Path) -> Option<String> {
    let entry = format!("'{}'", file.display());
    let line = format!("imports = [{entry}] {MARK}\n");
    [line, format!(", {entry}"), entry]
        .iter()
        .find(|added| main.contains(added.as_str()))
        .map(|added| main.replacen(added.as_str(), "", 1))
}

/// As containerd resolves it: with a star it is a pattern, else a path.
fn covers(pattern: &Path, file: &Path) -> bool {
    let (mut patterns, mut names) = (pattern.components(), file.components());
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) => {
                let pattern = pattern.as_os_str().to_string_lossy();
                if !matches(&pattern, &name.as_os_str().to_string_lossy()) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// One component; classes (`[a-z]`) are not understood, and so match nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(piece) = last.replace(piece) {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// Compares two outputs of `containerd config dump`: the second may say more, but of
/// our handler only.
///
/// # Errors
/// Where they differ besides: `plugins.x.y`.
pub(super) fn differ_by_the_handler(before: &str, after: &str) -> Result<(), String> {
    let read = |text: &str| toml::from_str::<Value>(text).map_err(|e| e.message().to_owned());
    let (mut before, mut after) = (read(before)?, read(after)?);
    for dump in [&mut before, &mut after] {
        if let Some(table) = dump.as_table_mut() {
            table.remove("imports");
        }
        if let Some(runtimes) = runtimes(dump) {
            runtimes.remove(HANDLER);
        }
    }
    difference(&before, &after, "").map_or(Ok(()), Err)
}

/// Whether the output of `config dump` has our handler.
pub(super) fn has_handler(dump: &str) -> bool {
    let dump = toml::from_str::<Value>(dump);
    dump.is_ok_and(|mut dump| runtimes(&mut dump).is_some_and(|all| all.contains_key(HANDLER)))
}

/// The snapshotter that the handler has to name, because the node's own is another
/// than the one that Reprise tells images by.
pub(super) fn snapshotter(dump: &str) -> Option<&'static str> {
    let dump: Value = toml::from_str(dump).ok()?;
    let images = dump.get("plugins")?.get("io.containerd.cri.v1.images")?;
    let default = images.get("snapshotter")?.as_str()?;
    (!default.is_empty() && default != "overlayfs").then_some("overlayfs")
}

fn runtimes(dump: &mut Value) -> Option<&mut toml::Table> {
    dump.get_mut("plugins")?
        .get_mut("io.containerd.cri.v1.runtime")?
        .get_mut("containerd")?
        .get_mut("runtimes")?
        .as_table_mut()
}

/// The first key at which two values differ.
fn difference(one: &Value, other: &Value, at: &str) -> Option<String> {
    let (Value::Table(one), Value::Table(other)) = (one, other) else {
        return (one != other).then(|| at.to_owned());
    };
    let keys = one.keys().chain(other.keys());
    keys.map(|key| (key, format!("{at}.{key}")))
        .find_map(|(key, at)| match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => difference(one, other, &at),
            _ => Some(at),
        })
        .map(|at| at.trim_start_matches('.').to_owned())
}

fn parse(main: &str) -> Result<Main, String> {
    toml::from_str(main).map_err(|e| {
        let before = e.span().map_or(main, |span| &main[..span.start]);
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", e.message().replace('\n', " "))
    })
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
