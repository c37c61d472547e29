//! The command line of `cluster-suite`.

use crate::Runtime;
use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cluster-suite [--list] [--case WORD]... [--runtime runc|reprise] \
     [--kubernetes 1.37] [--containerd 2.3]";

/// Which cases, and on what.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only cases whose names contain one of these; all when there are none.
    pub cases: Vec<String>,
    /// Only names are wanted.
    pub list: bool,
    /// Only under this one.
    pub runtime: Option<Runtime>,
    /// The Kubernetes minor version, if it is not the default one.
    pub kubernetes: Option<String>,
    /// The containerd minor version, if it is not the default one.
    pub containerd: Option<String>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When there is an unknown option.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--list" {
                options.list = true;
                continue;
            }
            let value = words
                .next()
                .with_context(|| format!("{word} what? {USAGE}"))?;
            match word.as_str() {
                "--case" => options.cases.push(value),
                "--runtime" => {
                    let named = Runtime::named(&value);
                    options.runtime = Some(named.with_context(|| format!("no {value}: {USAGE}"))?);
                }
                "--kubernetes" => options.kubernetes = Some(value),
                "--containerd" => options.containerd = Some(value),
                _ => bail!("unknown option {word}: {USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether all is run that there is.
    pub(super) fn whole(&self) -> bool {
        self.cases.is_empty() && self.runtime.is_none()
    }

    pub(super) fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|word| case.contains(word))
    }

    pub(super) fn runtimes(&self) -> Vec<Runtime> {
        match self.runtime {
            Some(one) => vec![one],
            None => Runtime::BOTH.to_vec(),
        }
    }
}
