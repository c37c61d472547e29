//! Starts a private containerd node and runs a command inside it:
//! `node [--containerd 2.3] [--config FILE] [--preload] [--suites] -- COMMAND...`

use anyhow::{Result, bail};
use integration::node::{Criu, Node, NodeOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

/// A helper on the node's PATH for trying things by hand.
const POD: &str = include_str!("pod.sh");

fn main() -> Result<ExitCode> {
    let mut options = NodeOptions::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--containerd" => options.containerd = words.next().unwrap_or_default(),
            "--config" => {
                let file = words.next().unwrap_or_default();
                options.config = Some(fs::read_to_string(file)?);
            }
            "--preload" => options.criu = Criu::Preloaded,
            "--suites" => options.suites = true,
            "--" => break,
            other => bail!("unknown option {other}; usage: node [OPTIONS] -- COMMAND..."),
        }
    }
    let program = words.next().unwrap_or_else(|| "bash".to_owned());
    let node = Node::start_with(&options)?;
    let pod = node.dir().join("bin/pod");
    fs::write(&pod, POD)?;
    fs::set_permissions(&pod, fs::Permissions::from_mode(0o755))?;
    let status = node
        .command(program)
        .args(words)
        .env("NODE_DIR", node.dir())
        .env("NODE_LOG", node.log_file())
        .env("NODE_CGROUP", node.cgroup())
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
