//! cgroups as a container sees them, and what becomes of their children.
//! Rows 5, 20, 22.

use crate::gaps::case::{Case, Need};
use crate::gaps::spec::Spec;
use serde_json::json;

const MOUNT: [&str; 4] = ["nosuid", "noexec", "nodev", "relatime"];

/// What is seen of the mounted cgroups, and what may be written.
const SEEN: &str = "
    mounts | grep -i cgroup; ls -l /sys/fs/cgroup | sed -E 's/ +[0-9]+ [A-Z][a-z]+ .* ([^ ]+( -> .*)?)$/ \\1/'
    cat /proc/self/cgroup | sort -t: -k2
    for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max \
        /sys/fs/cgroup/systemd/notify_on_release /sys/fs/cgroup/unified/cgroup.max.depth \
        /sys/fs/cgroup/memory.max /sys/fs/cgroup/cgroup.max.depth; do
        if [ -e $file ]; then (echo 77 > $file) 2>/dev/null && echo wrote $file || echo refused $file; fi
    done
    for group in /sys/fs/cgroup/*/; do
        mkdir $group/made 2>/dev/null && { echo made in $group; rmdir $group/made; } || echo not made in $group
    done";

/// Makes children in all of a container's cgroups, with a process of it in one.
const CHILDREN: &str = "
    for group in /sys/fs/cgroup/*$CGROUP /sys/fs/cgroup$CGROUP; do
        [ -d $group ] || continue
        mkdir -p $group/child/grandchild && echo made
    done | sort | uniq -c | tr -d ' ' | sed 's/[0-9]*//'
    for group in /sys/fs/cgroup/pids$CGROUP /sys/fs/cgroup$CGROUP; do
        [ -d $group ] || continue
        tail -n 1 $group/cgroup.procs > $group/child/cgroup.procs && echo moved
    done";

/// The cgroups of the first process, by their hierarchies, and of the one that asks.
const OF_INIT: &str = "sort -t: -k2 /proc/$PID/cgroup | sed -E 's/^[0-9]+//'";
const OF_ITSELF: &str = "sort -t: -k2 /proc/self/cgroup | sed -E 's/^[0-9]+//'";

/// Limits of the container's cgroups, wherever those are.
const LIMITS: &str = "
    for name in memory pids ''; do
        path=$(sed -nE \"s/^[0-9]+:$name:(.*)/\\1/p\" /proc/$PID/cgroup)
        for file in memory.limit_in_bytes memory.max pids.max; do
            file=/sys/fs/cgroup/$name$path/$file
            [ ! -e $file ] || echo ${file##*/} $(cat $file)
        done
    done";

/// What is left of the container's cgroups, wherever it was.
const LEFT: &str = "find /sys/fs/cgroup -name $ID 2>/dev/null || :";

pub(super) fn cases() -> Vec<Case> {
    let mounted = |name, own: bool, options: &'static [&'static str]| {
        Case::new(5, name)
            .spec(move |spec| {
                if own {
                    spec.push("/linux/namespaces", json!({ "type": "cgroup" }));
                }
                let options: Vec<&str> = MOUNT.iter().chain(options).copied().collect();
                spec.capability("CAP_SYS_ADMIN").mount(
                    "/sys/fs/cgroup",
                    "cgroup",
                    "cgroup",
                    &options,
                )
            })
            .runs(SEEN)
            .restored()
    };
    let mut cases = vec![
        mounted("cgroups, read-only", false, &["ro"]),
        mounted(
            "cgroups, read-only, in a namespace of their own",
            true,
            &["ro"],
        ),
        mounted("cgroups, writable", false, &["rw"]),
        mounted(
            "cgroups, writable, in a namespace of their own",
            true,
            &["rw"],
        ),
        Case::new(5, "cgroups, read-only, in a user namespace")
            .in_user_namespace()
            .spec(|spec| {
                spec.push("/linux/namespaces", json!({ "type": "cgroup" }))
                    .mount(
                        "/sys/fs/cgroup",
                        "cgroup",
                        "cgroup",
                        &["nosuid", "noexec", "nodev", "ro"],
                    )
            })
            .runs(SEEN),
        Case::new(5, "all of a process's cgroups are the container's")
            .node("init", OF_INIT)
            .exec("exec", OF_ITSELF)
            .restored(),
        Case::new(5, "a cgroups path that climbs")
            .spec(|spec| spec.set("/linux/cgroupsPath", "/@NODECG@/../@NODECG@/./x/../@ID@"))
            .node("init", OF_INIT)
            .stricter(
                "a path that climbs could name another container's cgroup",
                |_, ours| super::image::refused_with(ours, "leaves the hierarchy"),
            ),
    ];
    cases.extend(relative());
    cases.extend(with_children());
    cases
}

fn relative_with_limits(spec: &mut Spec) -> &mut Spec {
    spec.set("/linux/cgroupsPath", "@NODECG@/sub/@ID@")
        .set("/linux/resources/memory", json!({ "limit": 99_999_744 }))
        .set("/linux/resources/pids", json!({ "limit": 77 }))
}

/// Paths that begin where the shim lives.
fn relative() -> Vec<Case> {
    vec![
        Case::new(5, "without a cgroups path")
            .spec(|spec| spec.remove("/linux/cgroupsPath"))
            .node("init", OF_INIT)
            .exec("exec", OF_ITSELF)
            .after("left", LEFT)
            .restored(),
        Case::new(5, "a relative cgroups path")
            .spec(|spec| spec.set("/linux/cgroupsPath", "@NODECG@/sub/@ID@"))
            .node("init", OF_INIT)
            .exec("exec", OF_ITSELF)
            .after("left", LEFT)
            .restored(),
        Case::new(5, "limits in a relative cgroups path")
            .spec(relative_with_limits)
            .node("limits", LIMITS)
            .exec("a device", "mknod /disk b 8 0; cat /disk")
            .after("left", LEFT)
            .restored(),
        Case::new(5, "a relative cgroups path, in a cgroup namespace")
            .spec(|spec| {
                spec.set("/linux/cgroupsPath", "@NODECG@/sub/@ID@")
                    .push("/linux/namespaces", json!({ "type": "cgroup" }))
                    .mount("/sys/fs/cgroup", "cgroup", "cgroup", &MOUNT)
            })
            .exec(
                "exec",
                "mounts | grep -i cgroup; sort -t: -k2 /proc/self/cgroup",
            )
            .after("left", LEFT)
            .restored(),
        Case::new(5, "without a cgroups path (v2)")
            .needs(Need::CgroupV2)
            .spec(|spec| spec.remove("/linux/cgroupsPath"))
            .node("init", OF_INIT)
            .exec("exec", OF_ITSELF)
            .after("left", LEFT)
            .restored(),
        Case::new(5, "limits in a relative cgroups path (v2)")
            .needs(Need::CgroupV2)
            .spec(relative_with_limits)
            .node("init", OF_INIT)
            .node("limits", LIMITS)
            .exec("a device", "mknod /disk b 8 0; cat /disk")
            .after("left", LEFT)
            .restored(),
    ]
}

/// What becomes of cgroups that a container makes in its own.
fn with_children() -> Vec<Case> {
    vec![
        Case::new(20, "delete with child cgroups")
            .exec("a process more", "sleep 1000 > /dev/null 2>&1 &")
            .node("children", CHILDREN)
            .restored(),
        Case::new(22, "exec in a container with child cgroups")
            .exec("a process more", "sleep 1000 > /dev/null 2>&1 &")
            .node("children", CHILDREN)
            .exec(
                "exec",
                "sort -t: -k2 /proc/self/cgroup | sed -E 's/^[0-9]+//'; echo in",
            )
            .restored(),
        Case::new(22, "exec when init is in a child cgroup (v2)")
            .needs(Need::CgroupV2)
            .node(
                "children",
                "cd /sys/fs/cgroup$CGROUP; mkdir init; echo $PID > init/cgroup.procs
                 echo +pids > cgroup.subtree_control; cat cgroup.subtree_control",
            )
            .exec("exec", "cat /proc/self/cgroup"),
    ]
}
