//! Shims that nobody will ask for anything any more, and those that somebody will.

use super::DirectShim;
use crate::bench::bundle::Template;
use crate::node::Node;
use crate::pod::Container;
use crate::wait::wait_for;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Within which time a forgotten shim goes: it waits twice for 30 seconds.
const GOES: Duration = Duration::from_secs(90);

/// Starts four shims and gives none of them more to do: without its bundle an empty one
/// goes, and so does one whose log nobody reads; with its bundle an empty one stays, and
/// one that has a container stays without. `like` is what their bundles are copied from.
///
/// # Errors
/// When one goes that has to stay, or the other way round.
pub fn empty_shims_go(node: &Node, program: &Path, like: &Container<'_>) -> Result<()> {
    let template = Template::of(like)?;
    let start = |id: &str, bundle: &Path| DirectShim::start(node, program, id, bundle);
    let [forgotten, kept, used] = ["forgotten", "kept", "used"].map(|id| template.lay(id));
    let (forgotten, kept, used) = (forgotten?, kept?, used?);
    let mut mute = template.lay("mute")?;
    mute.close_log();
    let log = mute.bundle.join("log");

    let config = used.bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    fs::write(&config, serde_json::to_vec(&spec)?)?;
    let mut busy = start("used", &used.bundle)?;
    busy.create(&used.rootfs)?;
    busy.run()?;
    // Its root file system is mounted there.
    fs::rename(&used.bundle, used.bundle.with_extension("renamed"))?;
    let waiting = start("kept", &kept.bundle)?;
    let empty = start("forgotten", &forgotten.bundle)?;
    fs::remove_dir_all(&forgotten.bundle)?;

    std::thread::scope(|scope| -> Result<()> {
        // It never gets to an answer.
        let never = scope.spawn(|| start("mute", &mute.bundle).is_err());
        let gone = wait_for("the end of the forgotten ones", GOES, || {
            let is_gone = |id: &str| Ok::<bool, anyhow::Error>(node.shims_with(id)?.is_empty());
            Ok((is_gone("forgotten")? && is_gone("mute")?).then_some(()))
        });
        if gone.is_err() {
            // Whoever waits for a reader does not wait for ever.
            drop(fs::File::options().read(true).write(true).open(&log)?);
        }
        gone?;
        ensure!(never.join().unwrap_or_default(), "the mute one has served");
        Ok(())
    })?;
    ensure!(!empty.socket.exists(), "its socket was left");
    ensure!(waiting.serves(), "the one with a bundle has gone");
    ensure!(busy.serves(), "the one with a container has gone");
    busy.kill()?;
    ensure!(busy.wait()? == 137, "it was not killed");
    busy.delete()?;
    busy.shut_down();
    waiting.shut_down();
    Ok(())
}

/// Whether a shim whose container's Delete was broken off still goes when it is told to.
///
/// # Errors
/// When it does not.
pub fn goes_after_a_broken_off_delete(
    node: &Node,
    program: &Path,
    like: &Container<'_>,
) -> Result<()> {
    let id = "broken-off";
    let laid = Template::of(like)?.lay(id)?;
    let mut shim = DirectShim::start(node, program, id, &laid.bundle)?;
    shim.create(&laid.rootfs)?;
    shim.run()?;
    ensure!(shim.wait()? == 0, "/bin/true failed");
    shim.break_off_delete()?;
    wait_for("the deletion", Duration::from_secs(20), || {
        Ok(shim.delete().is_err().then_some(()))
    })?;
    shim.shut_down();
    wait_for("the shim's end", Duration::from_secs(5), || {
        Ok(node.shims_with(id)?.is_empty().then_some(()))
    })
}

impl Node {
    /// Command lines of the node's shims that contain these words.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn shims_with(&self, words: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("/proc"))? {
            let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("containerd-shim-reprise-v2 ") && line.contains(words) {
                found.push(line);
            }
        }
        Ok(found)
    }
}
