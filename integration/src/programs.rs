//! The programs in the test images.

use crate::pod::ContainerSpec;
use serde::Deserialize;

/// The small image that most tests use.
pub const BUSYBOX: &str = "docker.io/reprise/busybox:latest";

/// A service that answers `GET /` on port 8080.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// numpy and flask with a warmed heap.
    Python,
    /// A service on the JVM that works hard at its start.
    Java,
}

impl Program {
    /// Its name, as in the reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Java => "java",
        }
    }

    /// Its image.
    #[must_use]
    pub fn image(self) -> String {
        format!("docker.io/reprise/{}:latest", self.name())
    }

    /// Its container, always configured in the same way.
    #[must_use]
    pub fn container(self) -> ContainerSpec {
        ContainerSpec::new(&self.image())
    }
}

/// What a service says about itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Answer {
    /// The hostname that the kernel tells.
    pub hostname: String,
    /// Its pid.
    pub pid: i64,
    /// Chosen at random when it started; a restored service keeps it.
    #[serde(alias = "boot_id", alias = "bootId")]
    pub boot: String,
    /// How many requests it has seen.
    #[serde(alias = "requests", alias = "counter")]
    pub count: u64,
}
