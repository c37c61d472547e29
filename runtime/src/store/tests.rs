use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::{Needs, Origin};
use crate::fingerprint::{Hashes, Shown};
use crate::maker::Maker;

fn fingerprint(n: u8) -> Fingerprint {
    Fingerprint::try_from(format!("v2-{n:064x}")).unwrap()
}

fn manifest(n: u8) -> Manifest {
    Manifest {
        version: 0,
        id: String::new(),
        fingerprint: fingerprint(n),
        origin: Origin {
            namespace: "k8s.io".to_owned(),
            container: "abc".to_owned(),
            name: Some("web".to_owned()),
            pod: None,
            pod_namespace: None,
            image: None,
        },
        created_unix_s: 1,
        needs: Needs {
            arch: "x86_64".to_owned(),
            cpu_features: Vec::new(),
            kernel: "6.18".to_owned(),
            criu_version: 40_201,
            memory_bytes: 1,
        },
        image_bytes: 0,
        frozen_us: 5,
        layers: Vec::new(),
        files: Vec::new(),
        fields: Hashes::default(),
        shown: Shown::default(),
        base: None,
    }
}

fn room() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(&dir.path().join("lib"));
    (dir, store)
}

/// A record whose images and layers lie beside the store, as in snapshots.
fn record(store: &Store, n: u8) -> Record {
    let id = store.new_id("abc").unwrap();
    let snapshots = store.root.with_file_name("snapshots").join(&id);
    let (images, rootfs) = (snapshots.join("checkpoint"), snapshots.join("rootfs"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(rootfs.join("0")).unwrap();
    fs::write(images.join("pages-1.img"), "pages").unwrap();
    let mut manifest = Manifest { id, ..manifest(n) };
    complete(&mut manifest, &images, &rootfs).unwrap();
    Record {
        manifest,
        images,
        rootfs,
        source: Source {
            version: SOURCE_VERSION,
            namespace: "k8s.io".to_owned(),
            names: vec!["reprise.local/x/web:1".to_owned()],
            digest: "sha256:00".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            data: "sha256:01".to_owned(),
            rootfs: "reprise-rootfs-1".to_owned(),
        },
        durable: false,
    }
}

fn put(store: &Store, n: u8) -> Stored {
    store.record(&record(store, n)).unwrap()
}

#[test]
fn what_is_committed_is_found_and_nothing_else() {
    let (_dir, store) = room();
    assert!(store.find(&fingerprint(1)).unwrap().is_none());
    let stored = put(&store, 1);
    let found = store.find(&fingerprint(1)).unwrap().unwrap();
    assert_eq!(found.manifest(), stored.manifest());
    assert_eq!(found.manifest().image_bytes, 5);
    assert_eq!(found.layers().len(), 1);
    assert!(store.find(&fingerprint(2)).unwrap().is_none());
    assert!(names(&store.staging()).unwrap().is_empty());
    let mode = fs::metadata(found.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_record_leads_to_its_snapshots_and_says_where_they_are() {
    let (_dir, store) = room();
    let record = record(&store, 1);
    let stored = store.record(&record).unwrap();
    assert_eq!(stored.images(), record.images);
    assert_eq!(stored.layers(), [record.rootfs.join("0")]);
    assert_eq!(stored.source().unwrap(), record.source);
    assert_eq!(store.source(stored.id()).unwrap(), record.source);
    // A record that a later build wrote.
    let later = fs::read_to_string(stored.dir().join("image")).unwrap();
    let later = later.replace("\"version\": 1", "\"version\": 9");
    fs::write(stored.dir().join("image"), later).unwrap();
    let error = stored.source().unwrap_err();
    assert!(error.message.contains("version 9"), "{error}");
}

#[test]
fn a_record_is_replaced_by_one_of_the_same_id() {
    let (_dir, store) = room();
    let mut record = record(&store, 1);
    store.record(&record).unwrap();
    record.durable = true;
    store.record(&record).unwrap();
    assert!(store.find(&fingerprint(1)).unwrap().unwrap().is_durable());
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(names(&store.staging()).unwrap().is_empty());
}

#[test]
fn a_newer_one_supersedes_and_removal_brings_the_older_back() {
    let (dir, store) = room();
    let old = put(&store, 1);
    let new = put(&store, 1);
    assert_eq!(store.find(&fingerprint(1)).unwrap().unwrap().id(), new.id());
    store.remove(new.id(), dir.path()).unwrap();
    assert_eq!(store.find(&fingerprint(1)).unwrap().unwrap().id(), old.id());
    store.remove(old.id(), dir.path()).unwrap();
    assert!(store.find(&fingerprint(1)).unwrap().is_none());
    assert_eq!(
        store.remove(old.id(), dir.path()).unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert!(names(&store.index()).unwrap().is_empty());
    assert!(names(&store.staging()).unwrap().is_empty());
}

#[test]
fn one_in_use_is_not_removed() {
    let (dir, store) = room();
    let stored = put(&store, 1);
    let user = dir.path().join("run/k8s.io/xyz");
    fs::create_dir_all(&user).unwrap();
    fs::write(user.join("restored-from"), format!("{}\n", stored.id())).unwrap();
    let error = store
        .remove(stored.id(), &dir.path().join("run"))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::FailedPrecondition);
    assert!(error.message.contains("k8s.io/xyz"), "{error}");
    assert!(store.find(&fingerprint(1)).unwrap().is_some());
}

#[test]
fn damage_is_noticed_with_its_reason() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 9] = [
        (
            |d| fs::write(d.join("images/pages-1.img"), "pag").unwrap(),
            "3 bytes instead of 5",
        ),
        (
            |d| fs::remove_file(d.join("images/pages-1.img")).unwrap(),
            "cannot be found",
        ),
        (
            |d| fs::remove_dir_all(fs::read_link(d.join("images")).unwrap()).unwrap(),
            "cannot be found",
        ),
        (
            |d| fs::write(d.join("manifest.json"), "{").unwrap(),
            "not readable",
        ),
        (
            |d| fs::remove_file(d.join("manifest.json")).unwrap(),
            "no manifest",
        ),
        (
            |d| fs::write(d.join("manifest.json"), r#"{"version":7}"#).unwrap(),
            "reads version 1",
        ),
        (|d| fs::remove_dir(d.join("rootfs/0")).unwrap(), "layer"),
        (
            |d| fs::write(d.join("boot"), "another").unwrap(),
            "before it had reached the disk",
        ),
        (
            |d| {
                let text = fs::read_to_string(d.join("manifest.json")).unwrap();
                let text = text.replace("\"pages-1.img\"", "\"../../../etc/passwd\"");
                fs::write(d.join("manifest.json"), text).unwrap();
            },
            "names a file",
        ),
    ];
    for (damage, expected) in cases {
        let (_dir, store) = room();
        let stored = put(&store, 1);
        damage(stored.dir());
        let error = store.find(&fingerprint(1)).unwrap_err();
        assert!(error.message.contains(expected), "{expected}: {error}");
        assert!(error.message.contains(stored.id()), "{error}");
        assert!(store.list().unwrap().is_empty());
        assert!(store.entries().unwrap()[0].1.is_err());
    }
}

#[test]
fn a_settled_one_outlives_the_boot() {
    let (_dir, store) = room();
    let stored = put(&store, 1);
    stored.mark_durable().unwrap();
    assert!(stored.is_durable());
    fs::write(stored.dir().join("boot"), "another").unwrap();
    assert!(store.find(&fingerprint(1)).unwrap().is_some());
}

#[test]
fn a_lost_dangling_or_wrong_index_is_a_miss_until_rebuilt() {
    let (_dir, store) = room();
    let stored = put(&store, 1);
    fs::remove_dir_all(store.index()).unwrap();
    assert!(store.find(&fingerprint(1)).unwrap().is_none());
    make_dir(&store.index()).unwrap();
    symlink(
        "../checkpoints/gone-1",
        store.index().join(fingerprint(2).as_str()),
    )
    .unwrap();
    assert!(store.find(&fingerprint(2)).unwrap().is_none());
    for bad in ["/etc", "../checkpoints/../../x", "../checkpoints/a/b", "x"] {
        let link = store.index().join(fingerprint(3).as_str());
        remove_file(&link).unwrap();
        symlink(bad, link).unwrap();
        assert!(store.find(&fingerprint(3)).is_err(), "{bad}");
    }
    symlink(
        index_target(stored.id()),
        store.index().join(fingerprint(4).as_str()),
    )
    .unwrap();
    assert!(
        store
            .find(&fingerprint(4))
            .unwrap_err()
            .message
            .contains("another fingerprint")
    );
    assert_eq!(store.rebuild_index().unwrap(), 1);
    assert!(store.find(&fingerprint(1)).unwrap().is_some());
    assert_eq!(names(&store.index()).unwrap().len(), 1);
}

#[test]
fn a_disk_that_refuses_leaves_the_store_as_it_was() {
    let (_dir, store) = room();
    put(&store, 1);
    // The index is not a directory: commit cannot finish.
    fs::remove_dir_all(store.index()).unwrap();
    fs::write(store.index(), "").unwrap();
    store.record(&record(&store, 2)).unwrap_err();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(names(&store.staging()).unwrap().is_empty());
    // Nor can anything begin where the store's root is a file.
    let file = tempfile::NamedTempFile::new().unwrap();
    let nowhere = Store::at(file.path());
    nowhere.record(&record(&store, 2)).unwrap_err();
}

#[test]
fn what_the_dead_have_left_is_swept_and_nothing_of_the_living() {
    let (_dir, store) = room();
    let me = Maker::me().to_string();
    let gone = "left-1".to_owned();
    let dead = format!("b-1@{}.0.{}", i32::MAX, me.splitn(3, '.').nth(2).unwrap());
    let mine = format!("c-1.removed@{me}");
    for name in [&gone, &dead, &mine] {
        make_dir(&store.staging().join(name)).unwrap();
    }
    put(&store, 1);
    assert_eq!(names(&store.staging()).unwrap(), [mine]);
}

#[test]
fn ids_that_lead_elsewhere_are_refused() {
    let (_dir, store) = room();
    for bad in ["", "..", "a/b", "../x", ".hidden", "a b", "a\0"] {
        assert_eq!(
            store.new_id(bad).unwrap_err().kind,
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
        assert_eq!(
            store.load(bad).unwrap_err().kind,
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
    }
}
