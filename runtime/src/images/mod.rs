//! Checkpoint images in containerd's own store: what of `reprise` speaks
//! containerd's API. Compiled into the program alone; the shim asks the program.
//!
//! ```text
//!  client       a connection: namespace, lease, deadline, errors -> ours
//!  content snapshots records leases containers diff node
//!               one service of containerd each, as calls that block
//!  names        labels, annotations, media types, image names: the formats
//! ```

#![allow(
    dead_code,
    reason = "the rooms that call it are being built one after the other"
)]

pub(crate) mod client;
pub(crate) mod containers;
pub(crate) mod content;
pub(crate) mod diff;
pub(crate) mod leases;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod records;
pub(crate) mod snapshots;

pub(crate) use client::Client;

/// Labels of containerd's objects, in a settled order.
pub(crate) type Labels = std::collections::BTreeMap<String, String>;
