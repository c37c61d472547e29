//! A registry for tests: Debian's docker-registry on a node's own loopback.
//!
//! Each node has a network of its own. Registries that serve one directory have the
//! same images, so what one node pushed another one pulls.

use crate::node::Node;
use crate::tools::Tools;
use crate::wait::wait_for;
use anyhow::{Result, bail};
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Where it is on each node; containerd speaks plain HTTP with the loopback.
const HOST: &str = "127.0.0.1:5000";

/// bcrypt of `pa ss:word`, as cheap as it may be.
const PASSWORD_HASH: &str = "$2b$04$LYJ/2WqoxvX8dX4M0ipE2eIiBqbijr2.ob0XxickM6fGS12D9UfUi";

/// A registry that runs until its node ends.
#[derive(Debug)]
pub struct Registry {
    child: Child,
}

impl Registry {
    /// Serves the images in `storage`, which is made if it is not there.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn serve(node: &Node, storage: &Path) -> Result<Self> {
        Self::with(node, &configuration(storage), storage)
    }

    /// The same for one user alone, whose password is `pa ss:word`.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn serve_to_user(node: &Node, storage: &Path, user: &str) -> Result<Self> {
        let users = node.dir().join("registry.users");
        fs::write(&users, format!("{user}:{PASSWORD_HASH}\n"))?;
        let login = format!(
            "auth:\n  htpasswd: {{realm: tests, path: \"{}\"}}\n",
            users.display()
        );
        Self::with(node, &(configuration(storage) + &login), storage)
    }

    fn with(node: &Node, configuration: &str, storage: &Path) -> Result<Self> {
        let program = Tools::suites().join("docker-registry");
        if !program.exists() {
            bail!("{} is missing: run `hack/setup` first", program.display());
        }
        fs::create_dir_all(storage)?;
        let config = node.dir().join("registry.yml");
        fs::write(&config, configuration)?;
        let child = start(node, &program, &config, HOST)?;
        Ok(Self { child })
    }

    /// An image's name in it.
    #[must_use]
    pub fn image(name: &str) -> String {
        format!("{HOST}/{name}")
    }
}

/// Starts the registry that `config` describes on a node, and waits until it answers at
/// `address`.
pub(crate) fn start(node: &Node, program: &Path, config: &Path, address: &str) -> Result<Child> {
    let log = File::options().append(true).open(node.log_file())?;
    let child = node
        .command(program)
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    node.in_network(|| {
        wait_for("the registry", Duration::from_secs(20), || {
            Ok(TcpStream::connect(address).ok())
        })
    })??;
    Ok(child)
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn configuration(storage: &Path) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: \"{}\"}}\n\
         http:\n  \
           addr: {HOST}\n",
        storage.display()
    )
}
