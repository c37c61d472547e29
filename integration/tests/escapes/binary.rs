//! CVE-2019-5736: overwrite the program that makes containers. Libraries of the image
//! run in it when its entrypoint is `/proc/self/exe`, at create and at exec; and a
//! neighbour in the pod's pid namespace reaches for `/proc/PID/exe` of all that is born
//! there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration::cri::proto::NamespaceMode;
use integration::programs::BUSYBOX;
use integration::{ContainerSpec, Node, PodSpec, eventually};

use crate::round::{Outcome, Round, arm, attempts};

const SHIM: &str = "containerd-shim-reprise-v2";

/// The node's shim becomes a copy: should an attack succeed, nobody else is hit.
fn copy_of_the_shim(node: &Node) -> Result<PathBuf> {
    let copy = node.dir().join("copy").join(SHIM);
    fs::create_dir(node.dir().join("copy"))?;
    fs::copy(node.tools().program(SHIM), &copy)?;
    let link = node.dir().join("bin").join(SHIM);
    fs::remove_file(&link)?;
    std::os::unix::fs::symlink(&copy, link)?;
    Ok(copy)
}

/// The directories of libraries that the shim needs, as an image would bring them:
/// where they are in the container, and copies of them on the node.
fn libraries(node: &Node, shim: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let ldd = Command::new("ldd").arg(shim).output().context("ldd")?;
    let text = String::from_utf8(ldd.stdout)?;
    let mut all = Vec::new();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let library = Path::new(library);
        let dir = library.parent().context("a library in no directory")?;
        let copies = node.dir().join("libraries").join(dir.strip_prefix("/")?);
        fs::create_dir_all(&copies)?;
        fs::copy(
            library,
            copies.join(library.file_name().unwrap_or_default()),
        )?;
        let place = (dir.to_owned(), copies);
        if !all.contains(&place) {
            all.push(place);
        }
    }
    Ok(all)
}

#[test]
fn our_binary_is_not_overwritten() -> Result<()> {
    let node = Node::start()?;
    let attack = arm(&node)?;
    let shim = copy_of_the_shim(&node)?;
    let pod = PodSpec::new("escapes", "binary").pid_namespace(NamespaceMode::Pod);
    let mut round = Round::new(&node, &pod, std::slice::from_ref(&shim))?;
    let libraries = libraries(&node, &shim)?;
    let armed = |spec: ContainerSpec| {
        let mut spec = spec
            .pid_namespace(NamespaceMode::Pod)
            .env("LD_PRELOAD", "/attack/library.so")
            .mount(&attack.display().to_string(), "/attack", false);
        for (place, copies) in &libraries {
            let [to, from] = [place, copies].map(|path| path.display().to_string());
            spec = spec.mount(&from, &to, true);
        }
        // What helps most: root that may look into others.
        for name in ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"] {
            spec = spec.capability(name);
        }
        spec
    };
    let watch = ["/attack/attacker", "watch", "/attack/report"];
    round.pod.run(&armed(
        ContainerSpec::new(BUSYBOX)
            .name("neighbour")
            .command(&watch),
    ))?;
    let report = attack.join("report");
    eventually("the neighbour's report file", || report.exists())?;
    let running = ContainerSpec::shell("sleep 1000").name("running");
    let running = round.pod.run(&armed(running))?;
    let fresh = armed(ContainerSpec::new(BUSYBOX).command(&["/proc/self/exe"]));
    for n in 0..attempts() {
        let outcome = if n % 2 == 0 {
            round.container(&fresh)?
        } else {
            match running.exec(&["/proc/self/exe"]) {
                Err(refused) => Outcome::Refused(format!("{refused:#}")),
                Ok(done) => Outcome::Ran(done.stdout + &done.stderr),
            }
        };
        round.hear(outcome)?;
        let told = fs::read_to_string(&report)?;
        ensure!(!told.contains("BREACH"), "the neighbour: {told}");
    }
    let told = fs::read_to_string(&report)?;
    println!("the neighbour: {}", told.trim());
    ensure!(
        told.contains("read-only ") && !told.contains("read-only 0"),
        "{told}"
    );
    let ran = if libraries.is_empty() {
        // As it ships it is linked statically, so that the image's libraries do nothing:
        // it says itself that it was called wrongly. The neighbour is the attack.
        "ran: io.containerd.reprise.v2: InvalidArgument"
    } else {
        // The attacker's code ran in our program, by both ways.
        "ran: the runtime's program: Read-only file system"
    };
    round.close(false, &[ran])
}
