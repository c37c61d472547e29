//! Pods and containers, made as a kubelet makes them.

mod container;
mod sockets;
mod spec;

pub use container::{Container, Executed};
pub use spec::{ContainerSpec, PodSpec};

use crate::cri::proto::{Mount, PodSandboxConfig};
use crate::http::{self, Connection};
use crate::node::Node;
use crate::programs::Answer;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a service may take to answer first.
const FIRST_ANSWER: Duration = Duration::from_secs(300);

/// A running pod sandbox; removed when dropped.
#[derive(Debug)]
pub struct Pod<'n> {
    node: &'n Node,
    id: String,
    name: String,
    ip: IpAddr,
    config: PodSandboxConfig,
    hosts: PathBuf,
}

impl Node {
    /// Runs a pod's sandbox.
    ///
    /// # Errors
    /// containerd's.
    pub fn run_pod(&self, spec: &PodSpec) -> Result<Pod<'_>> {
        let config = spec.config(self);
        fs::create_dir_all(&config.log_directory)?;
        let id = self.cri().run_pod_sandbox(config.clone(), &spec.handler)?;
        let status = self.cri().pod_sandbox_status(&id)?;
        let network = status.status.and_then(|status| status.network);
        let ip = network.map(|network| network.ip).unwrap_or_default();
        let ip = ip.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        // The file that a kubelet writes and mounts over /etc/hosts.
        let hosts = PathBuf::from(&config.log_directory).join("etc-hosts");
        fs::write(
            &hosts,
            format!("127.0.0.1\tlocalhost\n{ip}\t{}\n", spec.name),
        )?;
        Ok(Pod {
            node: self,
            id,
            name: spec.name.clone(),
            ip,
            config,
            hosts,
        })
    }
}

impl<'n> Pod<'n> {
    /// The sandbox's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pod's name, which is its hostname too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod's address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// The pid of the sandbox's process, as the node sees it.
    ///
    /// # Errors
    /// When it has none.
    pub fn pid(&self) -> Result<u32> {
        pid_in(&self.node.cri().pod_sandbox_status(&self.id)?.info)
    }

    /// Creates a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn create(&self, spec: &ContainerSpec) -> Result<Container<'n>> {
        let mut config = spec.config.clone();
        config.mounts.push(Mount {
            container_path: "/etc/hosts".to_owned(),
            host_path: self.hosts.display().to_string(),
            readonly: false,
        });
        let log = PathBuf::from(&self.config.log_directory).join(&config.log_path);
        fs::create_dir_all(log.parent().context("no log directory")?)?;
        let cri = self.node.cri();
        let id = cri.create_container(&self.id, config, self.config.clone())?;
        Ok(Container::new(self.node, id, log))
    }

    /// Creates a container and starts it.
    ///
    /// # Errors
    /// containerd's.
    pub fn run(&self, spec: &ContainerSpec) -> Result<Container<'n>> {
        let container = self.create(spec)?;
        container.start()?;
        Ok(container)
    }

    /// Runs a service and measures the time from the CreateContainer call to
    /// its first HTTP 200.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn run_service(&self, spec: &ContainerSpec) -> Result<(Container<'n>, Answer, Duration)> {
        let begun = Instant::now();
        let container = self.run(spec)?;
        let (at, answer) = self.first_answer()?;
        Ok((container, answer, at.duration_since(begun)))
    }

    /// Asks the service in this pod until it answers.
    ///
    /// # Errors
    /// When it does not within five minutes.
    pub fn first_answer(&self) -> Result<(Instant, Answer)> {
        let address = self.address();
        self.node
            .in_network(|| http::first_answer(address, FIRST_ANSWER))?
            .with_context(|| format!("pod {}, see {}", self.name, self.node.log_file().display()))
    }

    /// Asks the service in this pod once.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self) -> Result<Answer> {
        self.connect()?.get()
    }

    /// Connects to the service in this pod.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn connect(&self) -> Result<Connection> {
        let address = self.address();
        let limit = Duration::from_secs(20);
        self.node.in_network(|| Connection::open(address, limit))?
    }

    /// Stops the pod and removes it with all its containers.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove(&self) -> Result<()> {
        self.node.cri().stop_pod_sandbox(&self.id)?;
        self.node.cri().remove_pod_sandbox(&self.id)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 8080)
    }
}

/// The pid in containerd's internals about a pod or a container.
fn pid_in(info: &HashMap<String, String>) -> Result<u32> {
    let info: serde_json::Value = serde_json::from_str(info.get("info").context("no info")?)?;
    Ok(u32::try_from(info["pid"].as_u64().context("no pid")?)?)
}

impl Drop for Pod<'_> {
    /// Best effort: a node that is going takes its pods with it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.remove().ok();
    }
}
