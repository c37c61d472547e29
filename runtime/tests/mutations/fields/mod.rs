//! Every field of the OCI runtime spec 1.3 that is about Linux, with values that are
//! right and values that are wrong, one after the other.

mod linux;
mod process;
mod resources;
mod whole;

use serde_json::{Value, json};

use crate::mutate::set;
use crate::specs::Specs;

type Values = fn() -> Vec<Value>;

/// A place, right values, wrong values.
pub(crate) type Field = (&'static str, Values, Values);

/// All of them.
pub(crate) fn all() -> Vec<Field> {
    [
        whole::FIELDS,
        process::FIELDS,
        linux::FIELDS,
        resources::FIELDS,
    ]
    .concat()
}

/// The explicit cases: nothing at all, the three specs as they are, every field.
pub(crate) fn cases(specs: &Specs) -> Vec<(String, Value)> {
    let mut cases = vec![
        ("an empty spec".to_owned(), json!({})),
        ("no object".to_owned(), json!([])),
        ("null".to_owned(), json!(null)),
    ];
    for (name, spec) in &specs.0 {
        cases.push(((*name).to_owned(), spec.clone()));
    }
    let plain = specs.get("ctr");
    for top in ["process", "root", "mounts", "hostname", "ociVersion"] {
        let mut spec = plain.clone();
        spec.as_object_mut().unwrap().remove(top);
        cases.push((format!("no {top}"), spec));
    }
    cases.extend(together(&plain));
    for (at, good, bad) in all() {
        for (what, values) in [("right", good()), ("wrong", bad())] {
            for value in values {
                let mut spec = plain.clone();
                set(&mut spec, at, value.clone());
                cases.push((format!("{at} = {value} ({what})"), spec));
            }
        }
    }
    cases
}

/// Fields that mean something only beside others.
fn together(plain: &Value) -> Vec<(String, Value)> {
    let mut cases = Vec::new();
    let mut add = |what: &str, changes: &[(&str, Value)]| {
        let mut spec = plain.clone();
        for (at, value) in changes {
            set(&mut spec, at, value.clone());
        }
        cases.push((what.to_owned(), spec));
    };
    let mut namespaces = plain["linux"]["namespaces"].as_array().unwrap().clone();
    namespaces.push(json!({"type": "time"}));
    let time = ("/linux/namespaces", json!(namespaces));
    for (what, offsets) in [
        ("no time offsets", json!({})),
        (
            "a time offset",
            json!({"boottime": {"secs": 7, "nanosecs": 5}}),
        ),
        (
            "both time offsets",
            json!({"boottime": {"secs": 7}, "monotonic": {"nanosecs": 9}}),
        ),
        (
            "a time before the beginning",
            json!({"monotonic": {"secs": -1_000_000_000}}),
        ),
        (
            "too many nanoseconds",
            json!({"monotonic": {"nanosecs": 2_000_000_000}}),
        ),
        ("an unknown clock", json!({"realtime": {"secs": 7}})),
        ("an offset that is none", json!({"monotonic": 7})),
    ] {
        add(what, &[time.clone(), ("/linux/timeOffsets", offsets)]);
    }
    namespaces.pop();
    namespaces.push(json!({"type": "user"}));
    let user = ("/linux/namespaces", json!(namespaces));
    let ids = |host: u32, size: u32| json!([{"containerID": 0, "hostID": host, "size": size}]);
    for (what, uids, gids) in [
        ("a user namespace", ids(0, 65_536), ids(0, 65_536)),
        ("a user namespace without groups", ids(0, 65_536), json!([])),
        ("a user namespace of nobody", ids(0, 0), ids(0, 0)),
        ("a user namespace without maps", json!(null), json!(null)),
    ] {
        let maps = [("/linux/uidMappings", uids), ("/linux/gidMappings", gids)];
        add(what, &[user.clone(), maps[0].clone(), maps[1].clone()]);
    }
    let no_network: Vec<&Value> = namespaces
        .iter()
        .filter(|one| one["type"] != "network" && one["type"] != "user")
        .collect();
    add(
        "a device for a network that is the node's",
        &[
            ("/linux/namespaces", json!(no_network)),
            ("/linux/netDevices", json!({"lo": {"name": "eth7"}})),
        ],
    );
    cases
}
