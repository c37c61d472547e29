//! With the small files of real archives: containerd 2.3 with runc 1.5, and Podman
//! 4.3 with the same, both with CRIU 4.2.1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::record::{Kind, Record};
use super::inventory::{self, Inventory};
use super::*;
use crate::error::ErrorKind;

/// A copy of an archive that a test may spoil.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let to = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/worker/foreign/testdata");
        copy(&from.join(name), to.path());
        Self(to)
    }

    fn images(&self) -> PathBuf {
        self.0.path().join("checkpoint")
    }

    fn adapt(&self) -> Result<Changes, crate::Error> {
        let archive = Archive::read(self.0.path())?;
        adapt(&self.images(), &archive.spec)
    }

    fn why_not(&self) -> String {
        self.adapt().unwrap_err().message
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn an_archive_says_who_it_was() {
    let containerd = Copy::of("containerd");
    let archive = Archive::read(containerd.0.path()).unwrap();
    assert_eq!(archive.engine, Engine::Containerd);
    assert_eq!(archive.origin.name.as_deref(), Some("app"));
    assert_eq!(archive.origin.pod.as_deref(), Some("foreign-runc"));
    assert_eq!(archive.needs.criu_version, 40201);
    assert_eq!(archive.needs.arch, "x86_64");
    assert_eq!(archive.needs.kernel, "6.18.44-fc-v657");

    let podman = Copy::of("podman");
    let podman = Archive::read(podman.0.path()).unwrap();
    assert_eq!(podman.engine, Engine::Podman);
    assert_eq!(podman.origin.name.as_deref(), Some("h"));
    assert_eq!(podman.origin.pod, None);
    // Both were made from the same image, whose id they write differently.
    assert_eq!(podman.base, archive.base);
    assert!(archive.base.config.unwrap().starts_with("sha256:01243760"));
}

#[test]
fn the_namespaces_become_those_of_criu_and_all_else_stays() {
    let archive = Copy::of("containerd");
    let changes = archive.adapt().unwrap();
    let before = fs::read(archive.images().join("inventory.img")).unwrap();
    changes.write(&archive.images()).unwrap();
    let after = fs::read(archive.images().join("inventory.img")).unwrap();
    // CRIU's run id, of which we know nothing, is still there.
    let id = b"6ed458e0-8529-4d1b-aaad-b761489d2146";
    let has = |bytes: &[u8]| bytes.windows(id.len()).any(|at| at == id);
    assert!(has(&before) && has(&after));
    assert_eq!(after.len(), before.len());

    let init = inventory::ids(&fs::read(archive.images().join("ids-1.img")).unwrap()).unwrap();
    assert!(!Inventory::parse(&before).unwrap().is_in_pod(&init));
    assert!(Inventory::parse(&after).unwrap().is_in_pod(&init));
    // Now they are ours, and nothing is left to do.
    let spec = Archive::read(archive.0.path()).unwrap().spec;
    assert_eq!(adapt(&archive.images(), &spec).unwrap(), Changes::default());
}

#[test]
fn mounts_are_made_as_a_cold_start_makes_them() {
    let kinds = |name: &str| -> BTreeMap<PathBuf, Kind> {
        let archive = Copy::of(name);
        archive.adapt().unwrap().write(&archive.images()).unwrap();
        Record::read(&archive.images()).unwrap().mounts
    };
    let containerd = kinds("containerd");
    let of = |at: &str| containerd.get(Path::new(at));
    assert_eq!(of("/dev"), Some(&Kind::Dev));
    assert_eq!(of("/etc/hosts"), Some(&Kind::Bind));
    assert_eq!(of("/sys/fs/cgroup"), Some(&Kind::CgroupRoot));
    assert_eq!(of("/sys/fs/cgroup/memory"), Some(&Kind::Cgroup));
    // CRIU's own: no device, no file in them comes from the image.
    for its in ["/", "/proc", "/dev/pts", "/dev/mqueue", "/sys"] {
        assert_eq!(of(its), None, "{its}");
    }
    let podman = kinds("podman");
    assert_eq!(podman.get(Path::new("/proc/keys")), Some(&Kind::MaskedFile));
    assert_eq!(podman.get(Path::new("/proc/acpi")), Some(&Kind::MaskedDir));
}

#[test]
fn the_others_are_linked_and_the_original_stays_as_it_is() {
    let archive = Copy::of("containerd");
    let changes = archive.adapt().unwrap();
    let before = fs::read(archive.images().join("inventory.img")).unwrap();
    let to = archive.0.path().join("ours");
    changes.link_beside(&archive.images(), &to).unwrap();
    assert_eq!(
        fs::read_link(to.join("core-1.img")).unwrap(),
        archive.images().join("core-1.img")
    );
    assert!(
        fs::symlink_metadata(to.join("inventory.img"))
            .unwrap()
            .is_file()
    );
    let record = Record::read(&to).unwrap();
    assert_eq!(
        record.descriptors.first().map(String::as_str),
        Some("/dev/null")
    );
    assert_eq!(
        fs::read(archive.images().join("inventory.img")).unwrap(),
        before
    );
    assert!(!archive.images().join("reprise.json").exists());
}

#[test]
fn what_cannot_be_restored_is_explained() {
    let without = |file: &str| {
        let archive = Copy::of("containerd");
        fs::remove_file(archive.images().join(file)).unwrap();
        archive.why_not()
    };
    assert!(without("descriptors.json").contains("no descriptors.json"));
    assert!(without("inventory.img").contains("no inventory.img"));
    let with = |file: &str| {
        let archive = Copy::of("containerd");
        fs::write(archive.images().join(file), "").unwrap();
        archive.why_not()
    };
    assert!(with("parent").contains("earlier checkpoint"));
    assert!(with("ipcns-shm-11.img").contains("SysV"));
    assert!(with("mountpoints-14.img").contains("more than one mount namespace"));

    // The pids of a shared namespace begin anywhere.
    let archive = Copy::of("containerd");
    let pstree = archive.images().join("pstree.img");
    let mut bytes = fs::read(&pstree).unwrap();
    assert_eq!(bytes[12..14], [8, 1]);
    bytes[13] = 77;
    fs::write(&pstree, bytes).unwrap();
    assert!(archive.why_not().contains("shares its pid namespace"));
}

#[test]
fn files_that_are_none_are_not_read() {
    let archive = Copy::of("containerd");
    let mounts = archive.images().join("mountpoints-13.img");
    fs::remove_file(&mounts).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &mounts).unwrap();
    assert!(archive.why_not().contains("not a regular file"));

    let archive = Copy::of("containerd");
    let ids = archive.images().join("ids-12.img");
    fs::File::options()
        .write(true)
        .open(ids)
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    assert!(archive.why_not().contains("more than 4194304 bytes"));

    let archive = Copy::of("containerd");
    fs::rename(archive.images(), archive.0.path().join("other")).unwrap();
    std::os::unix::fs::symlink("other", archive.images()).unwrap();
    assert!(archive.why_not().contains("is not a directory"));

    let archive = Copy::of("containerd");
    fs::remove_file(archive.0.path().join("spec.dump")).unwrap();
    fs::create_dir(archive.0.path().join("spec.dump")).unwrap();
    let error = archive.adapt().unwrap_err();
    assert!(error.message.contains("not a regular file"), "{error}");
}

#[test]
fn runc_gets_back_what_it_knows() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let archive = Copy::of("podman");
    let spec = Archive::read(archive.0.path()).unwrap().spec;
    archive.adapt().unwrap().write(&archive.images()).unwrap();
    let ours = fs::read(archive.images().join("inventory.img")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let changes = for_runc(&archive.images(), &spec, scratch.path()).unwrap();
    let init = inventory::ids(&fs::read(archive.images().join("ids-1.img")).unwrap()).unwrap();
    assert!(Inventory::parse(&ours).unwrap().is_in_pod(&init));
    assert!(
        !Inventory::parse(&changes.files["inventory.img"])
            .unwrap()
            .is_in_pod(&init)
    );
    // The tmpfs that Podman's image had: /dev, the cgroups', the one of all masks.
    let names: Vec<&str> = changes.files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "inventory.img",
            "ipcns-var-11.img",
            "mountpoints-13.img",
            "netns-10.img",
            "tmpfs-dev-44.tar.gz.img",
            "tmpfs-dev-81.tar.gz.img",
            "tmpfs-dev-86.tar.gz.img",
            "utsns-12.img"
        ]
    );
    // Once more, and they are runc's as they were, but for what only we know.
    let record = Record::read(&archive.images()).unwrap();
    assert_eq!(record.mounts[Path::new("/dev")], Kind::Dev);
    let foreign = Copy::of("containerd");
    let spec = Archive::read(foreign.0.path()).unwrap().spec;
    let refusal = for_runc(&foreign.images(), &spec, scratch.path()).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::FailedPrecondition);
}

/// A change to one file of an archive.
#[derive(Debug, Clone)]
enum Harm {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove,
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Harm::Cut),
        (at(), 1_u8..).prop_map(|(at, bits)| Harm::Flip(at, bits)),
        (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, b)| Harm::Insert(at, b)),
        Just(Harm::Remove),
    ]
}

const FILES: [&str; 9] = [
    "config.dump",
    "spec.dump",
    "checkpoint/inventory.img",
    "checkpoint/pstree.img",
    "checkpoint/core-1.img",
    "checkpoint/ids-1.img",
    "checkpoint/ids-12.img",
    "checkpoint/mountpoints-13.img",
    "checkpoint/descriptors.json",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is done to an archive: it is refused in one line, or what comes out
    /// is whole and can be read again.
    #[test]
    fn a_spoiled_archive_is_refused_or_adapted(
        harms in prop::collection::vec((0..FILES.len(), harm()), 1..4)
    ) {
        let archive = Copy::of("containerd");
        for (file, harm) in harms {
            let file = archive.0.path().join(FILES[file]);
            let Ok(mut bytes) = fs::read(&file) else { continue };
            match harm {
                Harm::Remove => {
                    fs::remove_file(&file).unwrap();
                    continue;
                }
                _ if bytes.is_empty() => continue,
                Harm::Cut(at) => bytes.truncate(at.index(bytes.len())),
                Harm::Flip(at, bits) => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                }
                Harm::Insert(at, more) => {
                    let at = at.index(bytes.len());
                    bytes.splice(at..at, more);
                }
            }
            fs::write(&file, bytes).unwrap();
        }
        match archive.adapt() {
            Err(error) => prop_assert!(!error.message.contains('\n'), "{error}"),
            Ok(changes) => {
                changes.write(&archive.images()).unwrap();
                let record = Record::read(&archive.images());
                prop_assert!(record.is_ok(), "{record:?}");
            }
        }
    }
}
