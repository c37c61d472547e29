//! The demo's command line.

use crate::programs::Program;
use crate::tools::{DEFAULT_CONTAINERD, workspace};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// What the demo shall do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each kind of start is measured.
    pub runs: usize,
    /// How many pods the burst starts at once; 0 for no burst.
    pub burst: usize,
    /// Which programs are shown.
    pub programs: Vec<Program>,
    /// Where the report goes.
    pub out: PathBuf,
    /// Which containerd.
    pub containerd: String,
}

/// The demo's usage.
const USAGE: &str =
    "usage: demo [--runs N] [--burst N] [--program python|java] [--containerd 2.3] [--out DIR]";

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When there is an unknown option or a bad value.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            runs: 5,
            burst: 10,
            programs: Vec::new(),
            out: workspace().join("target/demo"),
            containerd: DEFAULT_CONTAINERD.to_owned(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} what? {USAGE}"))
            };
            match word.as_str() {
                "--runs" => options.runs = value()?.parse().context(USAGE)?,
                "--burst" => options.burst = value()?.parse().context(USAGE)?,
                "--out" => options.out = value()?.into(),
                "--containerd" => options.containerd = value()?,
                "--program" => options.programs.push(match value()?.as_str() {
                    "python" => Program::Python,
                    "java" => Program::Java,
                    other => bail!("no program {other}: {USAGE}"),
                }),
                other => bail!("unknown option {other}: {USAGE}"),
            }
        }
        if options.programs.is_empty() {
            options.programs = vec![Program::Python, Program::Java];
        }
        if options.runs == 0 {
            bail!("--runs must be at least 1");
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::programs::Program;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_have_defaults() {
        let options = parse("").unwrap();
        assert_eq!((options.runs, options.burst), (5, 10));
        assert_eq!(options.programs, [Program::Python, Program::Java]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "--runs",
            "--runs many",
            "--runs 0",
            "--program perl",
            "--fast",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
