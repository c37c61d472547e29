use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Needs;
use crate::fingerprint::tests::{base, changes, overlay, set, subject};
use crate::fingerprint::{Fingerprint, Hashes, Subject};
use crate::start::Decision;
use crate::volumes::Contents;

fn origin(name: &str) -> Origin {
    Origin {
        namespace: "k8s.io".to_owned(),
        container: format!("id-of-{name}"),
        name: Some(name.to_owned()),
        pod: Some("pod-1".to_owned()),
        pod_namespace: Some("default".to_owned()),
        image: Some(format!("example.com/{name}:1")),
    }
}

fn start(subject: &Subject, name: &str) -> Start {
    let decision = Decision::Cold {
        why: "no_match".to_owned(),
        reason: "no checkpoint matches this container".to_owned(),
    };
    Start::new(decision, origin(name), subject.hashes(), subject.shown())
}

fn manifest(id: &str, subject: &Subject, name: &str) -> Manifest {
    Manifest {
        version: 1,
        id: id.to_owned(),
        fingerprint: subject.fingerprint(),
        origin: origin(name),
        created_unix_s: 0,
        needs: Needs {
            arch: String::new(),
            cpu_features: Vec::new(),
            kernel: String::new(),
            criu_version: 0,
            memory_bytes: 0,
        },
        image_bytes: 0,
        frozen_us: 0,
        layers: Vec::new(),
        files: Vec::new(),
        fields: subject.hashes(),
        shown: subject.shown(),
        base: None,
    }
}

fn changed(changes: &[(&str, &str, Value)]) -> Subject {
    let mut spec = base();
    for (_, path, value) in changes {
        set(&mut spec, path, value.clone());
    }
    subject(&spec)
}

#[test]
fn twenty_and_more_mutated_specs_are_told_by_the_exact_fields() {
    let checkpoint = manifest("abc-1", &subject(&base()), "web");
    assert!(changes().len() >= 20);
    for change in changes() {
        let start = start(&changed(std::slice::from_ref(&change)), "web");
        let near = nearest(&start, [&checkpoint]).unwrap();
        assert_eq!(near.fields, [change.0], "{}", change.1);
        assert!(!near.differences.is_empty(), "{}", change.1);
        for difference in &near.differences {
            assert_eq!(difference.field, change.0);
            assert_ne!(difference.here, difference.there, "{difference:?}");
        }
    }
    // Two at once, and none.
    let pairs = [("args", 4, "user", 8), ("cwd", 5, "mounts", 15)];
    for (one, n, other, m) in pairs {
        let both = [changes()[n].clone(), changes()[m].clone()];
        let near = nearest(&start(&changed(&both), "web"), [&checkpoint]).unwrap();
        assert_eq!(near.fields, [one, other]);
    }
    let same = nearest(&start(&subject(&base()), "web"), [&checkpoint]).unwrap();
    assert!(same.fields.is_empty() && same.differences.is_empty());
}

#[test]
fn differences_have_both_values() {
    let checkpoint = manifest("abc-1", &subject(&base()), "web");
    let told = |path: &str, value: Value| -> Vec<(String, Value, Value)> {
        let near = nearest(&start(&changed(&[("", path, value)]), "web"), [&checkpoint]);
        let differences = near.unwrap().differences.into_iter();
        differences
            .map(|d| (d.what.unwrap_or_default(), d.here, d.there))
            .collect()
    };
    let one = |what: &str, here: Value, there: Value| vec![(what.to_owned(), here, there)];
    assert_eq!(
        told("/process/args/2", json!("b.jar")),
        one("2", json!("b.jar"), json!("app.jar"))
    );
    assert_eq!(
        told("/process/args", json!(["java", "-jar"])),
        one("2", Value::Null, json!("app.jar"))
    );
    assert_eq!(
        told("/process/user/uid", json!(0)),
        one("uid", json!(0), json!(1000))
    );
    assert_eq!(
        told("/mounts/1/options", json!(["rbind", "ro"])),
        one("/etc/hosts options", json!(["ro"]), json!(["rw"]))
    );
    assert_eq!(
        told("/process/capabilities/effective", json!(["CAP_CHOWN"])),
        one("effective", json!(["CAP_CHOWN"]), json!(["CAP_KILL"]))
    );
    let moved = told("/mounts/1/destination", json!("/etc/other"));
    let places: Vec<&str> = moved.iter().map(|(what, ..)| what.as_str()).collect();
    assert_eq!(places, ["/etc/hosts", "/etc/other"]);
}

#[test]
fn secrets_are_not_told() {
    let secret = "hunter2-hunter2";
    let mut spec = base();
    set(&mut spec, "/process/env/2", json!(format!("MODE={secret}")));
    set(
        &mut spec,
        "/process/args",
        json!([
            "java",
            format!("--db-password={secret}"),
            "--token",
            secret,
            "-Dx=y"
        ]),
    );
    let volumes = BTreeMap::from([(
        "/etc/keys".to_owned(),
        BTreeMap::from([("key".to_owned(), format!("0600 {secret}"))]),
    )]);
    let contents = Contents {
        volumes,
        service_account: None,
    };
    let spec = serde_json::from_value(spec).unwrap();
    let subject = Subject::of(&spec, "k8s.io", &overlay("/s/2/fs:/s/1/fs"), &contents).unwrap();
    let checkpoint = manifest("abc-1", &self::subject(&base()), "web");
    let near = nearest(&start(&subject, "web"), [&checkpoint]).unwrap();
    assert_eq!(near.fields, ["args", "env", "volumes"]);
    let what: Vec<&str> = near
        .differences
        .iter()
        .filter_map(|d| d.what.as_deref())
        .collect();
    assert_eq!(what, ["1", "2", "3", "4", "MODE", "/etc/keys"]);
    let text = json!([near, subject.shown()]).to_string();
    assert!(
        !text.contains("hunter2") && text.contains("--db-password=hidden:"),
        "{text}"
    );
    assert!(text.contains("-Dx=y"), "{text}");
}

#[test]
fn the_nearest_has_the_same_name_and_the_fewest_differences() {
    let changes = changes();
    let container = start(&subject(&base()), "web");
    let two = changed(&[changes[4].clone(), changes[8].clone()]);
    let all = [
        manifest("other-name", &subject(&base()), "db"),
        manifest(
            "three",
            &changed(&[changes[4].clone(), changes[5].clone(), changes[8].clone()]),
            "web",
        ),
        manifest("two", &two, "web"),
        manifest("two-older", &two, "web"),
    ];
    assert_eq!(nearest(&container, &all).unwrap().checkpoint, "two");
    assert_eq!(
        nearest(&container, &all[..1]).unwrap().checkpoint,
        "other-name"
    );
    let mut foreign = manifest("foreign", &two, "web");
    foreign.fields = Hashes::default();
    assert_eq!(nearest(&container, [&foreign]), None);
    let mut unknown = container;
    unknown.fields = Hashes::default();
    assert_eq!(nearest(&unknown, &all), None);
    assert_eq!(Fingerprint::of(&all[0].fields), all[0].fingerprint);
}

#[test]
fn images_are_told_by_name() {
    let spec = serde_json::from_value(base()).unwrap();
    let of = |lower| Subject::of(&spec, "k8s.io", &overlay(lower), &Contents::default()).unwrap();
    let checkpoint = manifest("abc-1", &of("/s/1/fs"), "web");
    let mut other = start(&of("/s/9/fs"), "web");
    other.origin.image = Some("example.com/web:2".to_owned());
    let near = nearest(&other, [&checkpoint]).unwrap();
    assert_eq!(near.fields, ["image"]);
    let name = near
        .differences
        .iter()
        .find(|d| d.what.as_deref() == Some("name"))
        .unwrap();
    assert_eq!(name.here, json!("example.com/web:2"));
    assert_eq!(name.there, json!("example.com/web:1"));
}
