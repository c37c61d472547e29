//! The empty tree that libcontainer pivots into, and the spec that makes it do so.
//!
//! It has a `/dev`, which libcontainer fills with the nodes that it looks for, and
//! the directory on which the container's root is attached. In a user namespace it
//! also has a `/proc` and a `/sys`: the kernel lets nobody mount those who does
//! not see one already.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Root, Spec};

use crate::error::{Doing, Result};
use crate::namespaces::{self, Namespace};

/// Where the container's root is attached, inside the void.
pub(super) const ROOT: &str = "/root";

/// The empty tree of one container, in its private directory.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Void(PathBuf);

impl Void {
    /// The void of the container that has this private directory.
    pub(in crate::worker) fn of(private: &Path) -> Self {
        Self(private.join("void"))
    }

    /// Makes its directories.
    pub(in crate::worker) fn make(&self) -> Result<()> {
        let mut directory = std::fs::DirBuilder::new();
        directory.recursive(true).mode(0o755);
        for name in ["dev", "proc", "sys", "root"] {
            let dir = self.0.join(name);
            directory
                .create(&dir)
                .doing(format!("cannot make {}", dir.display()))?;
        }
        Ok(())
    }

    /// Lets root of a user namespace, who is nobody outside, get to it: through the
    /// private directory and the two that hold all of them.
    pub(in crate::worker) fn open_the_way(&self) -> Result<()> {
        for dir in self.0.ancestors().skip(1).take(3) {
            let what = || format!("cannot let user namespaces through {}", dir.display());
            let mode = std::fs::metadata(dir).doing(what())?.permissions().mode();
            if mode & 0o011 != 0o011 {
                let mode = std::fs::Permissions::from_mode(mode & 0o7777 | 0o011);
                std::fs::set_permissions(dir, mode).doing(what())?;
            }
        }
        Ok(())
    }

    /// Has libcontainer make this tree and no other.
    pub(in crate::worker) fn put_into(&self, spec: &mut Spec) {
        let mut root = Root::default();
        root.set_path(self.0.clone()).set_readonly(None);
        spec.set_root(Some(root));
        spec.set_mounts(Some(mounts(spec)));
        if let Some(linux) = spec.linux_mut() {
            linux
                .set_devices(None)
                .set_masked_paths(None)
                .set_readonly_paths(None)
                .set_rootfs_propagation(None)
                .set_mount_label(None);
        }
    }
}

fn mounts(spec: &Spec) -> Vec<Mount> {
    let mut all = vec![mount("/dev", "tmpfs", &["nosuid", "mode=755"])];
    let remapped = namespaces::of(spec, LinuxNamespaceType::User) != Namespace::Host;
    let wants = |typ: &str| {
        let mounts = spec.mounts().iter().flatten();
        mounts
            .into_iter()
            .any(|one| one.typ().as_deref() == Some(typ))
    };
    let safe = ["nosuid", "noexec", "nodev"];
    if remapped && wants("proc") {
        all.push(mount("/proc", "proc", &safe));
    }
    if remapped && wants("sysfs") {
        // The node's own: whoever mounts a new one first says for all whether it is
        // read-only.
        let mut sys = mount("/sys", "bind", &["rbind"]);
        sys.set_source(Some("/sys".into()));
        all.push(sys);
    }
    all
}

fn mount(at: &str, typ: &str, options: &[&str]) -> Mount {
    let mut one = Mount::default();
    one.set_destination(at.into())
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(typ.into()))
        .set_options(Some(options.iter().map(|&word| word.to_owned()).collect()));
    one
}
