//! Checkpoints that other engines made, and ours for other engines.
//!
//! ```text
//!  archive or image, unpacked ── read ──> Archive: who it was, its spec
//!  CRIU's images of runc, crun ── adapt ──> the few files that make them ours
//!  our images ── for_runc ──> the few files that runc restores them with
//! ```
//!
//! What is read here comes from anywhere: sizes are bounded, only regular files are
//! opened, nothing is believed that a restore does not compare with the new
//! container's spec before anything runs (`verify.rs`).

mod archive;
mod cgroups;
mod for_runc;
mod images;
mod inventory;
mod mountpoints;
mod wire;

pub use archive::{Archive, BaseImage, Engine};
pub use for_runc::for_runc;
pub use images::{Changes, adapt};

#[cfg(test)]
mod tests;
