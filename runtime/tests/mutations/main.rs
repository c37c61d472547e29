//! The same verdict as runc's on any spec: an empty one, every field of the OCI
//! runtime spec 1.3 with values that are right and wrong, and random mutations of
//! the specs that a real containerd writes. No panic, no hang, nothing left behind.
//!
//! ```text
//!  specs.rs    the specs to start from, recorded from containerd when the test runs
//!  fields.rs   one value after the other for every field
//!  mutate.rs   random mutations, by a seed that is printed
//!  sides.rs    one bundle under runc and under our worker: verdicts, leftovers
//!  judge.rs    same, stricter with a reason, or a failure
//! ```
//!
//! `REPRISE_SPEC_MUTATIONS` says how many random ones (default 150),
//! `REPRISE_SPEC_SEED` where they start (`cargo test` looks at the same ones each time;
//! `make spec-mutations` at new ones), `REPRISE_SPEC_REPORT` where the report goes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod fields;
mod judge;
mod mutate;
mod sides;
mod specs;
#[path = "../support/mod.rs"]
mod support;

use judge::Judge;
use sides::Sides;
use specs::Specs;

support::tests![
    apart by support::stand_apart:
    every_field_right_and_wrong,
    random_mutations_of_containerds_specs,
];

fn every_field_right_and_wrong() {
    let specs = Specs::record();
    let mut judge = Judge::new("fields");
    let mut sides = Sides::new();
    for (name, spec) in fields::cases(&specs) {
        let verdicts = sides.run(&spec);
        judge.hear(&name, &spec, verdicts);
    }
    judge.close();
}

fn random_mutations_of_containerds_specs() {
    let number = |name, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let many: u64 = number("REPRISE_SPEC_MUTATIONS", 150);
    let seed: u64 = number("REPRISE_SPEC_SEED", 1);
    eprintln!("mutations from seed {seed}: REPRISE_SPEC_SEED={seed} runs the same again");
    let specs = Specs::record();
    let mut judge = Judge::new("mutations");
    let mut sides = Sides::new();
    for n in 0..many {
        let mutant = mutate::Mutant::new(&specs, seed.wrapping_add(n));
        let spec = mutant.spec();
        let verdicts = sides.run(&spec);
        if judge.fails(&spec, &verdicts) {
            // The smallest set of steps that still fails tells what it is about.
            let (small, verdicts) = mutant.shrink(|spec| {
                let verdicts = sides.run(spec);
                judge.fails(spec, &verdicts).then_some(verdicts)
            });
            let spec = small.spec();
            let verdicts = verdicts.unwrap_or_else(|| sides.run(&spec));
            judge.hear(&small.name(), &spec, verdicts);
        } else {
            judge.hear(&mutant.name(), &spec, verdicts);
        }
    }
    judge.close();
}
