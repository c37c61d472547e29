//! Everything that can be seen of a plain container, so that what nobody thought
//! of shows, too. Row 34, and what others share.

use crate::Runtime;
use crate::containerd::NewTask;
use crate::gaps::Stand;
use crate::gaps::case::{Bundle, Case};
use crate::gaps::place::Place;
use crate::gaps::words;
use anyhow::Result;
use serde_json::{Value, json};

const EVERYTHING: &str = "
    echo == mounts; mounts
    echo == dev; nodes /dev; ls -l /dev /dev/pts | sed -n 's/.* \\([^ ]* -> .*\\)/\\1/p' | sed -E 's/[0-9]+$/N/'
    echo == top; ls -1a /; stat -c '%A %u:%g %n' / /dev /dev/shm /dev/pts /dev/mqueue /proc /sys /tmp /run /etc
    echo == namespaces; ls /proc/self/ns; hostname; cat /proc/sys/kernel/domainname
    echo == net; for i in /sys/class/net/*; do echo ${i##*/} $(cat $i/flags); done
    echo == sysctl; cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
    echo == processes; set -- /proc/[0-9]*; echo $#
    echo == time; cat /proc/self/timens_offsets
    echo == etc; ls -l /etc/hostname /etc/hosts /etc/resolv.conf 2>&1 | cut -c1-10";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(34, "everything in a plain container").runs(EVERYTHING).restored(),
        Case::new(34, "lo is up in a new network namespace")
            .runs("cat /sys/class/net/lo/flags; ip addr show lo | grep -o 'inet [^ ]*'; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo answers")
            .restored(),
        Case::new(34, "the node's network, pid and ipc namespaces")
            .spec(|spec| spec.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "uts" }])).unmount("/sys")
                .mount("/sys", "bind", "/sys", &["rbind", "ro"]))
            .runs("ls /sys/class/net | sort; [ -d /proc/1 ] && cat /proc/1/comm; mounts | grep -E ' /sys ' | head -1"),
        Case::new(34, "hostname, domain name and sysctls")
            .spec(|spec| {
                spec.set("/hostname", "a-host").set("/domainname", "a.domain")
                    .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "9000", "net/ipv4/ip_default_ttl": "9" }))
            })
            .runs("hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl")
            .cold_because("sysctls"),
        Case::new(34, "a time namespace")
            .spec(|spec| {
                spec.push("/linux/namespaces", json!({ "type": "time" }))
                    .set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000, "nanosecs": 0 }, "monotonic": { "secs": 500, "nanosecs": 0 } }))
            })
            .runs("cat /proc/self/timens_offsets; [ $(cut -d. -f1 /proc/uptime) -gt 1000000 ] && echo later")
            .exec("exec", "cat /proc/self/timens_offsets"),
        Case::new(34, "a joined network namespace")
            .before("touch ns; unshare --net=$P/ns true")
            .spec(|spec| {
                let list = spec.0["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
                let mut list: Vec<Value> = list.into_iter().filter(|one| one["type"] != "network").collect();
                list.push(json!({ "type": "network", "path": "@P@/ns" }));
                spec.set("/linux/namespaces", list)
            })
            .runs("cat /sys/class/net/lo/flags")
            .node("same", "[ $(stat -L -c %i /proc/$PID/ns/net) = $(stat -L -c %i ns) ] && echo same"),
        Case::new(34, "empty spec fields")
            .spec(|spec| {
                spec.set("/mounts", json!([])).set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]))
                    .set("/linux/devices", json!([])).args(&["/probe", "descriptors"])
            })
            .runs_own()
            .stricter(NO_PROC, |runc, ours| {
                wants_proc(runc) && ours["exit"] == json!(0) && ours.get("create").is_none()
            }),
    ]
}

pub(super) const NO_PROC: &str = "that runc fails is an accident of how it is made: it looks for \
     the last capability in the container's own /proc; ours does not need it, and a container \
     without /proc is confined like any other";

/// runc fails since there is no `/proc`.
pub(super) fn wants_proc(runc: &Value) -> bool {
    let words = "open /proc/sys/kernel/cap_last_cap: no such file or directory";
    super::image::refused_with(runc, words)
}

/// Signals to, and deletes of, what has ended, and what never was.
pub(super) fn signals_after_the_end(stand: &Stand, runtime: Runtime) -> Result<Value> {
    let place = Place::new(stand, runtime)?;
    let (api, id) = (stand.api(), place.id());
    let bundle = Bundle::default();
    let heard = place.output("init", false)?;
    let spec = stand.spec(&place).filled(|text| place.fill(text));
    let rootfs = stand.rootfs(&bundle, id)?;
    let told = |refused: Result<(), crate::grpc::Refused>| match refused {
        Ok(()) => json!("ok"),
        Err(refused) => {
            let message = place.plain(&refused.message);
            json!([words::code(refused.code), words::cause(&message, "@ID@")])
        }
    };
    api.create(NewTask {
        id,
        runtime: runtime.kind(),
        spec: &spec,
        rootfs,
        output: &heard.output,
        systemd: false,
    })?;
    let mut seen = json!({ "delete of what never started": told(api.delete_exec(id, "nope")) });
    api.start(id, "")?;
    seen["start again"] = told(api.start(id, "").map(drop));
    seen["kill"] = told(api.kill(id));
    seen["exit"] = json!(api.wait(id, "")?);
    seen["kill after the end"] = told(api.kill(id));
    seen["kill of an exec that never was"] = told(api.kill_one(id, "nope", 9));
    seen["exec after the end"] = told(api.exec(id, "late", &spec["process"], &heard.output));
    seen["start after the end"] = told(api.start(id, "late").map(drop));
    seen["wait again"] = told(api.wait(id, "").map(drop));
    api.delete(id)?;
    seen["kill after delete"] = told(api.kill(id));
    seen["delete again"] = told(api.delete(id));
    api.forget(id)?;
    stand.api().remove_layer(id)?;
    Ok(seen)
}
