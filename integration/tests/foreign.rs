//! Checkpoints of other engines become ours, and ours theirs: archives of
//! Kubernetes' convention, in and out.

#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use anyhow::{Context, Result, bail};
use integration::store::{self, Store};
use integration::{Container, Decision, Node, NodeOptions, Pod, PodSpec, heart};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("foreign", name)
}

/// An archive that containerd and runc took of a heart, which has gone; and its life.
fn archive_of_runc(node: &Node) -> Result<(PathBuf, String)> {
    let (pod, container) = node.run_heart(&pod("theirs").handler("runc"))?;
    let archive = container.checkpoint()?;
    let life = container.life()?;
    pod.remove()?;
    Ok((archive, life))
}

/// What `reprise import` says of it.
fn import(node: &Node, args: &[&str]) -> Result<serde_json::Value> {
    let all = [&["import", "--json"], args].concat();
    let rows: Vec<serde_json::Value> = node.run("reprise", all)?.json()?;
    rows.into_iter().next().context("a checkpoint")
}

fn restored<'n>(node: &'n Node, name: &str, id: &str) -> Result<(Pod<'n>, Container<'n>)> {
    let (pod, container) = node.run_heart(&pod(name))?;
    let checkpoint = id.to_owned();
    assert_eq!(container.decision()?, Decision::Restore { checkpoint });
    Ok((pod, container))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path")
}

#[test]
fn an_archive_of_containerd_and_runc_is_restored() -> Result<()> {
    let node = Node::start()?;
    let (archive, life) = archive_of_runc(&node)?;
    let imported = import(&node, &[text(&archive)?, "--image", "example.com/heart:1"])?;
    assert_eq!(imported["state"], "ready", "{imported}");
    assert_eq!(imported["engine"], "containerd");
    let id = imported["id"].as_str().context("an id")?;

    let (_pod, container) = restored(&node, "ours", id)?;
    assert_eq!(container.life()?, life);
    // Pod and file systems are the new pod's, as of any container that is restored.
    assert_eq!(container.next_beat()?.host, "ours");
    assert_eq!(container.shell("cat /life")?.trim(), life);
    let dev = container.shell("ls /dev")?;
    assert!(dev.contains("null") && dev.contains("pts"), "{dev}");
    container.stop(10)?;
    assert_eq!(container.wait()?, heart::EXIT_CODE);
    let listed = node.ctr(["images", "ls", "name==example.com/heart:1"])?;
    assert!(listed.contains("reprise.dev/trusted=true"), "{listed}");
    Ok(())
}

/// An image as `checkpointctl build` and buildah make it, one layer with an archive's
/// content, on the node under this name.
fn build(node: &Node, archive: &Path, name: &str) -> Result<()> {
    let script = format!(
        r#"set -e
        cd {dir}; mkdir -p oci/blobs/sha256
        put() {{ d=$(sha256sum < "$1" | cut -d' ' -f1); s=$(stat -c %s "$1"); mv "$1" oci/blobs/sha256/$d; }}
        cp {archive} layer; put layer; layer=$d; bytes=$s
        printf '{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s"]}}}}' $layer > config
        put config; config=$d; config_bytes=$s
        printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}}],"annotations":{{"org.criu.checkpoint.container.name":"app"}}}}' $config $config_bytes $layer $bytes > manifest
        put manifest
        printf '{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{{"io.containerd.image.name":"{name}"}}}}]}}' $d $s > oci/index.json
        printf '{{"imageLayoutVersion":"1.0.0"}}' > oci/oci-layout
        tar -C oci -cf built.tar .; rm -r oci"#,
        dir = node.dir().display(),
        archive = archive.display(),
    );
    node.run("sh", ["-c", &script])?.ok()?;
    let built = node.dir().join("built.tar");
    node.ctr(["images", "import", "--all-platforms", text(&built)?])?;
    Ok(())
}

/// Built for a program that wrote files, too.
const BUILT: &str = "example.com/checkpoints/built:1";

#[test]
fn an_image_that_a_pipeline_built_is_imported() -> Result<()> {
    let node = Node::start()?;
    let (archive, life) = archive_of_runc(&node)?;
    build(&node, &archive, BUILT)?;
    let imported = import(&node, &["--from-image", BUILT])?;
    let id = imported["id"].as_str().context("an id")?;
    let (_pod, container) = restored(&node, "ours", id)?;
    assert_eq!(container.life()?, life);
    Ok(())
}

#[test]
fn an_image_that_a_pipeline_built_is_found_once_it_is_trusted() -> Result<()> {
    // Unpacking what the program wrote may take longer than a pod waits by default.
    let patient = "version = 1\n[images]\nrefresh_wait_ms = 20000\n";
    let node = Node::start_with(&NodeOptions::with_config(patient))?;
    let (pod, container) = node.run_heart(&pod("theirs").handler("runc"))?;
    container.shell("echo kept > /kept; rm -r /home")?;
    let archive = container.checkpoint()?;
    let life = container.life()?;
    pod.remove()?;
    let before = Store::of(&node)?;
    build(&node, &archive, BUILT)?;

    let (cold_pod, cold) = node.run_heart(&self::pod("cold"))?;
    assert_ne!(cold.life()?, life);
    cold_pod.remove()?;
    let said = node.reprise(["refresh"])?;
    assert!(
        said.contains(BUILT) && said.contains("not trusted"),
        "{said}"
    );

    assert_eq!(node.reprise(["trust", BUILT])?, "");
    let known = node.checkpoints()?;
    let [checkpoint] = known.as_slice() else {
        bail!("not one: {known:?}");
    };
    let (restored_pod, first) = restored(&node, "ours", &checkpoint.id)?;
    assert_eq!(first.life()?, life);
    assert_eq!(first.shell("cat /kept; ls -d /home || true")?, "kept\n");
    // Its pages are those that containerd unpacked.
    let pages = node.checkpoint_images(checkpoint)?.join("pages-1.img");
    assert_eq!(fs::metadata(pages)?.nlink(), 2);
    restored_pod.remove()?;

    // A node that forgets what it knew finds it again, and makes nothing anew.
    let made = Store::of(&node)?;
    fs::remove_dir_all(node.path("/var/lib/reprise/checkpoints"))?;
    fs::remove_dir_all(node.path("/var/lib/reprise/index"))?;
    let (again_pod, again) = restored(&node, "again", &checkpoint.id)?;
    assert_eq!(again.life()?, life);
    again_pod.remove()?;
    store::is_as_before(&node, &made)?;

    // Image, snapshots and record go together. The CRI plugin has another name for each
    // image, which `ctr images rm` leaves.
    node.crictl(["rmi", BUILT])?;
    node.reprise(["refresh"])?;
    store::is_as_before(&node, &before)
}

#[test]
fn an_image_that_a_pipeline_built_is_found_by_its_name_and_says_what_it_misses() -> Result<()> {
    let trusting = "version = 1\n[images]\ntrusted = [\"example.com/checkpoints/*\"]\n\
                    refresh_wait_ms = 20000\n";
    let node = Node::start_with(&NodeOptions::with_config(trusting))?;
    let (archive, life) = archive_of_runc(&node)?;
    let broken = node.dir().join("broken.tar");
    let script = "set -e; mkdir x; tar -C x -xf $1; touch x/checkpoint/ipcns-shm-11.img
        tar -C x -cf $2 .";
    let args = ["-c", script, "break", text(&archive)?, text(&broken)?];
    let mut words = vec!["-C", text(node.dir())?, "sh"];
    words.extend(args);
    node.run("env", words)?.ok()?;
    build(&node, &broken, "example.com/checkpoints/shared:1")?;
    let said = node.reprise(["refresh"])?;
    assert!(
        said.contains("foreign: ") && said.contains("SysV"),
        "{said}"
    );

    build(&node, &archive, BUILT)?;
    let (_pod, container) = node.run_heart(&pod("ours"))?;
    assert_eq!(container.life()?, life);
    Ok(())
}

#[test]
fn ours_is_exported_read_by_checkpointctl_and_restored_by_runc_and_by_us() -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("ours"))?;
    first.shell("mkdir /kept && echo kept > /kept/file && rm -r /home")?;
    let life = first.life()?;
    let taken = first.checkpoint()?;
    let listed = node.checkpoints()?;
    let id = listed.first().context("a checkpoint")?.id.clone();
    first_pod.remove()?;
    let exported = node.dir().join("exported.tar");
    node.reprise(["export", &id, text(&exported)?])?;
    for archive in [&taken, &exported] {
        let show = node.run("checkpointctl", ["show", text(archive)?])?.ok()?;
        assert!(
            show.contains("app") && show.contains("containerd"),
            "{show}"
        );
        let all = node.run("checkpointctl", ["inspect", "--all", text(archive)?])?;
        let all = all.ok()?;
        assert!(all.contains("Process tree") && all.contains("[1]"), "{all}");
        let memory = node
            .run("checkpointctl", ["memparse", text(archive)?])?
            .ok()?;
        assert!(memory.contains("PROCESS NAME"), "{memory}");
    }

    // Another node has nothing but the archive.
    node.reprise(["rm", &id])?;
    let imported = import(&node, &[text(&exported)?])?;
    assert_eq!(imported["state"], "ready", "{imported}");
    let id = imported["id"].as_str().context("an id")?;
    let (_pod, second) = restored(&node, "again", id)?;
    assert_eq!(second.life()?, life);
    assert_eq!(
        second.shell("cat /kept/file; ls -d /home || true")?,
        "kept\n"
    );

    // containerd looks the base image up as NAME@DIGEST, as a pull leaves it.
    let base = "docker.io/reprise/busybox";
    let listed = node.ctr(["images", "ls", &format!("name=={base}:latest")])?;
    let digest = listed
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"));
    let reference = format!("{base}@{}", digest.context("a digest")?);
    node.ctr(["images", "tag", &format!("{base}:latest"), &reference])?;
    let under_runc = node.run_pod(&pod("theirs").handler("runc"))?;
    let third = under_runc.run(&heart::spec().from_archive(text(&exported)?))?;
    assert_eq!(third.next_beat()?.life, life);
    assert_eq!(third.shell("cat /kept/file")?, "kept\n");
    Ok(())
}

#[test]
fn what_is_no_checkpoint_is_refused_and_leaves_nothing() -> Result<()> {
    let node = Node::start()?;
    let (archive, _) = archive_of_runc(&node)?;
    let dir = node.dir();
    let whole = fs::read(&archive)?;
    fs::write(dir.join("cut.tar"), &whole[..whole.len() / 2])?;
    fs::write(dir.join("garbage"), "garbage")?;
    fs::write(dir.join("empty.tar"), [0; 10240])?;
    // A tar that reaches out of its place, and one whose images are links.
    let script = "set -e; mkdir x; tar -C x -xf $1; rm x/checkpoint/inventory.img
        ln -s /etc/shadow x/checkpoint/inventory.img; tar -C x -cf links.tar .
        echo evil > evil; tar -P -cf out.tar --transform 's,^,../../../../,' evil
        tar -rf out.tar -C x config.dump spec.dump";
    let script = format!(
        "cd {}; set -- {}; {script}",
        dir.display(),
        archive.display()
    );
    node.run("sh", ["-c", &script])?.ok()?;
    let before = Store::of(&node)?;
    for (file, why) in [
        ("cut.tar", "unexpected EOF"),
        ("garbage", "no tar archive"),
        ("empty.tar", "no config.dump"),
        ("links.tar", "not a regular file"),
        ("out.tar", "checkpoint"),
        ("nothing", "No such file"),
    ] {
        let done = node.run("reprise", ["import", text(&dir.join(file))?])?;
        assert_eq!(done.code, 1, "{file}: {} {}", done.stdout, done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert!(done.stderr.contains(why), "{file}: {}", done.stderr);
    }
    let outside = [
        "/evil",
        "/var/evil",
        "/var/lib/evil",
        "/var/lib/containerd/evil",
    ];
    for place in outside {
        assert!(!node.path(place).exists(), "{place}");
    }
    store::is_as_before(&node, &before)
}

#[test]
fn what_cannot_be_restored_is_kept_with_the_reason() -> Result<()> {
    let node = Node::start()?;
    let (archive, _) = archive_of_runc(&node)?;
    let script = "set -e; mkdir x; tar -C x -xf $1; touch x/checkpoint/ipcns-shm-11.img
        tar -C x -czf shared.tar.gz .";
    let dir = node.dir();
    let script = format!(
        "cd {}; set -- {}; {script}",
        dir.display(),
        archive.display()
    );
    node.run("sh", ["-c", &script])?.ok()?;
    let imported = import(&node, &[text(&dir.join("shared.tar.gz"))?])?;
    let state = imported["state"].as_str().unwrap_or_default();
    assert!(
        state.starts_with("foreign: ") && state.contains("SysV"),
        "{state}"
    );
    let image = imported["image"].as_str().context("a name")?;
    assert!(store::images(&node)?.contains(image), "{image}");
    let (_pod, container) = node.run_heart(&pod("ours"))?;
    assert!(!container.reason_for_cold()?.is_empty());
    Ok(())
}

/// Debian's Podman with our runc, in a mount and a network namespace of its own.
const PODMAN: &str = r#"set -e
mount -t tmpfs none /run
ip link set lo up
export CONTAINERS_CONF=$1/containers.conf
p="podman --root $1/root --runroot /run/podman --storage-driver overlay --cgroup-manager cgroupfs --runtime $2"
$p load -q -i "$3" >&2
id=$($p run -d --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 docker.io/reprise/busybox:latest sh -c 'while :; do sleep 1; done')
sleep 2
$p container checkpoint -e $1/podman.tar.zst $id >&2 || { failed=1; grep -h Error $1/root/*-containers/$id/userdata/dump.log >&2; }
$p rm -f $id >&2
test -z "$failed""#;

#[test]
fn an_archive_of_podman_is_imported() -> Result<()> {
    let found = Command::new("sh")
        .args(["-c", "command -v podman"])
        .output()?;
    if !found.status.success() {
        eprintln!("skipped: there is no podman on this machine (Debian's package podman)");
        return Ok(());
    }
    let node = Node::start()?;
    let dir = node.dir().join("podman");
    fs::create_dir(&dir)?;
    fs::write(
        dir.join("containers.conf"),
        "[engine]\nevents_logger = \"file\"\n",
    )?;
    let taken = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--propagation",
            "private",
            "sh",
            "-c",
            PODMAN,
            "podman",
        ])
        .args([
            &*dir,
            &*node.tools().program("runc"),
            &*node.tools().image("busybox"),
        ])
        .output()?;
    if !taken.status.success() {
        bail!("podman: {}", String::from_utf8_lossy(&taken.stderr));
    }
    let archive = dir.join("podman.tar.zst");
    let imported = import(&node, &[text(&archive)?])?;
    assert_eq!(imported["engine"], "Podman");
    assert_eq!(imported["state"], "ready", "{imported}");
    node.run("checkpointctl", ["show", text(&archive)?])?.ok()?;
    Ok(())
}
