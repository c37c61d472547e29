//! CVE-2025-52881: the runtime writes sysctls below `/proc` after the mounts; a volume
//! there, or a `/proc` that is a link into a volume that a neighbour swaps, would catch
//! the writes, or send them to the host's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use integration::{Node, PodSpec};
use serde_json::json;

use crate::bare::{Bare, bind, mounts};
use crate::round::{Neighbour, Outcome, Round, arm, attempts};

/// Tells whether the sysctls are its own, and whether anything false is below `/proc`.
const SCRIPT: &str = "[ \"$(cat /proc/sys/kernel/shmmax)\" = 7654321 ] || echo BREACH shmmax; \
    [ \"$(cat /proc/sys/net/ipv4/ip_default_ttl)\" = 77 ] || echo BREACH ttl; \
    grep '/false.* /proc' /proc/self/mountinfo && echo BREACH mounted; \
    echo written where they belong";

/// A container of `ctr run`, with the sysctls, and a volume with more in it.
fn container(bare: &Bare<'_>, volume: &Path, falsehood: &Path, n: usize) -> Result<Outcome> {
    let id = format!("redirect-{n}");
    let mut spec = bare.spec(&id, SCRIPT);
    spec["linux"]["sysctl"] = json!({"kernel.shmmax": "7654321", "net.ipv4.ip_default_ttl": "77"});
    let false_at = |sub: &str, to: &str| bind(&falsehood.join(sub), to);
    let all = mounts(&mut spec);
    match n % 4 {
        0 => all.push(false_at("sys/kernel", "/vol/p/sys/kernel")),
        1 => all.push(false_at("sys/net/ipv4", "/vol/p/sys/net/ipv4")),
        2 => all.push(false_at("self/attr", "/vol/p/self/attr")),
        _ => {}
    }
    let link = n % 4 == 3;
    let at = if link { 0 } else { all.len() - 1 };
    all.insert(at, bind(volume, "/vol"));
    bare.run(&id, &spec, |image| {
        // The image's /proc is a link into the volume.
        if link {
            symlink("/vol/p", image.join("proc"))?;
        }
        Ok(())
    })
}

#[test]
fn writes_to_proc_are_not_redirected() -> Result<()> {
    let node = Node::start()?;
    let attack = arm(&node)?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "redirect"), &[])?;
    let (volume, falsehood) = (node.dir().join("volume"), node.dir().join("false"));
    for sub in ["sys/kernel", "sys/net/ipv4", "self/attr"] {
        fs::create_dir_all(volume.join("p").join(sub))?;
        fs::create_dir_all(falsehood.join(sub))?;
    }
    for file in [
        "sys/kernel/shmmax",
        "sys/net/ipv4/ip_default_ttl",
        "self/attr/exec",
    ] {
        fs::write(falsehood.join(file), "")?;
    }
    symlink("/proc", volume.join("q"))?;
    let neighbour = Neighbour::swapping(&round.pod, &attack, &volume, ["p", "q"])?;
    let bare = Bare::new(&node)?;
    for n in 0..attempts() as usize {
        let attempt = |_: &Round<'_>| container(&bare, &volume, &falsehood, n);
        round.raced(&[&neighbour], attempt)?;
    }
    // Nothing of what the runtime wrote landed in the volume.
    for file in [
        "sys/kernel/shmmax",
        "sys/net/ipv4/ip_default_ttl",
        "self/attr/exec",
    ] {
        assert_eq!(fs::read_to_string(falsehood.join(file))?, "", "{file}");
    }
    round.close(true, &["refused", "written where they belong"])
}
