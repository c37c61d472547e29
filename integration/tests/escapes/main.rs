//! The escapes of the trade through a real containerd: pods, images and volumes that
//! attack while a container is made, or execs into it, with a neighbour in the same
//! pod that swaps names of a volume they share. For each attempt a container either
//! is refused or runs confined, and nothing of the host changes. The same attacks, by
//! the ten thousand and against the worker alone: `runtime/tests/escapes`.
//!
//! ```text
//!  host.rs     what is watched on the host
//!  bare.rs     containers without a pod
//!  round.rs    pods, attempts, the racing neighbour, what was seen
//!  volumes.rs  races about a volume   CVE-2021-30465, CVE-2025-31133, CVE-2025-52565
//!  procfs.rs   volumes over /proc     CVE-2025-52881
//!  leaks.rs    directories, sets      CVE-2024-21626, CVE-2022-29162
//!  binary.rs   our own program        CVE-2019-5736
//! ```

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests, which tell what they counted"
)]

mod bare;
mod binary;
mod host;
mod leaks;
mod procfs;
mod round;
mod volumes;
