//! `containerd-shim-reprise-v2`: a containerd shim that restores containers from
//! checkpoints instead of starting them cold. This file picks a face:
//!
//! ```text
//!  worker       makes, executes, dumps, removes: one command, single-threaded
//!  log-binary   becomes a program that reads a container's output
//!  start        containerd's: finds or spawns the shim of a pod
//!  delete       containerd's: removes what a dead shim left
//!  -info        containerd's: what we can do
//!  (none)       serves
//! ```

mod bootstrap;
mod checkpoint;
mod cri;
mod driver;
mod events;
mod exec;
mod folder;
mod house;
mod info;
mod logger;
mod metrics;
mod protocol;
mod reaper;
mod request;
mod rest;
mod runtime;
mod server;
mod socket;
mod stdio;
mod task;
mod telemetry;
mod vacancy;

use std::process::ExitCode;
use std::time::Duration;

const RUNTIME_ID: &str = "io.containerd.reprise.v2";
/// Blocking calls that may run at the same time; more wait their turn.
const BLOCKING_THREADS: usize = 32;
/// Idle threads hold a stack each, so they go soon.
const IDLE_THREADS_LIVE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(face) if face == "worker" => ExitCode::from(reprise_runtime::worker::run_child()),
        Some(face) if face == logger::FACE => {
            // Where standard error is may be the log binary's own by now.
            drop(logger::become_it(arguments));
            ExitCode::FAILURE
        }
        _ => serve(),
    }
}

/// All of containerd's faces.
fn serve() -> ExitCode {
    reprise_runtime::sys::use_one_arena();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(IDLE_THREADS_LIVE)
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    // Said here, not in `Shim::new`: the crate installs its own reaper before that.
    let config = containerd_shim::Config {
        no_reaper: true,
        ..Default::default()
    };
    runtime.block_on(containerd_shim::asynchronous::run::<bootstrap::Reprise>(
        RUNTIME_ID,
        Some(config),
    ));
    // Whatever still runs beside has nobody left to tell.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}
