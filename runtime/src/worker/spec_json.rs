//! A spec's JSON as Go reads it. containerd and runc are Go: a missing field, null
//! and an empty string are the same to them, names match in any case, unknown ones
//! are skipped, and an element that is null is one with nothing in it. The crate
//! that describes the spec to us is stricter here and laxer there, so what it gets
//! is brought into one form first. Wrong types are refused as there.

use serde_json::{Map, Value};

/// What belongs in a place.
enum Kind {
    /// A string; when it is optional, an empty one is none.
    Text,
    Flag,
    /// An integer of a Go type, with its bounds.
    Number(&'static str, i128, i128),
    List(&'static Kind),
    Table(&'static Kind),
    Object(&'static [Field]),
    /// An object about another system, which is not looked into.
    Foreign,
}

/// A name, what belongs there, and whether the crate must find something there.
struct Field(&'static str, Kind, Need);

#[derive(PartialEq)]
enum Need {
    Optional,
    /// Nothing there means zero, or the empty string.
    Always,
}

use Kind::{Flag, Foreign, List, Number, Object, Table, Text};
use Need::{Always, Optional};

const I32: Kind = Number("int32", i32::MIN as i128, i32::MAX as i128);
const I64: Kind = Number("int64", i64::MIN as i128, i64::MAX as i128);
const U16: Kind = Number("uint16", 0, u16::MAX as i128);
const U32: Kind = Number("uint32", 0, u32::MAX as i128);
const U64: Kind = Number("uint64", 0, u64::MAX as i128);
const TEXTS: Kind = List(&Text);

macro_rules! fields {
    ($($name:literal: $kind:expr $(=> $need:ident)?),* $(,)?) => {
        &[$(Field($name, $kind, fields!(@ $($need)?))),*]
    };
    (@) => { Optional };
    (@ $need:ident) => { $need };
}

const SPEC: Kind = Object(fields! {
    "ociVersion": Text => Always,
    "process": PROCESS,
    "root": Object(fields! { "path": Text => Always, "readonly": Flag }),
    "hostname": Text,
    "domainname": Text,
    "mounts": List(&MOUNT),
    "hooks": Object(fields! {
        "prestart": List(&HOOK),
        "createRuntime": List(&HOOK),
        "createContainer": List(&HOOK),
        "startContainer": List(&HOOK),
        "poststart": List(&HOOK),
        "poststop": List(&HOOK),
    }),
    "annotations": Table(&Text),
    "linux": LINUX,
    "solaris": Foreign,
    "windows": Foreign,
    "vm": Foreign,
    "zos": Foreign,
    "freebsd": Foreign,
});

const PROCESS: Kind = Object(fields! {
    "terminal": Flag,
    "consoleSize": Object(fields! { "height": U64 => Always, "width": U64 => Always }),
    "user": Object(fields! {
        "uid": U32 => Always,
        "gid": U32 => Always,
        "umask": U32,
        "additionalGids": List(&U32),
        "username": Text,
    }) => Always,
    "args": TEXTS,
    "commandLine": Text,
    "env": TEXTS,
    "cwd": Text => Always,
    "capabilities": Object(fields! {
        "bounding": TEXTS,
        "effective": TEXTS,
        "inheritable": TEXTS,
        "permitted": TEXTS,
        "ambient": TEXTS,
    }),
    "rlimits": List(&Object(fields! {
        "type": Text => Always,
        "hard": U64 => Always,
        "soft": U64 => Always,
    })),
    "noNewPrivileges": Flag,
    "apparmorProfile": Text,
    "oomScoreAdj": I64,
    "scheduler": Object(fields! {
        "policy": Text => Always,
        "nice": I32,
        "priority": I32,
        "flags": TEXTS,
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    }),
    "selinuxLabel": Text,
    "ioPriority": Object(fields! { "class": Text => Always, "priority": I64 => Always }),
    "execCPUAffinity": Object(fields! { "initial": Text, "final": Text }),
});

const MAPPING: Kind = Object(fields! {
    "containerID": U32 => Always,
    "hostID": U32 => Always,
    "size": U32 => Always,
});

const MOUNT: Kind = Object(fields! {
    "destination": Text => Always,
    "type": Text,
    "source": Text,
    "options": TEXTS,
    "uidMappings": List(&MAPPING),
    "gidMappings": List(&MAPPING),
});

const HOOK: Kind = Object(fields! {
    "path": Text => Always,
    "args": TEXTS,
    "env": TEXTS,
    "timeout": I64,
});

const LINUX: Kind = Object(fields! {
    "uidMappings": List(&MAPPING),
    "gidMappings": List(&MAPPING),
    "sysctl": Table(&Text),
    "resources": RESOURCES,
    "cgroupsPath": Text,
    "namespaces": List(&Object(fields! { "type": Text => Always, "path": Text })),
    "devices": List(&Object(fields! {
        "path": Text => Always,
        "type": Text => Always,
        "major": I64 => Always,
        "minor": I64 => Always,
        "fileMode": U32,
        "uid": U32,
        "gid": U32,
    })),
    "netDevices": Table(&Object(fields! { "name": Text })),
    "seccomp": SECCOMP,
    "rootfsPropagation": Text,
    "maskedPaths": TEXTS,
    "readonlyPaths": TEXTS,
    "mountLabel": Text,
    "intelRdt": Object(fields! {
        "closID": Text,
        "schemata": TEXTS,
        "l3CacheSchema": Text,
        "memBwSchema": Text,
        "enableMonitoring": Flag,
    }),
    "memoryPolicy": Object(fields! { "mode": Text => Always, "nodes": Text, "flags": TEXTS }),
    "personality": Object(fields! { "domain": Text => Always, "flags": TEXTS }),
    "timeOffsets": Table(&Object(fields! { "secs": I64, "nanosecs": U32 })),
});

const SECCOMP: Kind = Object(fields! {
    "defaultAction": Text => Always,
    "defaultErrnoRet": U32,
    "architectures": TEXTS,
    "flags": TEXTS,
    "listenerPath": Text,
    "listenerMetadata": Text,
    "syscalls": List(&Object(fields! {
        "names": TEXTS => Always,
        "action": Text => Always,
        "errnoRet": U32,
        "args": List(&Object(fields! {
            "index": U64 => Always,
            "value": U64 => Always,
            "valueTwo": U64,
            "op": Text => Always,
        })),
    })),
});

const THROTTLE: Kind = List(&Object(fields! {
    "major": I64 => Always,
    "minor": I64 => Always,
    "rate": U64 => Always,
}));

const RESOURCES: Kind = Object(fields! {
    "devices": List(&Object(fields! {
        "allow": Flag => Always,
        "type": Text,
        "major": I64,
        "minor": I64,
        "access": Text,
    })),
    "memory": Object(fields! {
        "limit": I64,
        "reservation": I64,
        "swap": I64,
        "kernel": I64,
        "kernelTCP": I64,
        "swappiness": U64,
        "disableOOMKiller": Flag,
        "useHierarchy": Flag,
        "checkBeforeUpdate": Flag,
    }),
    "cpu": Object(fields! {
        "shares": U64,
        "quota": I64,
        "burst": U64,
        "period": U64,
        "realtimeRuntime": I64,
        "realtimePeriod": U64,
        "cpus": Text,
        "mems": Text,
        "idle": I64,
    }),
    "pids": Object(fields! { "limit": I64 }),
    "blockIO": Object(fields! {
        "weight": U16,
        "leafWeight": U16,
        "weightDevice": List(&Object(fields! {
            "major": I64 => Always,
            "minor": I64 => Always,
            "weight": U16,
            "leafWeight": U16,
        })),
        "throttleReadBpsDevice": THROTTLE,
        "throttleWriteBpsDevice": THROTTLE,
        "throttleReadIOPSDevice": THROTTLE,
        "throttleWriteIOPSDevice": THROTTLE,
    }),
    "hugepageLimits": List(&Object(fields! { "pageSize": Text => Always, "limit": U64 => Always })),
    "network": Object(fields! {
        "classID": U32,
        "priorities": List(&Object(fields! { "name": Text => Always, "priority": U32 => Always })),
    }),
    "rdma": Table(&Object(fields! { "hcaHandles": U32, "hcaObjects": U32 })),
    "unified": Table(&Text),
});

/// The spec in the one form: exact names, no null, nothing unknown, zero where the
/// crate must find something. An error names the place and what belongs there.
pub(super) fn as_go_reads(value: Value) -> Result<Value, String> {
    let value = if value.is_null() { zero(&SPEC) } else { value };
    read(value, &SPEC, "")
}

/// `linux.resources` on their own, as an update brings them, in the one form.
pub(super) fn resources_as_go_reads(value: Value) -> Result<Value, String> {
    read(value, &RESOURCES, "resources")
}

fn read(value: Value, kind: &Kind, at: &str) -> Result<Value, String> {
    match (kind, value) {
        (_, Value::Null) => Ok(zero(kind)),
        (Text, text @ Value::String(_)) | (Flag, text @ Value::Bool(_)) => Ok(text),
        (Number(_, least, most), Value::Number(n)) if fits(&n, *least, *most) => Ok(n.into()),
        (List(kind), Value::Array(list)) => {
            let each = |(i, one)| read(one, kind, &format!("{at}[{i}]"));
            list.into_iter().enumerate().map(each).collect()
        }
        (Table(kind), Value::Object(map)) => {
            let each = |(key, one)| {
                let one = read(one, kind, &format!("{at}[{key:?}]"))?;
                Ok((key, one))
            };
            map.into_iter().map(each).collect()
        }
        (Object(fields), Value::Object(map)) => read_object(map, fields, at),
        (Foreign, Value::Object(_)) => Ok(Value::Null),
        (kind, value) => Err(mismatch(&value, kind, at)),
    }
}

fn read_object(map: Map<String, Value>, fields: &[Field], at: &str) -> Result<Value, String> {
    let mut object = Map::new();
    for (key, value) in map {
        let exact = fields.iter().find(|field| field.0 == key);
        let alike = || {
            fields
                .iter()
                .find(|field| field.0.eq_ignore_ascii_case(&key))
        };
        let Some(Field(name, kind, need)) = exact.or_else(alike) else {
            continue;
        };
        let place = if at.is_empty() {
            (*name).to_owned()
        } else {
            format!("{at}.{name}")
        };
        let nothing = value.is_null();
        let value = read(value, kind, &place)?;
        let empty = nothing || value.is_null() || matches!(kind, Text) && value == "";
        if !empty || *need == Always {
            object.insert((*name).to_owned(), value);
        }
    }
    for Field(name, kind, _) in fields.iter().filter(|field| field.2 == Always) {
        if !object.contains_key(*name) {
            object.insert((*name).to_owned(), zero(kind));
        }
    }
    Ok(Value::Object(object))
}

fn zero(kind: &Kind) -> Value {
    match kind {
        Text => Value::String(String::new()),
        Flag => Value::Bool(false),
        Number(..) => Value::from(0),
        List(_) => Value::Array(Vec::new()),
        Table(_) => Value::Object(Map::new()),
        // Cannot fail: there is nothing in it that could be wrong.
        Object(fields) => read_object(Map::new(), fields, "").unwrap_or_default(),
        Foreign => Value::Null,
    }
}

fn fits(number: &serde_json::Number, least: i128, most: i128) -> bool {
    let number = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    number.is_some_and(|n| (least..=most).contains(&n))
}

fn mismatch(value: &Value, kind: &Kind, at: &str) -> String {
    let is = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    let belongs = match kind {
        Text => "string",
        Flag => "bool",
        Number(name, ..) => name,
        List(_) => "list",
        Table(_) => "map",
        Object(_) | Foreign => "object",
    };
    let at = if at.is_empty() { "the spec" } else { at };
    format!("cannot unmarshal {is} into {at} of type {belongs}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> Value {
        as_go_reads(value).unwrap()
    }

    #[test]
    fn missing_null_and_empty_are_the_same() {
        let bare = spec(json!({}));
        assert_eq!(bare, json!({"ociVersion": ""}));
        assert_eq!(spec(json!(null)), bare);
        assert_eq!(
            spec(json!({"hostname": "", "linux": null, "mounts": null})),
            bare
        );
        let linux =
            json!({"linux": {"mountLabel": "", "namespaces": [{"type": "pid", "path": ""}]}});
        assert_eq!(
            spec(linux)["linux"],
            json!({"namespaces": [{"type": "pid"}]})
        );
    }

    #[test]
    fn names_match_in_any_case_and_unknown_ones_are_skipped() {
        let odd = spec(json!({"HostName": "a", "x": [1], "process": {"CWD": "/"}}));
        assert_eq!(odd["hostname"], "a");
        assert_eq!(
            odd["process"],
            json!({"cwd": "/", "user": {"uid": 0, "gid": 0}})
        );
        assert!(odd.get("x").is_none());
    }

    #[test]
    fn an_element_that_is_null_is_an_empty_one() {
        let odd = spec(json!({"mounts": [null], "process": {"args": [null]}}));
        assert_eq!(odd["mounts"], json!([{"destination": ""}]));
        assert_eq!(odd["process"]["args"], json!([""]));
    }

    #[test]
    fn wrong_types_are_named() {
        let error = |value| as_go_reads(value).unwrap_err();
        assert_eq!(
            error(json!({"process": {"user": {"uid": -1}}})),
            "cannot unmarshal number -1 into process.user.uid of type uint32"
        );
        assert_eq!(
            error(json!({"mounts": [{}, {"options": "ro"}]})),
            "cannot unmarshal string into mounts[1].options of type list"
        );
        assert!(error(json!({"process": {"oomScoreAdj": 2.0}})).contains("number 2.0"));
        assert!(error(json!({"annotations": {"a": 1}})).contains("annotations[\"a\"]"));
        assert_eq!(
            error(json!([])),
            "cannot unmarshal array into the spec of type object"
        );
        assert!(as_go_reads(json!({"vm": 1})).is_err());
    }

    #[test]
    fn what_containerd_writes_stays_as_it_is() {
        let mut value = serde_json::to_value(oci_spec::runtime::Spec::default()).unwrap();
        let (before, mut after) = (value.clone(), spec(value.take()));
        // What is not on by default is not written.
        after["root"]["readonly"] = before["root"]["readonly"].clone();
        assert_eq!(after, before);
    }
}
