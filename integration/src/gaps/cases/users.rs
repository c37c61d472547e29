//! User namespaces: whose are processes, files and mounts. Rows 1, 14, 35.

use crate::gaps::case::Case;
use crate::gaps::stand::HOST_ID;
use serde_json::{Value, json};

const NO_CHECKPOINT: &str = "user namespace";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(1, "exec joins the user namespace")
            .in_user_namespace()
            .exec(
                "exec",
                "cat /proc/self/uid_map; namespaces; touch /tmp/made; stat -c %u:%g /tmp/made; status",
            )
            .node("on the node", "stat -c %u:%g /proc/$PID /proc/$PID/root/tmp/made | sed s,$PID,PID,")
            .no_checkpoint(NO_CHECKPOINT),
        Case::new(1, "exec as another user of the user namespace")
            .in_user_namespace()
            .exec_as("exec", "id; touch /tmp/made; stat -c %u:%g /tmp/made; status", |process| {
                process.set("/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000] }))
            })
            .node("on the node", "stat -c %u:%g /proc/$PID/root/tmp/made"),
        Case::new(1, "exec with a terminal in a user namespace")
            .in_user_namespace()
            .exec_as("exec", "tty; /probe streams", |process| {
                process.set("/terminal", true)
            }),
        Case::new(14, "what a user namespace begins with")
            .in_user_namespace()
            .runs("id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; mounts; nodes /dev; status; list / /etc /etc/passwd /tmp")
            .stricter(QUEUES, queues_are_roots),
        Case::new(14, "a source beneath a directory that only root may enter")
            .in_user_namespace()
            .before("mkdir -p closed/src; echo text > closed/src/file; chmod 700 closed; chmod 755 closed/src")
            .spec(|spec| spec.bind("@P@/closed/src", "/mnt", &["rbind", "ro"]))
            .runs("cat /mnt/file; list /mnt /mnt/*; mounts | grep /mnt"),
        Case::new(14, "a file beneath a directory that only root may enter")
            .in_user_namespace()
            .before("mkdir closed; echo text > closed/file; chmod 700 closed")
            .spec(|spec| spec.bind("@P@/closed/file", "/etc/hosts", &["rbind", "rw"]))
            .runs("cat /etc/hosts; mounts | grep hosts"),
        Case::new(14, "a mount with id mappings")
            .in_user_namespace()
            .before("mkdir src; echo text > src/file; chown 1000:1000 src/file")
            .spec(|spec| mapped_bind(spec, "/mnt"))
            .runs("list /mnt /mnt/*; touch /mnt/made && stat -c %u:%g /mnt/made; mounts | grep /mnt")
            .after("on the node", "list src src/*"),
        Case::new(14, "a file with id mappings")
            .in_user_namespace()
            .before("mkdir src; echo text > src/file; chmod 600 src/file")
            .spec(|spec| {
                let mapping = json!([{ "containerID": 0, "hostID": HOST_ID, "size": 65536 }]);
                spec.push("/mounts", json!({
                    "destination": "/etc/hosts", "type": "bind", "source": "@P@/src/file",
                    "options": ["rbind", "rprivate", "rw"],
                    "uidMappings": mapping, "gidMappings": mapping,
                }))
            })
            .runs("cat /etc/hosts; list /etc/hosts; mounts | grep hosts"),
        Case::new(14, "the idmap option without mappings of its own")
            .in_user_namespace()
            .before("mkdir src; echo text > src/file")
            .spec(|spec| spec.bind("@P@/src", "/mnt", &["idmap"]))
            .runs("list /mnt /mnt/*; mounts | grep /mnt"),
        Case::new(14, "the idmap option without a user namespace")
            .before("mkdir src; echo text > src/file")
            .spec(|spec| spec.bind("@P@/src", "/mnt", &["idmap"]))
            .runs("list /mnt /mnt/*"),
        Case::new(14, "id mappings without a user namespace")
            .before("mkdir src; echo text > src/file; chown 1000:1000 src/file")
            .spec(|spec| mapped_bind(spec, "/mnt"))
            .runs("list /mnt /mnt/*; mounts | grep /mnt"),
        Case::new(14, "tmpfs, shm and mqueue of a user namespace")
            .in_user_namespace()
            .spec(|spec| spec.mount("/scratch", "tmpfs", "tmpfs", &["nosuid", "mode=1777", "size=1m"]))
            .runs("stat -c '%a %u:%g %n' /scratch /dev/shm /dev/mqueue /dev/pts /dev/pts/ptmx; touch /scratch/a /dev/shm/a && list /scratch/a")
            .stricter(QUEUES, queues_are_roots),
        Case::new(14, "a user namespace with a sysctl and a new network")
            .in_user_namespace()
            .spec(|spec| spec.set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "0" })))
            .runs("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/class/net/lo/flags"),
        Case::new(35, "rlimits in a user namespace")
            .in_user_namespace()
            .spec(|spec| spec.set("/process/rlimits", rlimits()))
            .runs("cat /proc/self/limits")
            .exec("exec", "cat /proc/self/limits"),
    ]
}

fn mapped_bind<'s>(
    spec: &'s mut crate::gaps::spec::Spec,
    destination: &str,
) -> &'s mut crate::gaps::spec::Spec {
    let mapping = json!([{ "containerID": 0, "hostID": HOST_ID, "size": 65536 }]);
    let mount = json!({
        "destination": destination, "type": "bind", "source": "@P@/src",
        "options": ["rbind", "rw"], "uidMappings": mapping, "gidMappings": mapping,
    });
    spec.push("/mounts", mount)
}

fn rlimits() -> serde_json::Value {
    json!([
        { "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NPROC", "soft": 4000, "hard": 4001 },
    ])
}

const QUEUES: &str =
    "runc makes the queues while its group is nobody's; mode 1777 lets the same users in";

/// All is the same but the group of `/dev/mqueue`: ours is root's.
fn queues_are_roots(runc: &Value, ours: &Value) -> bool {
    let mut expected = runc.clone();
    let lines = expected["said"]["stdout"].as_array_mut();
    for line in lines.into_iter().flatten() {
        let text = line.as_str().unwrap_or_default();
        if text.contains("1777 0:65534") && text.ends_with("/dev/mqueue") {
            *line = json!(text.replace("0:65534", "0:0"));
        }
    }
    expected != *runc && expected == *ours
}
