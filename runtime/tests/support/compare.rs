//! Cases that run under us and under runc, and what is compared.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::Case;

/// Runs the case under both and expects the same.
pub fn same(case: &mut Case) -> (i32, String) {
    let theirs = case.run_under_runc();
    let ours = case.run_or_refuse();
    let normal = |(code, text): &(i32, String)| (*code, normalised(text, &case.id));
    let (own, their) = (normal(&ours), normal(&theirs));
    let only = |of: &str, not: &str| -> Vec<String> {
        let lines = of
            .lines()
            .filter(|line| !not.lines().any(|other| other == *line));
        lines.map(str::to_owned).collect()
    };
    assert!(
        own == their,
        "exit codes {} and {}\nonly ours: {:#?}\nonly runc's: {:#?}\n{}",
        own.0,
        their.0,
        only(&own.1, &their.1),
        only(&their.1, &own.1),
        case.spec
    );
    ours
}

/// Runs it under both, expects both to refuse it, and in the same final words.
pub fn both_refuse(case: &mut Case) {
    let (code, theirs) = case.run_under_runc();
    let (own_code, ours) = case.run_or_refuse();
    eprintln!("runc: {theirs}ours: {ours}");
    assert_ne!(code, 0, "runc does not refuse: {theirs}");
    assert_ne!(own_code, 0, "we do not refuse: {ours}");
    let roots = ["runc/rootfs", "bundle/rootfs"].map(|at| case.dir.join(at));
    let last = |text: &str| {
        let [theirs, ours] = &roots;
        let text = text
            .replace(&theirs.display().to_string(), &ours.display().to_string())
            .replace("\\\"", "\"");
        let line = text.trim().lines().last().unwrap_or_default();
        let text = line.rsplit(": ").next().unwrap_or_default();
        text.trim_matches('"').to_owned()
    };
    assert_eq!(last(&ours), last(&theirs), "{ours}\n{theirs}");
}

/// Without what differs from run to run: names of the case, numbers of mounts, and
/// with these their order.
fn normalised(text: &str, id: &str) -> String {
    let text = text
        .replace(&format!("{id}-runc"), "ID")
        .replace(&format!("/run/reprise-unit/{id}/runc/"), "DIR/")
        .replace(&format!("/run/reprise-unit/{id}/"), "DIR/")
        .replace(id, "ID");
    let (mut mounts, mut others) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match mount_line(line) {
            Some(mount) => mounts.push(mount),
            None => others.push(line.to_owned()),
        }
    }
    mounts.sort();
    [mounts, others].concat().join("\n")
}

/// A line of mountinfo without its numbers.
fn mount_line(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let fields: Vec<&str> = left.split(' ').collect();
    let [_, _, _, root, at, options, tags @ ..] = fields.as_slice() else {
        return None;
    };
    let tags: Vec<&str> = tags
        .iter()
        .map(|tag| tag.split(':').next().unwrap())
        .collect();
    let fs: Vec<&str> = right.split(' ').collect();
    let own = if fs[0] == "overlay" { "" } else { fs[2] };
    Some(format!(
        "{root} {at} {options} {tags:?} {} {} {own}",
        fs[0], fs[1]
    ))
}

pub fn sh(script: &str) -> Case {
    Case::new(&["sh", "-c", script])
}

pub fn bind(source: &Path, at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "bind", "source": source, "options": options})
}

pub fn tmpfs(at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// A mount of the node, gone when dropped.
pub struct Host(pub PathBuf);

impl Host {
    pub fn tmpfs(case: &Case, name: &str, flags: MsFlags) -> Self {
        let at = case.dir.join(name);
        fs::create_dir_all(&at).unwrap();
        mount(Some("tmpfs"), &at, Some("tmpfs"), flags, None::<&str>).unwrap();
        Self(at)
    }

    pub fn propagate(&self, flags: MsFlags) {
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
