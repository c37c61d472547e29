//! Drives Reprise from outside: real containerd, crictl, CNI and CRIU.
//!
//! A [`Node`] is a private containerd with its own processes, mounts, network
//! and cgroups; a [`Pod`] and its [`Container`]s live on it. Nothing here
//! imports Reprise: only its two binaries are started.

pub mod cri;
pub mod demo;
pub mod http;
pub mod leftovers;
pub mod measure;
pub mod node;
pub mod pod;
pub mod programs;
pub mod tools;
pub mod wait;

pub use leftovers::Leftovers;
pub use node::{Finished, Node, NodeOptions};
pub use pod::{Container, ContainerSpec, Pod, PodSpec};
pub use programs::{Answer, Program};
pub use wait::{eventually, wait_for};
