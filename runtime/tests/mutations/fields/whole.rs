//! The whole of a spec: names, root, mounts, hooks, what is of other systems.

use serde_json::json;

use super::Field;
use crate::specs::{DIR, FILE};

pub(super) const FIELDS: &[Field] = &[
    (
        "/ociVersion",
        || vec![json!("1.0.0"), json!("1.3.0"), json!("1.0.2-dev")],
        || vec![json!(""), json!("2.0.0"), json!("x"), json!(1)],
    ),
    (
        "/hostname",
        || vec![json!("other"), json!("")],
        || vec![json!("x".repeat(65)), json!(7)],
    ),
    (
        "/domainname",
        || vec![json!("example.org")],
        || vec![json!("x".repeat(65)), json!([])],
    ),
    (
        "/annotations",
        || vec![json!({"a": "b"}), json!({"org.systemd.property.X": "1"})],
        || vec![json!({"a": 1}), json!([])],
    ),
    (
        "/root/readonly",
        || vec![json!(true), json!(false)],
        || vec![json!("yes"), json!(1)],
    ),
    (
        "/root/path",
        || vec![json!("rootfs/"), json!("./rootfs")],
        || vec![json!(""), json!("nowhere"), json!(1)],
    ),
    (
        "/mounts/0",
        || vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})],
        || {
            vec![
                json!({}),
                json!({"destination": "/proc", "type": "nosuchfs", "source": "x"}),
                json!({"destination": 1}),
                json!({"source": "x"}),
                json!(null),
                json!("x"),
                json!({"destination": "", "type": "tmpfs"}),
                json!({"destination": "relative", "type": "tmpfs", "source": "tmpfs"}),
            ]
        },
    ),
    (
        "/mounts/2",
        || {
            vec![
                json!({"destination": "/new/place", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "ro"]}),
                json!({"destination": "/bound", "source": FILE, "options": ["bind"]}),
                json!({"destination": "/bound", "type": "none", "source": DIR, "options": ["rbind", "rro", "nosuid", "nodev", "noexec", "noatime"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "rslave"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "private"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "options": ["tmpcopyup", "nosymfollow", "X-unknown=1"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind", "idmap"], "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}], "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
                json!({"destination": "/etc/../elsewhere", "type": "tmpfs", "source": "tmpfs"}),
            ]
        },
        || {
            vec![
                json!({"destination": "/bound", "type": "bind", "source": "/nowhere", "options": ["rbind"]}),
                json!({"destination": "/bound", "type": "bind", "options": ["rbind"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["size=x"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["no_such_option"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": [""]}),
                json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/proc/self/attr", "type": "bind", "source": DIR, "options": ["bind"]}),
                json!({"destination": "/sys/x", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind", "idmap"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
                json!({"destination": "/etc/passwd", "type": "bind", "source": DIR, "options": ["bind"]}),
                json!({"destination": "/etc/passwd/below", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": "bind"}),
            ]
        },
    ),
    (
        "/mounts",
        || vec![json!([]), json!(null)],
        || vec![json!({}), json!("x"), json!([null])],
    ),
    (
        "/hooks",
        || {
            vec![
                json!({}),
                json!({"createRuntime": [{"path": "/bin/true"}]}),
                json!({"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]}),
                json!({"createContainer": [{"path": "/bin/true"}]}),
                json!({"startContainer": [{"path": "/bin/true"}]}),
                json!({"poststart": [{"path": "/bin/true"}]}),
                json!({"poststop": [{"path": "/bin/true"}]}),
                json!({"poststop": [{"path": "/bin/false"}]}),
            ]
        },
        || {
            vec![
                json!({"createRuntime": [{"path": "/bin/false"}]}),
                json!({"prestart": [{"path": "/nowhere"}]}),
                json!({"createContainer": [{"path": "/bin/false"}]}),
                json!({"startContainer": [{"path": "/bin/false"}]}),
                json!({"poststart": [{"path": "/bin/false"}]}),
                json!({"createRuntime": [{"path": "relative"}]}),
                json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]}),
                json!({"createRuntime": [{"path": "/bin/true", "timeout": -1}]}),
                json!({"createRuntime": {"path": "/bin/true"}}),
                json!({"createRuntime": [{}]}),
                json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "9"], "timeout": 1}]}),
            ]
        },
    ),
    ("/unknown", || vec![json!({"a": []})], || vec![]),
    (
        "/windows",
        || vec![json!({"layerFolders": ["x"]})],
        || vec![json!(1)],
    ),
    (
        "/vm",
        || vec![json!({"kernel": {"path": "/x"}})],
        || vec![json!(1)],
    ),
    ("/solaris", || vec![json!({})], || vec![json!(1)]),
    ("/zos", || vec![json!({})], || vec![json!(1)]),
    ("/freebsd", || vec![json!({})], || vec![json!(1)]),
];
