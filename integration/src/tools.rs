//! Where the programs under test and their surroundings are.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The containerd that most tests run on.
pub const DEFAULT_CONTAINERD: &str = "2.3";

/// The programs under test.
pub const OURS: [&str; 2] = ["containerd-shim-reprise-v2", "reprise"];

/// Directories with the tools that `make setup` builds and with our binaries.
#[derive(Clone, Debug)]
pub struct Tools {
    root: PathBuf,
    reprise: PathBuf,
    containerd: String,
}

impl Tools {
    /// Finds the tools for one containerd minor version, such as `2.3`.
    ///
    /// # Errors
    /// Says what is missing and which command makes it.
    pub fn find(containerd: &str) -> Result<Self> {
        let tools = Self {
            root: tools_root(),
            reprise: from_env("REPRISE_BIN").unwrap_or_else(|| target().join("release")),
            containerd: containerd.to_owned(),
        };
        for needed in [
            tools.program("containerd"),
            tools.program("runc"),
            tools.program("crictl"),
            tools.program("criu"),
            tools.program("containerd-shim-reprise-v2"),
            tools.cni().join("bridge"),
            tools.image("busybox"),
            tools.image("pause"),
        ] {
            if !needed.exists() {
                bail!("{} is missing: run `make setup` first", needed.display());
            }
        }
        Ok(tools)
    }

    /// Where a program is, whether or not it is there.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        match name {
            "containerd" | "ctr" | "containerd-shim-runc-v2" => self
                .root
                .join(format!("containerd-{}/bin", self.containerd))
                .join(name),
            _ if OURS.contains(&name) => self.reprise.join(name),
            _ => self.root.join("bin").join(name),
        }
    }

    /// Every program that a node's PATH offers.
    pub fn programs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        [
            "containerd",
            "ctr",
            "containerd-shim-runc-v2",
            "containerd-shim-reprise-v2",
            "reprise",
            "runc",
            "crictl",
            "criu",
            "checkpointctl",
        ]
        .into_iter()
        .map(|name| self.program(name))
        .filter(|path| path.exists())
    }

    /// The directory with the CNI plugins.
    #[must_use]
    pub fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// The directory with the suites of others, there after
    /// `hack/setup conformance`.
    #[must_use]
    pub fn suites() -> PathBuf {
        tools_root().join("suites")
    }

    /// A program of a Kubernetes minor version, such as `1.37`, there after
    /// `hack/setup cluster`.
    #[must_use]
    pub fn kubernetes(version: &str, name: &str) -> PathBuf {
        let root = tools_root().join(format!("kubernetes-{version}/bin"));
        root.join(name)
    }

    /// Where Kubernetes keeps what it knows, there after `hack/setup cluster`.
    #[must_use]
    pub fn etcd() -> PathBuf {
        tools_root().join("bin/etcd")
    }

    /// The library that lets CRIU dump other users' processes without
    /// `CAP_SYS_RESOURCE`; only for machines like that.
    #[must_use]
    pub fn rlimit_preload(&self) -> PathBuf {
        self.root.join("lib/criu-rlimit-preload.so")
    }

    /// The archive of a test image.
    #[must_use]
    pub fn image(&self, name: &str) -> PathBuf {
        self.root.join("images").join(format!("{name}.tar"))
    }

    /// The test images that are there.
    #[must_use]
    pub fn images(&self) -> Vec<PathBuf> {
        ["pause", "busybox", "python", "java"]
            .iter()
            .map(|name| self.image(name))
            .filter(|path| path.exists())
            .collect()
    }

    /// The containerd minor version, such as `2.3`.
    #[must_use]
    pub fn containerd_version(&self) -> &str {
        &self.containerd
    }
}

fn tools_root() -> PathBuf {
    from_env("REPRISE_TOOLS").unwrap_or_else(|| workspace().join("target/tools"))
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The root of the repository.
#[must_use]
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory, the one that this program was built in.
#[must_use]
pub fn target() -> PathBuf {
    if let Some(target) = from_env("CARGO_TARGET_DIR") {
        return target;
    }
    std::env::current_exe()
        .ok()
        .and_then(|exe| {
            exe.ancestors()
                .find(|dir| dir.ends_with("debug") || dir.ends_with("release"))
                .and_then(Path::parent)
                .map(Path::to_path_buf)
        })
        .unwrap_or_else(|| workspace().join("target"))
}
