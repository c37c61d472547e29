//! Who has which address, and how nodes are joined.
//!
//! All of it is inside the cluster's own network namespaces: other clusters have the
//! same addresses.

use crate::node::Finished;
use anyhow::Result;
use nix::unistd::Pid;
use std::process::Command;

/// The control plane's, which is the router between nodes, too.
pub(super) const CONTROL: &str = "172.30.0.1";
/// Where its API server listens.
pub(super) const API_SERVER: &str = "172.30.0.1:6443";
/// Services'.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The API server's as a service: the first one.
pub(super) const API_SERVICE: &str = "10.96.0.1";
/// Where pods look for names; nobody answers there.
pub(super) const DNS: &str = "10.96.0.10";
/// Those of all pods.
pub(super) const PODS: &str = "10.240.0.0/12";

const CONNECT: &str = include_str!("connect.sh");

/// A node's own.
pub(super) fn address(number: usize) -> String {
    format!("172.30.0.{}", 10 + number)
}

/// Those of a node's pods.
pub(super) fn pods(number: usize) -> String {
    format!("10.{}.0.0/16", 240 + number)
}

/// Joins a node's network to the control plane's.
pub(super) fn connect(control: Pid, node: Pid, number: usize) -> Result<()> {
    let mut bash = Command::new("bash");
    bash.args(["-c", CONNECT, "connect"])
        .args([control.to_string(), node.to_string()])
        .args([format!("node{number}"), address(number), pods(number)])
        .arg(CONTROL);
    Finished::of(format!("joining node {number}"), &mut bash)?.ok()?;
    Ok(())
}
