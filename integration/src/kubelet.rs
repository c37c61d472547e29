//! What a kubelet puts into a pod's volumes, laid out as it does.

use crate::node::Node;
use anyhow::Result;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A kind of volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// Several sources in one.
    Projected,
}

impl Volume {
    fn plugin(self) -> &'static str {
        match self {
            Self::ConfigMap => "kubernetes.io~configmap",
            Self::Secret => "kubernetes.io~secret",
            Self::Projected => "kubernetes.io~projected",
        }
    }

    /// Puts these files into a pod's volume, all at once, and gives its directory. What
    /// was in it before is replaced.
    ///
    /// # Errors
    /// I/O.
    pub fn publish(
        self,
        node: &Node,
        pod: &str,
        name: &str,
        files: &[(&str, &str)],
    ) -> Result<PathBuf> {
        let pod = node.dir().join("kubelet/pods").join(pod);
        let dir = pod.join("volumes").join(self.plugin()).join(name);
        fs::create_dir_all(&dir)?;
        let turn = format!("..{}", fs::read_dir(&dir)?.count());
        fs::create_dir(dir.join(&turn))?;
        for (file, text) in files {
            fs::write(dir.join(&turn).join(file), text)?;
            symlink(format!("..data/{file}"), dir.join(file)).ok();
        }
        // The new files take the old ones' place in one step.
        symlink(&turn, dir.join("..data_tmp"))?;
        fs::rename(dir.join("..data_tmp"), dir.join("..data"))?;
        Ok(dir)
    }
}
