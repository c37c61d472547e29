//! The half that is done in the node: what the tree is made of is opened, and
//! what is wrong with the spec's mounts is told.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use super::options::{Options, attributes, propagation};
use super::{Node, Tree, cover, devices, place};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::sys::{self, MountAttr};
use crate::worker::userns::{self, Ids};

/// A mount of the spec, its source opened.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) source: String,
    pub(super) to: PathBuf,
    pub(super) options: Options,
    pub(super) what: What,
    /// The rootfs in the node, for messages.
    pub(super) rootfs: PathBuf,
    /// SELinux' label for a new file system.
    pub(super) label: Option<String>,
}

/// What a mount brings.
#[derive(Debug)]
pub(super) enum What {
    Bind(Bind),
    /// A new file system of this type.
    New(String),
    /// The container's cgroups.
    Cgroups(Cgroups),
}

/// The source of a bind mount.
#[derive(Debug)]
pub(super) struct Bind {
    /// Detached, with the attributes that it shall have.
    pub(super) tree: OwnedFd,
    pub(super) is_dir: bool,
    pub(super) fs: FsType,
}

/// What a cgroup mount is made of.
#[derive(Debug)]
pub(super) enum Cgroups {
    /// For each hierarchy its name and the container's directory in it.
    V1 {
        own_namespace: bool,
        hierarchies: Vec<(PathBuf, OwnedFd)>,
    },
    /// What is bound where the kernel refuses a new mount.
    V2 { instead: OwnedFd },
}

impl Tree {
    /// Opens everything that `spec` names. The cgroup must exist.
    pub(in crate::worker) fn open(
        spec: &Spec,
        bundle: &Path,
        rootfs: &Path,
        cgroup: &Cgroup,
        userns: Option<&OwnedFd>,
        console: Option<OwnedFd>,
        for_hooks: bool,
    ) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let label = linux
            .and_then(|l| l.mount_label().clone())
            .filter(|label| !label.is_empty() && Path::new("/sys/fs/selinux").exists());
        let opener = Opener {
            rootfs,
            bundle,
            cgroup,
            spec,
            userns,
            label,
            propagation: root_propagation(spec)?,
        };
        let mounts = spec.mounts().iter().flatten();
        Ok(Self {
            root: opener.root(rootfs)?,
            mounts: mounts
                .map(|mount| opener.mount(mount))
                .collect::<Result<_>>()?,
            devices: devices::Plan::of(spec)?,
            covers: cover::Plan::of(spec, opener.label.clone()),
            propagation: opener.propagation,
            cwd: spec
                .process()
                .as_ref()
                .map(|p| p.cwd().clone())
                .unwrap_or_default(),
            console,
            node: for_hooks.then(|| opener.node(rootfs)).transpose()?,
        })
    }
}

fn root_propagation(spec: &Spec) -> Result<Option<MsFlags>> {
    let linux = spec.linux().as_ref();
    let Some(word) = linux
        .and_then(|l| l.rootfs_propagation().as_deref())
        .filter(|w| !w.is_empty())
    else {
        return Ok(None);
    };
    match propagation(word) {
        Some(flags) => Ok(Some(flags)),
        None => Err(invalid(format!(
            "rootfsPropagation={word} is not supported"
        ))),
    }
}

struct Opener<'a> {
    rootfs: &'a Path,
    bundle: &'a Path,
    cgroup: &'a Cgroup,
    spec: &'a Spec,
    userns: Option<&'a OwnedFd>,
    label: Option<String>,
    propagation: Option<MsFlags>,
}

impl Opener<'_> {
    /// The rootfs, as it is when the mount that it lies in is private or a slave
    /// and bound onto itself.
    fn root(&self, rootfs: &Path) -> Result<OwnedFd> {
        let what = || format!("cannot open the rootfs {}", rootfs.display());
        let root = open_tree(rootfs, true).doing(what())?;
        self.as_in_the_container(&root).doing(what())?;
        let kind = match self.propagation {
            Some(flags) if flags.contains(MsFlags::MS_SLAVE) => MsFlags::MS_SLAVE,
            _ => MsFlags::MS_PRIVATE,
        };
        set_propagation(&root, kind, false).doing(what())?;
        Ok(root)
    }

    /// Everything, for hooks that run beside the container's tree.
    fn node(&self, rootfs: &Path) -> Result<Node> {
        let what = || "cannot open the node's root".to_owned();
        let tree = open_tree(Path::new("/"), true).doing(what())?;
        self.as_in_the_container(&tree).doing(what())?;
        let rootfs = std::fs::canonicalize(rootfs).doing(what())?;
        Ok(Node { tree, rootfs })
    }

    /// A tree taken from the node has the propagation that it would have in a
    /// mount namespace whose root was made as the spec wants it, or a slave.
    fn as_in_the_container(&self, tree: &OwnedFd) -> std::result::Result<(), Errno> {
        let flags = self
            .propagation
            .unwrap_or(MsFlags::MS_SLAVE | MsFlags::MS_REC);
        if !flags.contains(MsFlags::MS_REC) {
            // Only the mount at `/` itself, which no container binds as a whole.
            return Ok(());
        }
        // An unbindable tree could not be bound, and is opened already.
        if flags.contains(MsFlags::MS_UNBINDABLE) {
            return set_propagation(tree, MsFlags::MS_PRIVATE, true);
        }
        set_propagation(tree, flags - MsFlags::MS_REC, true)
    }

    fn mount(&self, mount: &Mount) -> Result<Planned> {
        let options = Options::of(mount);
        self.check(mount, &options)?;
        let typ = mount.typ().clone().unwrap_or_default();
        let source = mount
            .source()
            .as_deref()
            .unwrap_or(Path::new(""))
            .to_owned();
        let what = if options.is_bind() {
            What::Bind(self.bind(&source, mount, &options)?)
        } else if typ == "cgroup" {
            What::Cgroups(self.cgroups(&options)?)
        } else {
            What::New(typ)
        };
        Ok(Planned {
            source: source.display().to_string(),
            to: mount.destination().clone(),
            options,
            what,
            rootfs: self.rootfs.to_owned(),
            label: self.label.clone(),
        })
    }

    fn check(&self, mount: &Mount, options: &Options) -> Result<()> {
        let to = mount.destination().display();
        let wrong = |what: &str| Err(invalid(format!("invalid mount {to}: {what}")));
        if options.is_bind() && !options.data.is_empty() {
            return wrong("bind mounts cannot have any filesystem-specific options applied");
        }
        let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
        if options.id_map.is_none() && uids.is_none() && gids.is_none() {
            return Ok(());
        }
        if !options.is_bind() {
            return wrong("id-mapped mounts are only supported for bind-mounts");
        }
        let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|all| !all.is_empty());
        let own = namespaces::of(self.spec, LinuxNamespaceType::User) != Namespace::Host;
        let of_the_container = uids.is_none() && gids.is_none() && own;
        let both_given = given(uids) && given(gids);
        if !of_the_container && !both_given {
            return wrong("id-mapped mounts must have both uid and gid mappings specified");
        }
        Ok(())
    }

    fn bind(&self, source: &Path, mount: &Mount, options: &Options) -> Result<Bind> {
        let path = self.bundle.join(source);
        let to = mount.destination();
        let failed = |e: Errno| {
            let text = format!(
                "unable to start container process: error during container init: \
                 failed to fulfil mount request: open {}: {}",
                path.display(),
                super::words(e)
            );
            Error::new(ErrorKind::InvalidArgument, text)
        };
        let tree = open_tree(&path, options.is_deep()).map_err(failed)?;
        let stat = fstat(tree.as_raw_fd()).map_err(failed)?;
        let fs = fstatfs(tree.as_fd()).map_err(failed)?.filesystem_type();
        self.map_ids(&tree, mount, options)?;
        self.as_in_the_container(&tree).map_err(failed)?;
        // Here, since root of a user namespace could not do it.
        if let Some(mut attr) = options.bind_attributes() {
            if self.userns.is_some() && !is_mapped(mount, options) {
                keep_locked(&tree, mount, options, &mut attr)?;
            }
            if is_dev(to) {
                attr.set &= !sys::MOUNT_ATTR_RDONLY;
            }
            sys::mount_setattr(tree.as_fd(), false, &attr).map_err(failed)?;
        }
        if let Some(attr) = &options.recursive {
            sys::mount_setattr(tree.as_fd(), true, attr).map_err(failed)?;
        }
        Ok(Bind {
            is_dir: place::kind(&stat) == SFlag::S_IFDIR,
            tree,
            fs,
        })
    }

    /// Maps the ids of what is bound, as the container's or as the mount has it.
    fn map_ids(&self, tree: &OwnedFd, mount: &Mount, options: &Options) -> Result<()> {
        let own = Ids::of(mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
        let made;
        let namespace = match (own, self.userns) {
            (None, _) if options.id_map.is_none() => return Ok(()),
            (None, Some(namespace)) => namespace,
            // What the CRI plugin puts on a mount is mostly the container's.
            (Some(ids), Some(namespace)) if userns::of_spec(self.spec).as_ref() == Some(&ids) => {
                namespace
            }
            (Some(ids), _) => {
                made = ids.namespace()?;
                &made
            }
            (None, None) => return Err(invalid("no id mappings to use".to_owned())),
        };
        let attr = MountAttr {
            set: sys::MOUNT_ATTR_IDMAP,
            userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or_default(),
            ..MountAttr::default()
        };
        sys::mount_setattr(tree.as_fd(), options.id_map == Some(true), &attr).map_err(|e| {
            let hint = match e {
                Errno::EINVAL => {
                    " (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
                }
                _ => "",
            };
            let source = mount.source().as_deref().unwrap_or(Path::new("")).display();
            invalid(format!(
                "unable to start container process: error during container init: failed to \
                 fulfil mount request: failed to set MOUNT_ATTR_IDMAP on {source}: {}{hint}",
                super::words(e)
            ))
        })
    }

    fn cgroups(&self, options: &Options) -> Result<Cgroups> {
        let own_namespace =
            namespaces::of(self.spec, LinuxNamespaceType::Cgroup) != Namespace::Host;
        let open = |dir: &Path| {
            let what = || format!("cannot open {}", dir.display());
            let tree = open_tree(dir, true).doing(what())?;
            self.as_in_the_container(&tree).doing(what())?;
            if let Some(attr) = options.bind_attributes() {
                sys::mount_setattr(tree.as_fd(), false, &attr).doing(what())?;
            }
            Ok::<_, Error>(tree)
        };
        if self.cgroup.is_v2() {
            let all = self.cgroup.mounts();
            let own = all
                .first()
                .map(|(_, dir)| dir.as_path())
                .filter(|_| own_namespace);
            let instead = open(own.unwrap_or(Path::new("/sys/fs/cgroup")))?;
            return Ok(Cgroups::V2 { instead });
        }
        let hierarchies = self
            .cgroup
            .mounts()
            .into_iter()
            .filter_map(|(at, dir)| Some((PathBuf::from(at.file_name()?), dir)))
            .map(|(name, dir)| Ok((name, open(&dir)?)))
            .collect::<Result<_>>()?;
        Ok(Cgroups::V1 {
            own_namespace,
            hierarchies,
        })
    }
}

fn is_mapped(mount: &Mount, options: &Options) -> bool {
    options.id_map.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some()
}

/// Flags of the source that a user namespace could not take away stay. We could, but
/// who asks for that shall hear the same as from runc.
fn keep_locked(
    tree: &OwnedFd,
    mount: &Mount,
    options: &Options,
    attr: &mut MountAttr,
) -> Result<()> {
    let has = fstatvfs(tree)
        .doing("cannot look at a mount's flags")?
        .flags();
    let mut locked = MsFlags::empty();
    for (has_it, flag) in [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        locked.set(flag, has.contains(has_it));
    }
    let refused = locked & options.cleared;
    if !refused.is_empty() {
        let names: Vec<_> = refused.iter_names().map(|(name, _)| name).collect();
        let source = mount.source().as_deref().unwrap_or(Path::new("")).display();
        return Err(invalid(format!(
            "unable to start container process: error during container init: error mounting \
             \"{source}\" to rootfs at \"{}\": failed to set user-requested vfs flags on \
             bind-mount: cannot clear locked flags {}: operation not permitted",
            mount.destination().display(),
            names.join("|")
        )));
    }
    attr.set |= attributes(locked);
    attr.clear &= !attributes(locked);
    Ok(())
}

/// Whether this is `/dev`, however it is written.
pub(super) fn is_dev(to: &Path) -> bool {
    place::clean(to) == Path::new("/dev")
}

/// A detached copy of what is mounted at `path`, links followed.
pub(super) fn open_tree(path: &Path, deep: bool) -> std::result::Result<OwnedFd, Errno> {
    let deep = if deep {
        libc::AT_RECURSIVE.cast_unsigned()
    } else {
        0
    };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | deep;
    sys::open_tree(libc::AT_FDCWD, path, flags)
}

fn set_propagation(tree: &OwnedFd, kind: MsFlags, deep: bool) -> std::result::Result<(), Errno> {
    let attr = MountAttr {
        propagation: kind.bits(),
        ..MountAttr::default()
    };
    sys::mount_setattr(tree.as_fd(), deep, &attr)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
