//! Checkpoint images in containerd's own store: what of `reprise` speaks
//! containerd's API. Compiled into the program alone; the shim asks the program.
//!
//! ```text
//!  client       a connection: namespace, lease, deadline, errors -> ours
//!  content snapshots records leases containers diff node
//!               one service of containerd each, as calls that block
//!  names        labels, annotations, media types, image names: the formats
//!  publish      a checkpoint becomes an image; serve speaks with the shim
//!  base         the image that the container was made from
//!  describe     who it was, as containerd's own checkpoints say it
//!  document     config and manifest of the image
//!  announced    what an image says it is
//!  adopt        an image, wherever it was made, becomes a record on this node
//!  refresh      all images -> records and index
//!  adapt        an archive becomes snapshots that are restored from
//!  import       what other engines and nodes made becomes an image
//!  export       an archive of an image, for containerd with runc and for import
//!  layer        files and images as layers that containerd unpacks
//!  chain        what base image an archive means, as this node has it
//!  seal         its layer, when somebody pushes it
//!  background   or once nobody waits
//!  transfer     the push, by containerd
//!  trial        a restore that is timed, in a scratch container: tasks, sandbox
//!  meter        how far long work has come
//!  scratch      a directory that goes with this process
//!  sweep        what dead publishers left
//!  hold         a restored container keeps the snapshots that it reads
//! ```

mod adapt;
mod adopt;
mod announced;
pub(crate) mod background;
mod base;
mod chain;
pub(crate) mod client;
pub(crate) mod containers;
pub(crate) mod content;
mod copy;
mod describe;
pub(crate) mod diff;
mod document;
pub(crate) mod export;
pub(crate) mod hold;
pub(crate) mod import;
mod layer;
pub(crate) mod leases;
pub(crate) mod meter;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod publish;
pub(crate) mod records;
pub(crate) mod refresh;
mod sandbox;
pub(crate) mod scratch;
pub(crate) mod seal;
pub(crate) mod serve;
pub(crate) mod snapshots;
pub(crate) mod sweep;
mod tasks;
pub(crate) mod transfer;
pub(crate) mod trial;

pub(crate) use client::Client;

/// Labels of containerd's objects, in a settled order.
pub(crate) type Labels = std::collections::BTreeMap<String, String>;
