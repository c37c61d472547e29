//! Benchmarks; `hack/bench/` calls them.

use anyhow::Result;
use integration::bench::{self, Options};

fn main() -> Result<()> {
    bench::run(&Options::parse(std::env::args().skip(1))?)
}
