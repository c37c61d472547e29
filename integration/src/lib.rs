//! Drives Reprise from outside: real containerd, crictl, CNI and CRIU.
//!
//! A [`Node`] is a private containerd with its own processes, mounts, network
//! and cgroups; a [`Pod`] and its [`Container`]s live on it. Nothing here
//! imports Reprise: only its two binaries are started.

pub mod bench;
pub mod chart;
pub mod checkpoints;
pub mod cluster;
pub mod conformance;
pub mod containerd;
pub mod cri;
pub mod demo;
pub mod gaps;
pub mod grpc;
pub mod heart;
pub mod http;
pub mod installed;
pub mod kubelet;
pub mod leftovers;
pub mod measure;
pub mod node;
pub mod pod;
pub mod process;
pub mod programs;
pub mod registry;
pub mod runtime;
pub mod shim;
pub mod soak;
pub mod store;
pub mod terminal;
pub mod tools;
pub mod wait;

pub use checkpoints::{Checkpoint, Decision};
pub use cluster::{Cluster, ClusterOptions, Kubectl, Worker};
pub use leftovers::Leftovers;
pub use node::{CgroupDriver, Criu, Finished, Node, NodeOptions};
pub use pod::{Container, ContainerSpec, Pod, PodSpec};
pub use process::Process;
pub use programs::{Answer, Program};
pub use registry::Registry;
pub use runtime::Runtime;
pub use terminal::Terminal;
pub use wait::{eventually, wait_for};
