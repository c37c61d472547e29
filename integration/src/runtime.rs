//! The two runtimes that everything is compared under.

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// runc, under containerd's own shim.
    Runc,
    /// Ours.
    Reprise,
}

impl Runtime {
    /// Both, the yardstick first.
    pub const BOTH: [Self; 2] = [Self::Runc, Self::Reprise];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|one| one.name() == name)
    }

    /// Its name, which is that of its handler in containerd's CRI plugin, too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Reprise => "reprise",
        }
    }

    /// What containerd calls it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Reprise => "io.containerd.reprise.v2",
        }
    }
}
