//! The cases, by theme, as libcontainer-gaps.md orders its rows.

mod process;

use super::case::Case;

/// All of them, in the order of their rows.
pub(super) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(process::cases());
    all.sort_by_key(|case| case.row);
    all
}
