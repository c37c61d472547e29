//! Every field of a securityContext, and the namespaces that pods may share.
//! What the first process finds, one that is executed has to find as well.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::{waiting, with};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;

pub(super) const THEME: Theme = Theme {
    name: "security",
    cases: &[
        Case::new("runAsUser and runAsGroup", run_as),
        Case::new("runAsNonRoot", non_root),
        Case::new("supplementalGroups and their policy", groups),
        Case::new("fsGroup", fs_group),
        Case::new("capabilities", capabilities),
        Case::new("readOnlyRootFilesystem", read_only_root),
        Case::new("allowPrivilegeEscalation", no_new_privileges),
        Case::new("seccompProfile", seccomp),
        Case::new("seccompProfile of the node", local_seccomp),
        Case::new("privileged", privileged),
        Case::new("masked and read-only paths", masked),
        Case::new("procMount", proc_mount),
        Case::new("sysctls", sysctls),
        Case::new("hostUsers: false", user_namespace),
        Case::new(
            "hostUsers: false with volumes and fsGroup",
            user_namespace_volumes,
        ),
        Case::new("hostNetwork", host_network),
        Case::new("hostPID", host_pid),
        Case::new("hostIPC", host_ipc),
        Case::new("shareProcessNamespace", share_processes),
    ],
};

fn context(fields: Value) -> Value {
    json!({"securityContext": fields})
}

fn expect(said: &str, wanted: &str) -> Result<()> {
    ensure!(said == wanted, "it says {said:?}, not {wanted:?}");
    Ok(())
}

fn run_as(ground: &Ground<'_>) -> Result<()> {
    let spec = context(json!({"runAsUser": 1000, "runAsGroup": 3000}));
    let script = "id -u; id -g; id -G; touch /x 2>/dev/null || echo may not; awk '/^CapEff/ {print $2}' /proc/self/status";
    let said = ground.facts(json!({}), spec, script)?;
    // The image says which groups its user 1000 has.
    expect(&said, "1000\n3000\n3000 2000\nmay not\n0000000000000000")
        .or_else(|_| expect(&said, "1000\n3000\n3000\nmay not\n0000000000000000"))
}

fn non_root(ground: &Ground<'_>) -> Result<()> {
    let spec = context(json!({"runAsNonRoot": true}));
    ground.pod(
        "root",
        with(spec.clone(), json!({"containers": [waiting()]})),
    )?;
    ground.until_container("root", "app", "the refusal", |status| {
        status["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    let own = with(waiting(), context(json!({"runAsUser": 65534})));
    ground.ready_pod("nobody", with(spec, json!({"containers": [own]})))
}

fn groups(ground: &Ground<'_>) -> Result<()> {
    let spec = context(json!({
        "runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [5000, 6000],
        "supplementalGroupsPolicy": "Strict",
    }));
    let said = ground.facts(
        json!({}),
        spec,
        "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '",
    )?;
    expect(&said, "1000 5000 6000")?;
    ground.call(&["delete", "pod", "facts"])?;
    let spec =
        context(json!({"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [5000]}));
    let said = ground.facts(
        json!({}),
        spec,
        "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '",
    )?;
    expect(&said, "1000 2000 5000")
}

fn fs_group(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = with(
        context(
            json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 7000, "fsGroupChangePolicy": "OnRootMismatch"}),
        ),
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
    );
    let script =
        "rm -f /v/x; touch /v/x && stat -c '%g %a' /v && stat -c %u:%g /v/x; id -G | grep -o 7000";
    let said = ground.facts(container, spec, script)?;
    expect(&said, "7000 2777\n1000:7000\n7000")
}

const CAPABILITIES: &str = "grep ^Cap /proc/self/status | tr -s '\\t ' ' '";

fn capabilities(ground: &Ground<'_>) -> Result<()> {
    let container = context(
        json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SYS_TIME"]}}),
    );
    let said = ground.facts(container, json!({}), CAPABILITIES)?;
    let wanted = "0000000002000400";
    expect(
        &said,
        &format!(
            "CapInh: 0000000000000000\nCapPrm: {wanted}\nCapEff: {wanted}\nCapBnd: {wanted}\nCapAmb: 0000000000000000"
        ),
    )?;
    ground.call(&["delete", "pod", "facts"])?;
    let said = ground.facts(
        json!({}),
        json!({}),
        "grep ^CapEff /proc/self/status | tr -s '\\t ' ' '",
    )?;
    expect(&said, "CapEff: 00000000a80425fb")
}

fn read_only_root(ground: &Ground<'_>) -> Result<()> {
    let container = with(
        context(json!({"readOnlyRootFilesystem": true})),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
    );
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let script = "for at in / /etc /tmp /v /dev/shm; do touch $at/x 2>/dev/null && echo $at may || echo $at may not; done; \
                  grep ' / ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1";
    let said = ground.facts(container, spec, script)?;
    expect(
        &said,
        "/ may not\n/etc may not\n/tmp may not\n/v may\n/dev/shm may\nro",
    )
}

fn no_new_privileges(ground: &Ground<'_>) -> Result<()> {
    for (allowed, wanted) in [(false, "NoNewPrivs: 1"), (true, "NoNewPrivs: 0")] {
        let container = context(json!({"allowPrivilegeEscalation": allowed, "runAsUser": 1000}));
        let said = ground.facts(
            container,
            json!({}),
            "grep ^NoNewPrivs /proc/self/status | tr '\\t' ' '",
        )?;
        expect(&said, wanted)?;
        ground.call(&["delete", "pod", "facts"])?;
    }
    Ok(())
}

const SECCOMP: &str = "grep ^Seccomp: /proc/self/status | tr '\\t' ' '";

fn seccomp(ground: &Ground<'_>) -> Result<()> {
    for (kind, wanted) in [
        ("RuntimeDefault", "Seccomp: 2"),
        ("Unconfined", "Seccomp: 0"),
    ] {
        let container = context(json!({"seccompProfile": {"type": kind}}));
        let said = ground.facts(
            container,
            json!({}),
            &format!("{SECCOMP}; unshare -U true 2>/dev/null && echo may || echo may not"),
        )?;
        let may = if kind == "Unconfined" {
            "may"
        } else {
            "may not"
        };
        expect(&said, &format!("{wanted}\n{may}"))?;
        ground.call(&["delete", "pod", "facts"])?;
    }
    Ok(())
}

fn local_seccomp(ground: &Ground<'_>) -> Result<()> {
    let name = format!("{}.json", ground.namespace());
    let dir = ground.on_node("/var/lib/kubelet/seccomp")?;
    fs::create_dir_all(&dir)?;
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    fs::write(dir.join(&name), profile.to_string())?;
    let container =
        context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}}));
    let said = ground.facts(
        container,
        json!({}),
        "mkdir /made 2>&1; touch /file && echo touched",
    )?;
    expect(
        &said,
        "mkdir: can't create directory '/made': Function not implemented\ntouched",
    )
}

fn privileged(ground: &Ground<'_>) -> Result<()> {
    let container = context(json!({"privileged": true}));
    let script = "grep ^CapBnd /proc/self/status | tr '\\t' ' '; grep ^CapEff /proc/self/status | tr '\\t' ' '; \
                  grep ^Seccomp: /proc/self/status | tr '\\t' ' '; ls /dev | wc -l; grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1; \
                  mkdir -p /m; mount -t tmpfs none /m && umount /m && echo may mount";
    let said = ground.facts(container, json!({}), script)?;
    let lines: Vec<&str> = said.lines().collect();
    let [bounding, effective, seccomp, devices, sys, mount] = lines[..] else {
        anyhow::bail!("it says {said}");
    };
    ensure!(
        effective.replace("Eff", "Bnd") == bounding && effective.starts_with("CapEff: 000001f"),
        "{said}"
    );
    ensure!(
        seccomp == "Seccomp: 0" && sys == "rw" && mount == "may mount",
        "{said}"
    );
    ensure!(devices.parse::<u32>()? > 20, "{devices} devices");
    Ok(())
}

fn masked(ground: &Ground<'_>) -> Result<()> {
    let script = "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | head -c 1 | wc -c; \
                  ls /sys/firmware | wc -l; \
                  echo 1 2>/dev/null >/proc/sys/kernel/panic || echo may not; \
                  echo b 2>/dev/null >/proc/sysrq-trigger || echo may not";
    let said = ground.facts(json!({}), json!({}), script)?;
    expect(&said, "0\n0\nmay not\nmay not")
}

fn proc_mount(ground: &Ground<'_>) -> Result<()> {
    let container = context(json!({"procMount": "Unmasked"}));
    let script =
        "grep -c ' /proc/' /proc/mounts; grep ' /proc ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1";
    let said = ground.facts(container, json!({"hostUsers": false}), script)?;
    expect(&said, "0\nrw")
}

fn sysctls(ground: &Ground<'_>) -> Result<()> {
    let spec = context(json!({"sysctls": [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]}));
    let script =
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let said = ground.facts(json!({}), spec, script)?;
    expect(&said, "80\n1")
}

fn user_namespace(ground: &Ground<'_>) -> Result<()> {
    let script = "awk '{print $1, ($2 > 0), $3}' /proc/self/uid_map; id -u; touch /x && stat -c %u /x; \
                  mount -t tmpfs none /mnt 2>/dev/null && echo may || echo may not; hostname";
    let said = ground.facts(json!({}), json!({"hostUsers": false}), script)?;
    expect(&said, "0 1 65536\n0\n0\nmay not\nfacts")
}

fn user_namespace_volumes(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"key": "value"},
    }))?;
    let container = json!({"volumeMounts": [
        {"name": "v", "mountPath": "/v"},
        {"name": "config", "mountPath": "/config"},
    ]});
    let spec = with(
        context(json!({"runAsUser": 1000, "fsGroup": 7000})),
        json!({"hostUsers": false, "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "config", "configMap": {"name": "config"}},
        ]}),
    );
    let script = "touch /v/x && stat -c %u:%g /v/x; stat -c %g /v; cat /config/key; echo; stat -L -c %u /config/key";
    let said = ground.facts(container, spec, script)?;
    expect(&said, "1000:7000\n7000\nvalue\n0")
}

fn host_network(ground: &Ground<'_>) -> Result<()> {
    let said = ground.facts(
        json!({}),
        json!({"hostNetwork": true}),
        "ls /sys/class/net | grep -c cni0; readlink /proc/self/ns/net",
    )?;
    let node = {
        let cluster = ground.cluster();
        fs::read_link(format!(
            "/proc/{}/ns/net",
            cluster.worker(super::ground::NODE)?.pid()
        ))?
    };
    let seen = said.lines().last().unwrap_or_default();
    ensure!(
        node.to_string_lossy() == seen,
        "{said}, the node has {}",
        node.display()
    );
    let pod = ground.get(&["pod", "facts"])?;
    ensure!(
        pod["status"]["podIP"] == pod["status"]["hostIP"],
        "{}",
        pod["status"]
    );
    Ok(())
}

fn host_pid(ground: &Ground<'_>) -> Result<()> {
    let said = ground.facts(
        json!({}),
        json!({"hostPID": true}),
        "ps | grep -c '[k]ubelet --config' || true",
    )?;
    ensure!(said != "0", "it sees no kubelet");
    Ok(())
}

fn host_ipc(ground: &Ground<'_>) -> Result<()> {
    let said = ground.facts(
        json!({}),
        json!({"hostIPC": true}),
        "readlink /proc/self/ns/ipc",
    )?;
    let node = {
        let cluster = ground.cluster();
        fs::read_link(format!(
            "/proc/{}/ns/ipc",
            cluster.worker(super::ground::NODE)?.pid()
        ))?
    };
    expect(&said, &node.to_string_lossy())
}

fn share_processes(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({
        "shareProcessNamespace": true,
        "containers": [
            {"name": "one", "script": "echo of one >/secret; exec tail -f /dev/null"},
            with(waiting(), json!({"name": "two", "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}})),
        ],
    }))?;
    let script = "pid=$(pidof tail) && cat /proc/$pid/root/secret && cat /proc/1/comm && kill $pid";
    let said = ground.exec_in("app", "two", script)?;
    expect(&said, "of one\npause")?;
    ground.until_container("app", "one", "its second start", |status| {
        status["restartCount"] == 1
    })?;
    let two = ground.container("app", "two")?;
    ensure!(two["restartCount"] == 0, "{two}");
    Ok(())
}
