//! Shows what Reprise is for; `hack/demo` calls it.

use anyhow::Result;
use integration::demo::{self, Options};

fn main() -> Result<()> {
    demo::run(&Options::parse(std::env::args().skip(1))?)
}
