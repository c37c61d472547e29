//! The file systems that a restored container gets from us, as a cold start makes
//! them.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::MsFlags;
use oci_spec::runtime::Mount;

use super::options::Options;
use super::{attach, cgroups, cover, read_only};
use crate::sys;

/// A tmpfs that is not made yet.
#[derive(Debug)]
pub(in crate::worker) struct Fresh {
    options: Options,
    /// Read-only once it is filled.
    read_only_later: bool,
}

impl Fresh {
    /// The container's `/dev`, as its spec has it.
    pub(in crate::worker) fn dev(mount: Option<&Mount>) -> Self {
        let mut options = mount.map_or_else(|| Options::only(MsFlags::MS_NOSUID), Options::of);
        let read_only_later = options.is_read_only();
        options.flags -= MsFlags::MS_RDONLY | MsFlags::MS_BIND | MsFlags::MS_REC;
        // First, so that a mode of the spec's own wins.
        options.data.insert(0, "mode=0755".to_owned());
        Self {
            options,
            read_only_later,
        }
    }

    /// What holds the hierarchies of cgroup v1.
    pub(in crate::worker) fn cgroups() -> Self {
        Self {
            options: cgroups::holder(),
            read_only_later: false,
        }
    }

    /// What covers a masked directory.
    pub(in crate::worker) fn mask() -> Self {
        Self {
            options: cover::mask("2"),
            read_only_later: false,
        }
    }

    /// Makes it, attached nowhere.
    pub(in crate::worker) fn make(&self) -> std::result::Result<OwnedFd, Errno> {
        attach::new("tmpfs", "tmpfs", &self.options, None)
    }

    /// It is filled.
    pub(in crate::worker) fn seal(&self, mount: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        if self.read_only_later {
            return sys::mount_setattr(mount, false, &read_only());
        }
        Ok(())
    }
}
