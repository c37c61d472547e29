//! The formats of checkpoint images: names, labels, annotations, media types.
//!
//! Labels are containerd's, on objects in its own store, and never leave the node.
//! Annotations are in the manifest and travel with it.

use reprise_runtime::checkpoint::Origin;

use super::content::digest_of;

/// On an image's record: the id of the checkpoint that it is.
pub(crate) const CHECKPOINT: &str = "reprise.dev/checkpoint";
/// On an image's record: somebody with access to containerd vouches for it. Nothing
/// that a registry serves can set it.
pub(crate) const TRUSTED: &str = "reprise.dev/trusted";
/// On an image's record: the boot in which it was made, for as long as not all of it
/// has reached the disk. In another boot it is not to be trusted.
pub(crate) const BOOT: &str = "reprise.dev/boot";
/// On a lease: who publishes under it ([`reprise_runtime::maker::Maker`]).
pub(crate) const PUBLISHER: &str = "reprise.dev/publisher";
/// On an image's record: the kubelet's image collection leaves it alone
/// (`internal/cri/labels` of containerd), with the value [`PINNED_VALUE`].
pub(crate) const PINNED: &str = "io.cri-containerd.pinned";
/// See [`PINNED`].
pub(crate) const PINNED_VALUE: &str = "pinned";
/// On an image's record: the CRI plugin sees it as its own, and makes no second
/// record of it under the digest of its config, which would outlive `ctr images rm`
/// (`UpdateImage` in `internal/cri/server/images` of containerd).
pub(crate) const MANAGED: &str = "io.cri-containerd.image";
/// See [`MANAGED`].
pub(crate) const MANAGED_VALUE: &str = "managed";
/// On a lease: when containerd itself gives it up, in RFC 3339.
pub(crate) const EXPIRE: &str = "containerd.io/gc.expire";
/// On a layer's blob: the digest of the tar that it holds.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Media types of the OCI image specification.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's configuration.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// A layer, as a tar.
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer, compressed with gzip.
pub(crate) const LAYER_GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer, compressed with zstd.
pub(crate) const LAYER_ZSTD_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// What everybody's checkpoint images say of themselves
/// (`lib/annotations.go` of checkpointctl).
pub(crate) mod criu {
    /// How all of them begin.
    pub(crate) const PREFIX: &str = "org.criu.checkpoint.";
    /// What images said before there were those: the container's name
    /// (`internal/annotations` of CRI-O).
    pub(crate) const OLD_NAME: &str = "io.kubernetes.cri-o.annotations.checkpoint.name";
    /// The engine that made it.
    pub(crate) const ENGINE: &str = "org.criu.checkpoint.engine.name";
    /// Its version.
    pub(crate) const ENGINE_VERSION: &str = "org.criu.checkpoint.engine.version";
    /// Name of the container.
    pub(crate) const NAME: &str = "org.criu.checkpoint.container.name";
    /// Name of its pod.
    pub(crate) const POD: &str = "org.criu.checkpoint.pod.name";
    /// Id of its pod's sandbox.
    pub(crate) const POD_ID: &str = "org.criu.checkpoint.pod.id";
    /// Namespace of its pod.
    pub(crate) const NAMESPACE: &str = "org.criu.checkpoint.pod.namespace";
    /// Name of the image that it ran.
    pub(crate) const ROOTFS_IMAGE: &str = "org.criu.checkpoint.rootfsImageName";
    /// What the user called that.
    pub(crate) const ROOTFS_REQUESTED: &str = "org.criu.checkpoint.rootfsImageUserRequested";
    /// Digest of that image's manifest.
    pub(crate) const ROOTFS_DIGEST: &str = "org.criu.checkpoint.rootfsImageSha";
    /// The runtime.
    pub(crate) const RUNTIME: &str = "org.criu.checkpoint.runtime.name";
    /// Its version.
    pub(crate) const RUNTIME_VERSION: &str = "org.criu.checkpoint.runtime.version";
    /// Version of CRIU.
    pub(crate) const CRIU: &str = "org.criu.checkpoint.criu.version";
    /// Architecture, in Go's names.
    pub(crate) const ARCH: &str = "org.criu.checkpoint.host.arch";
    /// Kernel.
    pub(crate) const KERNEL: &str = "org.criu.checkpoint.host.kernel";
    /// `v1` or `v2`.
    pub(crate) const CGROUP: &str = "org.criu.checkpoint.cgroup.version";
}

/// What ours say besides.
pub(crate) mod ours {
    /// The checkpoint's id.
    pub(crate) const ID: &str = "dev.reprise.checkpoint.id";
    /// The fingerprint.
    pub(crate) const FINGERPRINT: &str = "dev.reprise.fingerprint";
    /// Chain id of the base image: the name of its uppermost snapshot.
    pub(crate) const BASE_CHAIN: &str = "dev.reprise.base.chain";
    /// CPU features that were there, separated by commas.
    pub(crate) const CPU_FEATURES: &str = "dev.reprise.cpu.features";
    /// Bytes of CRIU's images.
    pub(crate) const IMAGE_BYTES: &str = "dev.reprise.image.bytes";
    /// Bytes of memory that the processes held.
    pub(crate) const MEMORY_BYTES: &str = "dev.reprise.memory.bytes";
    /// `false` as long as the layer is a snapshot only and its blob does not exist.
    pub(crate) const SEALED: &str = "dev.reprise.sealed";
}

/// What an image says that was made by another engine and cannot be restored: why.
pub(crate) const FOREIGN: &str = "dev.reprise.foreign";

/// Names in a checkpoint image's layer, all at its root.
pub(crate) mod layer {
    /// CRIU's images.
    pub(crate) const IMAGES: &str = "checkpoint";
    /// Our manifest ([`reprise_runtime::checkpoint::Manifest`]).
    pub(crate) const MANIFEST: &str = "manifest.json";
    /// Who the container was.
    pub(crate) const CONFIG: &str = "config.dump";
    /// Its `config.json`.
    pub(crate) const SPEC: &str = "spec.dump";
    /// CRIU's statistics.
    pub(crate) const STATISTICS: &str = "stats-dump";
    /// The container's status, as the CRI has it.
    pub(crate) const STATUS: &str = "status.dump";
    /// CRIU's log.
    pub(crate) const LOG: &str = "dump.log";
    /// The writable layer as a tar, in layers that travel.
    pub(crate) const ROOTFS_DIFF: &str = "rootfs-diff.tar";
}

/// The label by which an object keeps a snapshot. Several of them need a `suffix`
/// each, which containerd does not read.
pub(crate) fn keeps_snapshot(snapshotter: &str, suffix: &str) -> String {
    match suffix {
        "" => format!("containerd.io/gc.ref.snapshot.{snapshotter}"),
        suffix => format!("containerd.io/gc.ref.snapshot.{snapshotter}/{suffix}"),
    }
}

/// On a checkpoint's config: keeps the snapshot with CRIU's images.
pub(crate) fn keeps_data(snapshotter: &str) -> String {
    keeps_snapshot(snapshotter, "")
}

/// On a checkpoint's config: keeps the snapshot with the writable layers.
pub(crate) fn keeps_rootfs(snapshotter: &str) -> String {
    keeps_snapshot(snapshotter, "reprise")
}

/// The label by which a blob or image keeps a blob.
pub(crate) fn keeps_content(what: &str) -> String {
    format!("containerd.io/gc.ref.content.{what}")
}

/// Name of the snapshot with CRIU's images, which is also the chain id, the diff id
/// and the digest that stand for its layer until that is sealed: nothing has it.
pub(crate) fn data_snapshot(id: &str) -> String {
    digest_of(format!("the layer of checkpoint {id}, which has not been sealed").as_bytes())
}

/// Name of the snapshot with the writable layers.
pub(crate) fn rootfs_snapshot(id: &str) -> String {
    format!("reprise-rootfs-{id}")
}

/// On the config of an image that others built: keeps the snapshot with its images as
/// ours are.
pub(crate) fn keeps_adapted(snapshotter: &str) -> String {
    keeps_snapshot(snapshotter, "reprise-data")
}

/// The id of a checkpoint that others built, of its image's digest and when that came
/// to this node: 32 of the digest's digits.
pub(crate) fn their_id(digest: &str, namespace: &str, came_unix_ms: u64) -> String {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let hex = hex.get(..32).unwrap_or(hex);
    format!("{hex}-{namespace}-{came_unix_ms}")
}

/// Name of the image of a checkpoint that nobody named: below a registry that does
/// not exist, so that nothing is pulled or pushed by mistake.
pub(crate) fn image_of(origin: &Origin, id: &str) -> String {
    let group = origin.pod_namespace.as_ref().unwrap_or(&origin.namespace);
    image(group, origin.name.as_ref().unwrap_or(&origin.container), id)
}

fn image(group: &str, container: &str, id: &str) -> String {
    let (group, container) = (path_component(group), path_component(container));
    format!("reprise.local/{group}/{container}:{}", tag(id))
}

/// A text as a component of an image's name: lower case letters, digits, and single
/// separators between them.
fn path_component(text: &str) -> String {
    let mut component = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            component.push(c.to_ascii_lowercase());
        } else if component.ends_with(|last: char| last.is_ascii_alphanumeric()) {
            component.push('-');
        }
    }
    match component.trim_end_matches('-') {
        "" => "x".to_owned(),
        component => component.to_owned(),
    }
}

/// A text as a tag: at most 128 characters, the last ones, which tell ids apart.
fn tag(id: &str) -> String {
    let text = |c: char| match c {
        '_' | '.' | '-' => c,
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let all: String = id.chars().map(text).collect();
    let from = all.len().saturating_sub(128);
    all.get(from..)
        .unwrap_or_default()
        .trim_start_matches(['.', '-'])
        .to_owned()
}

/// An architecture in Go's names, as images have it.
pub(crate) fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_valid_whatever_the_container_is_called() {
        assert_eq!(
            image("default", "web", "0123abcd-1700000000000"),
            "reprise.local/default/web:0123abcd-1700000000000"
        );
        assert_eq!(
            image("k8s.io", "My_App..x-", "a_b.c-1"),
            "reprise.local/k8s-io/my-app-x:a_b.c-1"
        );
        assert_eq!(image("", "__", "a"), "reprise.local/x/x:a");
        let long = format!("{}-17", "a".repeat(200));
        let name = image("n", "c", &long);
        let tag = name.rsplit(':').next().unwrap();
        assert!(tag.len() == 128 && tag.ends_with("a-17"), "{name}");
    }

    #[test]
    fn snapshots_are_kept_by_labels_that_containerd_reads() {
        assert_eq!(
            keeps_data("overlayfs"),
            "containerd.io/gc.ref.snapshot.overlayfs"
        );
        assert_eq!(
            keeps_rootfs("overlayfs"),
            "containerd.io/gc.ref.snapshot.overlayfs/reprise"
        );
        assert_eq!(
            keeps_content("config"),
            "containerd.io/gc.ref.content.config"
        );
    }

    #[test]
    fn an_id_of_theirs_is_one_in_each_namespace() {
        let digest = digest_of(b"a manifest");
        let id = their_id(&digest, "k8s.io", 1_700_000_000_000);
        assert!(id.ends_with("-k8s.io-1700000000000"), "{id}");
        assert_ne!(id, their_id(&digest, "default", 1_700_000_000_000));
        let store = reprise_runtime::store::Store::at(std::path::Path::new("/nonexistent"));
        assert!(matches!(store.load(&id), Ok(None)));
    }

    #[test]
    fn the_name_of_an_unsealed_layer_is_a_digest_of_its_own() {
        let name = data_snapshot("a-1");
        assert_eq!(name.len(), "sha256:".len() + 64);
        assert_ne!(name, data_snapshot("a-2"));
    }
}
