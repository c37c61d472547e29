//! The command line of `conformance`.

use super::suite::Suite;
use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: conformance [--suite critest|client|cri]... [--focus WORDS]...";

/// Which tests of which suites.
#[derive(Clone, Debug)]
pub struct Options {
    /// The suites to run, in this order.
    pub suites: Vec<Suite>,
    /// Only tests whose names contain one of these; all when there are none.
    pub focus: Vec<String>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When there is an unknown option or suite.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            suites: Vec::new(),
            focus: Vec::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let value = words
                .next()
                .with_context(|| format!("{word} what? {USAGE}"))?;
            match word.as_str() {
                "--suite" => match Suite::named(&value) {
                    Some(suite) => options.suites.push(suite),
                    None => bail!("no suite {value}: {USAGE}"),
                },
                "--focus" => options.focus.push(value),
                _ => bail!("unknown option {word}: {USAGE}"),
            }
        }
        if options.suites.is_empty() {
            options.suites = Suite::ALL.to_vec();
        }
        Ok(options)
    }

    /// Whether a test is to be run.
    pub(super) fn wants(&self, test: &str) -> bool {
        self.focus.is_empty() || self.focus.iter().any(|focus| test.contains(focus))
    }
}
