//! Device nodes and who may use them. Rows 6, 17, 18, and those of 34.

use crate::gaps::case::{Case, Need};
use serde_json::{Value, json};

/// Rules, where there is a file of them, and what they come to.
const RULES: &str = "sort /sys/fs/cgroup/devices$CGROUP/devices.list 2>/dev/null || true";
const TRIED: &str = "
    for node in 'c 1 3' 'c 1 5' 'c 10 229' 'c 10 200' 'b 253 0' 'b 7 0' 'c 4 0' 'c 5 1' 'c 136 0'; do
        set -- $node; rm -f /tmp/node; /probe mknod /tmp/node $1 $2 $3
        [ -e /tmp/node ] && for how in r w; do /probe open /tmp/node $how; done
    done";

pub(super) fn cases() -> Vec<Case> {
    let mut all = rules();
    all.extend(nodes());
    all
}

fn rules() -> Vec<Case> {
    let ruled = |row: u8, name, devices: Value| {
        Case::new(row, name)
            .spec(move |spec| {
                spec.capability("CAP_MKNOD")
                    .set("/linux/resources/devices", devices.clone())
            })
            .node("rules", RULES)
            .exec("tried", TRIED)
            .restored()
    };
    vec![
        ruled(
            6,
            "everything denied",
            json!([{ "allow": false, "access": "rwm" }]),
        ),
        ruled(6, "no rule at all", json!([])),
        ruled(
            6,
            "one device allowed",
            json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
                { "allow": true, "type": "b", "major": 7, "access": "r" },
            ]),
        ),
        ruled(
            6,
            "everything allowed",
            json!([{ "allow": true, "access": "rwm" }]),
        ),
        ruled(
            6,
            "allowed and then denied",
            json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "access": "rwm" },
                { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "w" },
            ]),
        ),
        ruled(
            6,
            "a rule without a type",
            json!([
                { "allow": false, "access": "rwm" }, { "allow": true, "major": 10, "minor": 229, "access": "rwm" },
            ]),
        )
        .stricter(
            "what names one device does not open all of them",
            |runc, ours| {
                // A list of rules instead of one that allows everything.
                runc["rules"] == json!(["a *:* rwm"])
                    && ours["rules"].as_array().is_some_and(|rules| {
                        rules.contains(&json!("c 10:229 rwm")) && !rules.contains(&runc["rules"][0])
                    })
            },
        ),
        ruled(
            6,
            "a rule that denies a device of every container",
            json!([
                { "allow": false, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            ]),
        ),
        ruled(
            34,
            "wildcards as -1",
            json!([
                { "allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm" },
                { "allow": true, "type": "c", "major": -1, "minor": -1, "access": "m" },
                { "allow": true, "type": "c", "major": 10, "minor": -1, "access": "rw" },
            ]),
        ),
        ruled(
            34,
            "a rule with an unknown access",
            json!([{ "allow": true, "type": "c", "major": 10, "access": "x" }]),
        ),
        Case::new(6, "no resources at all")
            .spec(|spec| spec.capability("CAP_MKNOD").remove("/linux/resources"))
            .node("rules", RULES)
            .exec("tried", TRIED)
            .restored(),
        Case::new(6, "an exec is bound by the rules")
            .spec(|spec| spec.capability("CAP_MKNOD"))
            .exec("tried", TRIED)
            .restored(),
        Case::new(6, "device rules under systemd's driver")
            .needs(Need::Systemd)
            .spec(|spec| {
                spec.capability("CAP_MKNOD")
                    .set("/linux/cgroupsPath", "system.slice:gaps:@ID@")
            })
            .systemd()
            .exec("tried", TRIED),
    ]
}

fn nodes() -> Vec<Case> {
    let device = |path: &str, more: Value| {
        let mut device = json!({ "path": path, "type": "c", "major": 10, "minor": 229 });
        for (key, value) in more.as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        device
    };
    let with = |row: u8, name, devices: Vec<Value>, look: &'static str| {
        Case::new(row, name)
            .spec(move |spec| {
                for device in &devices {
                    spec.push("/linux/devices", device.clone());
                }
                spec
            })
            .runs(look)
    };
    vec![
        with(17, "a device outside /dev", vec![device("/mnt/raw", json!({ "type": "b", "major": 254, "minor": 0 }))],
            "nodes /mnt; stat -c '%a %u:%g' /mnt").restored(),
        with(17, "a device in a directory that the image has not", vec![device("/vol/a/b", json!({ "fileMode": 432, "uid": 7, "gid": 8 }))],
            "nodes /vol; stat -c '%a %u:%g %n' /vol /vol/a").restored(),
        with(17, "a device in a new directory of /dev", vec![device("/dev/net/deep/tun", json!({}))],
            "nodes /dev/net; stat -c '%a %u:%g %n' /dev/net /dev/net/deep").restored(),
        with(17, "a pipe and an unbuffered device", vec![device("/dev/queue", json!({ "type": "p" })), device("/dev/raw", json!({ "type": "u" }))],
            "nodes /dev/queue; nodes /dev/raw"),
        with(17, "a device of an unknown type", vec![device("/dev/odd", json!({ "type": "z" }))], "nodes /dev/odd"),
        with(17, "a device under a link of the image", vec![device("/lnk/raw", json!({}))],
            "ls -ld /lnk; nodes /lnk/; nodes /opt").image("mkdir opt; ln -s /opt lnk"),
        with(17, "a device where the image has a file", vec![device("/data", json!({}))],
            "nodes /data").image("echo text > data"),
        with(17, "a device where the image has a link", vec![device("/data", json!({}))],
            "ls -l /data | cut -c1-10; nodes /opt").image("mkdir opt; ln -s /opt/x data"),
        with(18, "the same device twice", vec![device("/dev/twice", json!({})), device("/dev/twice", json!({ "minor": 200 }))],
            "nodes /dev/twice"),
        with(18, "a device that every container has", vec![device("/dev/null", json!({ "major": 1, "minor": 3, "fileMode": 384, "uid": 5, "gid": 6 }))],
            "nodes /dev; /probe open /dev/null r"),
        with(18, "a device that every container has, and a rule for it", vec![device("/dev/null", json!({ "major": 1, "minor": 3, "fileMode": 384, "uid": 5, "gid": 6 }))],
            "nodes /dev; /probe open /dev/null r")
            .spec(|spec| spec.push("/linux/resources/devices", json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" })))
            .restored(),
        with(18, "another device in the place of one that every container has", vec![device("/dev/null", json!({ "major": 1, "minor": 5 }))],
            "nodes /dev"),
        with(34, "a device with a relative path", vec![device("dev/odd", json!({}))], "nodes /dev"),
        with(34, "a device with umask-like modes", vec![device("/dev/odd", json!({ "fileMode": 511 }))], "nodes /dev/odd"),
        Case::new(18, "a directory of the node as /dev")
            .before(
                "mkdir -p dev/pts dev/shm dev/mqueue dev/mine; mknod -m 600 dev/null c 1 3; mknod -m 640 dev/mine/x c 10 229
                 echo kept > dev/file; chown 3:4 dev/null; ln -s file dev/stdin",
            )
            .spec(|spec| spec.unmount("/dev").mount_first("/dev", "bind", "@P@/dev", &["rbind", "rw"]))
            .runs("nodes /dev; ls -l /dev/stdin /dev/stdout /dev/fd /dev/ptmx | sed 's/.* \\(.dev\\)/\\1/'")
            .after("on the node", "nodes dev; find dev -type l | sort; cat dev/file"),
        Case::new(34, "/dev read-only")
            .spec(|spec| {
                spec.unmount("/dev").mount_first("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k", "ro"])
            })
            .runs("mounts | grep '/dev '; nodes /dev; touch /dev/made")
            .restored(),
    ]
}
