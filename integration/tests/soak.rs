//! A shim that has seen many containers is as it was before.

use anyhow::Result;
use integration::Node;
use integration::bench::MOST_GROWTH_KIB;
use integration::soak::soak;

/// `make soak` runs a thousand.
const CYCLES: usize = 150;

#[test]
fn a_shim_does_not_grow_with_the_containers_that_it_has_seen() -> Result<()> {
    let node = Node::start()?;
    let seen = soak(&node, "reprise", CYCLES)?;
    assert!(seen.growth_kib() <= MOST_GROWTH_KIB, "{seen:?}");
    assert!(
        seen.after.open_files <= seen.before.open_files,
        "descriptors: {seen:?}"
    );
    assert!(
        seen.after.threads <= seen.before.threads,
        "threads: {seen:?}"
    );
    Ok(())
}
