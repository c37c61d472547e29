//! The cases, by theme; each names its row of libcontainer-gaps.md.

mod cgroups;
mod devices;
mod errors;
mod executables;
mod hooks;
mod image;
mod mounts;
mod paths;
mod process;
mod resources;
mod seccomp;
mod users;
mod whole;

use super::case::Case;

/// All of them, in the order of their rows.
pub(super) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(users::cases());
    all.extend(image::cases());
    all.extend(cgroups::cases());
    all.extend(resources::cases());
    all.extend(devices::cases());
    all.extend(seccomp::cases());
    all.extend(paths::cases());
    all.extend(mounts::cases());
    all.extend(executables::cases());
    all.extend(process::cases());
    all.extend(hooks::cases());
    all.extend(errors::cases());
    all.extend(whole::cases());
    all.sort_by_key(|case| case.row);
    all
}
