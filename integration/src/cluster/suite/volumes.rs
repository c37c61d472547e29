//! Volumes of all kinds.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::waiting;
use crate::programs::BUSYBOX;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;

pub(super) const THEME: Theme = Theme {
    name: "volumes",
    cases: &[
        Case::new("emptyDir outlives its containers", empty_dir),
        Case::new("emptyDir in memory has its size", memory),
        Case::new("hostPath of all types", host_path),
        Case::new("hostPath of the whole node", node_root),
        Case::new("mount propagation", propagation),
        Case::new("configMap as files and environment", config_map),
        Case::new("configMap that changes", changing).within(180),
        Case::new("secret as files and environment", secret),
        Case::new("projected", projected),
        Case::new("downwardAPI", downward),
        Case::new("subPath and subPathExpr", sub_path),
        Case::new("readOnly and recursiveReadOnly", read_only),
        Case::new("image", image),
        Case::new("persistent volume", persistent),
    ],
};

/// A pod whose container sees one volume at `/v`.
fn at_v(volume: Value) -> (Value, Value) {
    let mut volume = volume;
    volume["name"] = json!("v");
    (
        json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
        json!({"volumes": [volume]}),
    )
}

fn empty_dir(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    ground.ready_pod(
        "app",
        json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "script": "echo life >>/v/lives; while [ ! -e /end ]; do sleep 0.1; done",
                "volumeMounts": mounts,
            }],
        }),
    )?;
    ground.exec("app", "touch /end")?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"] == 1 && status["ready"] == true
    })?;
    let said = ground.exec("app", "cat /v/lives; ls /end 2>/dev/null; stat -c %a /v")?;
    ensure!(said == "life\nlife\n777", "{said}");
    Ok(())
}

fn memory(ground: &Ground<'_>) -> Result<()> {
    let (container, spec) = at_v(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}));
    let script = "grep ' /v ' /proc/mounts | cut -d' ' -f3; df -k /v | tail -1 | awk '{print $2}'; \
                  dd if=/dev/zero of=/v/big bs=1M count=9 2>&1 | grep -c 'No space left'";
    let said = ground.facts(container, spec, script)?;
    ensure!(said == "tmpfs\n8192\n1", "{said}");
    Ok(())
}

fn host_path(ground: &Ground<'_>) -> Result<()> {
    let dir = ground.node_dir()?;
    let outside = ground.on_node(&dir)?;
    fs::write(outside.join("file"), "from the node\n")?;
    let volume = |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": format!("{dir}{path}"), "type": kind}});
    ground.ready_pod(
        "app",
        json!({
            "volumes": [
                volume("dir", "", "Directory"),
                volume("file", "/file", "File"),
                volume("new", "/new/below", "DirectoryOrCreate"),
                volume("touched", "/touched", "FileOrCreate"),
                {"name": "null", "hostPath": {"path": "/dev/null", "type": "CharDevice"}},
            ],
            "containers": [{"script": "exec sleep 1000000", "volumeMounts": [
                {"name": "dir", "mountPath": "/dir"},
                {"name": "file", "mountPath": "/etc/file"},
                {"name": "new", "mountPath": "/new"},
                {"name": "touched", "mountPath": "/touched"},
                {"name": "null", "mountPath": "/nothing"},
            ]}],
        }),
    )?;
    let said = ground.exec("app", "cat /etc/file; echo in >/dir/in; echo in >/new/in; echo in >/touched; stat -c %t:%T /nothing")?;
    ensure!(said == "from the node\n1:3", "{said}");
    for file in ["in", "new/below/in", "touched"] {
        ensure!(fs::read_to_string(outside.join(file))? == "in\n", "{file}");
    }
    // What is not there keeps the pod waiting.
    ground.pod("missing", json!({
        "volumes": [volume("dir", "/missing", "Directory")],
        "containers": [{"script": "true", "volumeMounts": [{"name": "dir", "mountPath": "/dir"}]}],
    }))?;
    ground.event("FailedMount", "hostPath type check failed")
}

/// What `kubectl debug node` makes, with the RuntimeClass that it cannot ask for.
fn node_root(ground: &Ground<'_>) -> Result<()> {
    let container = json!({
        "script": "exec sleep 1000000", "securityContext": {"privileged": true},
        "volumeMounts": [{"name": "root", "mountPath": "/host", "mountPropagation": "HostToContainer"}],
    });
    ground.ready_pod(
        "app",
        json!({
            "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
            "containers": [container],
        }),
    )?;
    let script =
        "ls /host/run/containerd/containerd.sock; chroot /host ls -d /var/lib/kubelet/pods";
    let said = ground.exec("app", script)?;
    ensure!(
        said == "/host/run/containerd/containerd.sock\n/var/lib/kubelet/pods",
        "{said}"
    );
    Ok(())
}

fn propagation(ground: &Ground<'_>) -> Result<()> {
    let dir = ground.node_dir()?;
    let volumes = json!([{"name": "v", "hostPath": {"path": dir}}]);
    let container = |name: &str, how: &str, privileged: bool| {
        json!({
            "name": name, "script": "exec sleep 1000000", "securityContext": {"privileged": privileged},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": how}],
        })
    };
    ground.ready_pod(
        "app",
        json!({"volumes": volumes, "containers": [
            container("both", "Bidirectional", true),
            container("receives", "HostToContainer", false),
            container("private", "None", false),
        ]}),
    )?;
    let script = "mkdir /v/m && mount -t tmpfs none /v/m && echo inside >/v/m/file";
    ground.exec_in("app", "both", script)?;
    let seen =
        |name: &str| ground.exec_in("app", name, "cat /v/m/file 2>/dev/null || echo nothing");
    let (receives, private) = (seen("receives")?, seen("private")?);
    // The node's own would keep the directory busy.
    ground.exec_in("app", "both", "umount /v/m")?;
    ensure!(
        receives == "inside" && private == "nothing",
        "{receives}, {private}"
    );
    ensure!(seen("receives")? == "nothing", "it is still mounted");
    Ok(())
}

fn config_map(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
        "data": {"one": "first", "two": "second"}, "binaryData": {"raw": "AAEC"},
    }))?;
    let container = json!({
        "env": [{"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "one"}}}],
        "envFrom": [{"configMapRef": {"name": "config"}, "prefix": "ALL_"}],
        "volumeMounts": [
            {"name": "all", "mountPath": "/all"},
            {"name": "some", "mountPath": "/some"},
        ],
    });
    let spec = json!({"volumes": [
        {"name": "all", "configMap": {"name": "config"}},
        {"name": "some", "configMap": {
            "name": "config", "defaultMode": 0o400,
            "items": [{"key": "two", "path": "deep/name", "mode": 0o440}],
        }},
    ]});
    let script = "cat /all/one /all/two; wc -c </all/raw; stat -L -c %a /all/one /some/deep/name; ls /some; \
                  echo $ONE $ALL_two; echo x >/all/new || echo read-only";
    let said = ground.facts(container, spec, &format!("({script}) 2>/dev/null"))?;
    ensure!(
        said == "firstsecond3\n644\n440\ndeep\nfirst second\nread-only",
        "{said}"
    );
    Ok(())
}

/// The kubelet brings changes with its next look at the pod, within a minute or so.
fn changing(ground: &Ground<'_>) -> Result<()> {
    let map = |value: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
            "data": {"value": value},
        })
    };
    ground.create(map("old"))?;
    ground.ready_pod("app", json!({
        "volumes": [{"name": "v", "configMap": {"name": "config"}}],
        "containers": [{"script": "exec sleep 1000000", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    }))?;
    ground.call(&[
        "patch",
        "configmap",
        "config",
        "-p",
        r#"{"data": {"value": "new"}}"#,
    ])?;
    // A change of the pod makes the kubelet look now.
    ground.call(&["annotate", "pod", "app", "look=now"])?;
    ground.until("the change", || {
        Ok((ground.exec("app", "cat /v/value")? == "new").then_some(()))
    })
}

fn secret(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"},
        "stringData": {"key": "value"},
    }))?;
    let container = json!({
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    });
    let spec = json!({"volumes": [{"name": "v", "secret": {"secretName": "secret", "defaultMode": 0o400}}]});
    let script = "cat /v/key; echo; echo $KEY; stat -L -c %a /v/key; grep ' /v ' /proc/mounts | cut -d' ' -f3";
    let said = ground.facts(container, spec, script)?;
    ensure!(said == "value\nvalue\n400\ntmpfs", "{said}");
    Ok(())
}

fn projected(ground: &Ground<'_>) -> Result<()> {
    for (kind, name) in [("ConfigMap", "config"), ("Secret", "secret")] {
        let data = if kind == "Secret" {
            "stringData"
        } else {
            "data"
        };
        ground.create(json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name}, data: {name: name},
        }))?;
    }
    let (container, spec) = at_v(json!({"projected": {"sources": [
        {"configMap": {"name": "config"}},
        {"secret": {"name": "secret"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 3600}},
    ]}}));
    let script = "cat /v/config /v/secret /v/name; echo; \
                  tr -d '\\n' </v/token | cut -d. -f2 | tr '_-' '/+' | sed 's/$/==/' | base64 -d 2>/dev/null | grep -o '\"aud\":\\[\"me\"\\]'; \
                  ls /var/run/secrets/kubernetes.io/serviceaccount";
    let said = ground.facts(container, spec, script)?;
    ensure!(
        said == "configsecretfacts\n\"aud\":[\"me\"]\nca.crt\nnamespace\ntoken",
        "{said}"
    );
    Ok(())
}

fn downward(ground: &Ground<'_>) -> Result<()> {
    let (container, spec) = at_v(json!({"downwardAPI": {"items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "requests.cpu", "divisor": "1m"}},
    ]}}));
    let container = super::manifest::with(
        container,
        json!({"resources": {"requests": {"cpu": "20m"}}}),
    );
    let said = ground.facts(
        container,
        spec,
        "cat /v/labels; echo; cat /v/namespace; echo; cat /v/cpu",
    )?;
    ensure!(
        said == format!("app=\"facts\"\n{}\n20", ground.namespace()),
        "{said}"
    );
    Ok(())
}

fn sub_path(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
        "data": {"passwd": "one line\n"},
    }))?;
    let container = json!({
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [
            {"name": "v", "mountPath": "/v"},
            {"name": "v", "mountPath": "/a", "subPath": "a/below"},
            {"name": "v", "mountPath": "/own", "subPathExpr": "of-$(POD)"},
            {"name": "config", "mountPath": "/etc/one", "subPath": "passwd"},
        ],
    });
    let spec = json!({"volumes": [
        {"name": "v", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "config"}},
    ]});
    let script =
        "echo x >/a/file; echo y >/own/file; cat /v/a/below/file /v/of-facts/file /etc/one";
    let said = ground.facts(container, spec, script)?;
    ensure!(said == "x\ny\none line", "{said}");
    Ok(())
}

fn read_only(ground: &Ground<'_>) -> Result<()> {
    let dir = ground.node_dir()?;
    let outside = ground.on_node(&dir)?;
    fs::create_dir_all(outside.join("below"))?;
    {
        let cluster = ground.cluster();
        let node = cluster.worker(super::ground::NODE)?.node();
        node.run("mount", ["-t", "tmpfs", "none", &format!("{dir}/below")])?
            .ok()?;
    }
    let container = json!({"volumeMounts": [
        {"name": "v", "mountPath": "/plain", "readOnly": true},
        {"name": "v", "mountPath": "/all", "readOnly": true, "recursiveReadOnly": "Enabled"},
    ]});
    let spec = json!({"volumes": [{"name": "v", "hostPath": {"path": dir}}]});
    let script = "for at in /plain /plain/below /all /all/below; do touch $at/x 2>/dev/null && echo $at may || echo $at may not; done; rm -f /plain/below/x";
    let said = ground.facts(container, spec, script);
    ground.call(&["delete", "pod", "facts"])?;
    {
        let cluster = ground.cluster();
        let node = cluster.worker(super::ground::NODE)?.node();
        node.run("umount", [format!("{dir}/below")])?.ok()?;
    }
    let said = said?;
    ensure!(
        said == "/plain may not\n/plain/below may\n/all may not\n/all/below may not",
        "{said}"
    );
    Ok(())
}

fn image(ground: &Ground<'_>) -> Result<()> {
    let (container, spec) =
        at_v(json!({"image": {"reference": BUSYBOX, "pullPolicy": "IfNotPresent"}}));
    let said = ground.facts(
        container,
        spec,
        "ls -d /v/bin/busybox; touch /v/x 2>/dev/null || echo read-only",
    )?;
    ensure!(said == "/v/bin/busybox\nread-only", "{said}");
    Ok(())
}

fn persistent(ground: &Ground<'_>) -> Result<()> {
    let dir = ground.node_dir()?;
    let name = ground.namespace();
    ground.create(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
            "hostPath": {"path": dir},
        },
    }))?;
    ground.create(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": name,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }))?;
    let spec = json!({
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}],
        "containers": [{"script": "exec sleep 1000000", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    });
    ground.ready_pod("first", spec.clone())?;
    ground.exec("first", "echo kept >/v/file")?;
    ground.call(&["delete", "pod", "first"])?;
    ground.ready_pod("second", spec)?;
    let said = ground.exec("second", "cat /v/file");
    ground.call(&["delete", "persistentvolume", name, "--wait=false"])?;
    ensure!(said? == "kept", "it was not kept");
    ground.ready_pod("third", json!({"containers": [waiting()]}))
}
