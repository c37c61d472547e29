//! The escapes of the trade, tried against today's worker: images, bundles and
//! neighbours that attack while a container is made. For each attempt a container
//! either is refused or runs confined, and nothing of the host may change.
//!
//! ```text
//!  host.rs     what is watched on the host, and how a change is told
//!  race.rs     the neighbour that swaps a name for a link, all the time
//!  round.rs    the loop: attempts, watching, what was seen, the report
//!  targets.rs  mount targets       CVE-2021-30465, CVE-2025-31133, CVE-2025-52565
//!  procfs.rs   volumes over /proc  CVE-2019-16884, CVE-2025-52881
//!  leaks.rs    directories, capabilities   CVE-2024-21626, CVE-2022-29162
//!  binary.rs   our own binary      CVE-2019-5736
//! ```
//!
//! Every attack has a control: the change that its success would make is made on
//! purpose first, and must be seen. `REPRISE_ESCAPE_ATTEMPTS` says how many
//! attempts of each (default 100), `REPRISE_ESCAPE_REPORT` where each attack's
//! line of the report goes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod binary;
mod host;
mod leaks;
mod procfs;
mod race;
mod round;
#[path = "../support/mod.rs"]
mod support;
mod targets;

support::tests![
    apart by host::stand_apart:
    the_watch_sees_every_kind_of_change,
    our_binary_is_not_overwritten,
    a_volume_does_not_cover_proc,
    a_mount_target_swapped_for_a_link,
    no_inheritable_capabilities,
    no_directory_leaks_by_number,
    masks_hold_while_dev_null_is_swapped,
    a_console_swapped_for_a_link,
    writes_to_proc_are_not_redirected,
];

fn the_watch_sees_every_kind_of_change() {
    host::prove();
}

fn our_binary_is_not_overwritten() {
    round::run("exe-overwrite", "CVE-2019-5736", binary::Overwrite::new);
}

fn a_volume_does_not_cover_proc() {
    round::run("proc-volume", "CVE-2019-16884", procfs::Volume::new);
}

fn a_mount_target_swapped_for_a_link() {
    round::run("mount-target", "CVE-2021-30465", targets::Target::new);
}

fn no_inheritable_capabilities() {
    round::run(
        "inheritable-caps",
        "CVE-2022-29162",
        leaks::Inheritable::new,
    );
}

fn no_directory_leaks_by_number() {
    round::run("leaked-fds", "CVE-2024-21626", leaks::Descriptors::new);
}

fn masks_hold_while_dev_null_is_swapped() {
    round::run("masked-dev-null", "CVE-2025-31133", targets::Null::new);
}

fn a_console_swapped_for_a_link() {
    round::run("dev-console", "CVE-2025-52565", targets::Console::new);
}

fn writes_to_proc_are_not_redirected() {
    round::run("proc-redirect", "CVE-2025-52881", procfs::Redirect::new);
}
