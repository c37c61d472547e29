//! The runtime: knows how to make a container exist, cold through libcontainer
//! or from a checkpoint through CRIU.
//!
//! ```text
//!  shim ──> plan      Cold(why) or Restore(checkpoint): pure
//!       ──> store     where checkpoints live, and the index that finds them
//!       ──> worker    the single-threaded process that does the work
//!       ──> cgroup    create, pre-warm, join, apply, stats, remove
//! ```
//!
//! Nothing here knows of ttrpc, events or tokio. Timings and reasons are
//! returned as data; the shim records them.

pub mod cgroup;
pub mod checkpoint;
pub mod cri;
pub mod error;
pub mod explain;
pub mod fingerprint;
pub mod maker;
mod mountinfo;
pub mod namespaces;
pub mod node;
pub mod plan;
pub mod policy;
pub mod proc_stat;
pub mod publish;
mod restorable;
pub mod rootfs;
mod spawn;
pub mod start;
pub mod store;
pub mod sys;
pub mod timestamp;
pub mod volumes;
pub mod worker;

pub use error::{Error, ErrorKind, Result};
