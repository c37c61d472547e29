//! `reprise node uninstall-everywhere`: turns the installer's pods of a cluster into ones
//! that put their node back, and waits until all have.

use std::thread::sleep;
use std::time::Duration;

use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::Said;
use super::cluster::api::{Api, Merge};

/// The init container that works on the node, as the chart calls it.
const CONTAINER: &str = "node";
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Does it. It waits as long as it takes: a node whose pods still run is not done.
///
/// # Errors
/// The API server's.
pub(super) fn run(daemonset: &str, args: &[String]) -> Result<Said> {
    let Some((namespace, name)) = daemonset.split_once('/') else {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{daemonset:?} is not NAMESPACE/NAME of a DaemonSet"),
        ));
    };
    let api = Api::of_this_pod()?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
    let mut there = api.patch(&path, Merge::Strategic, &patch(args))?;
    loop {
        if let Some(nodes) = done(&there) {
            let mut said = Said::default();
            said.line(format!("Reprise is removed from all {nodes} nodes"));
            return Ok(said);
        }
        sleep(PAUSE);
        there = match api.get(&path) {
            // An API server may well be upgraded meanwhile.
            Err(error) if error.kind == ErrorKind::Unavailable => continue,
            answer => answer?,
        };
    }
}

/// A node that waits for its last pods must not hold up the others.
fn patch(args: &[String]) -> Value {
    let command = ["reprise", "node", "uninstall"];
    let container = json!({ "name": CONTAINER, "command": command, "args": args });
    json!({ "spec": {
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": "100%" } },
        "template": { "spec": { "initContainers": [container] } },
    }})
}

/// On how many nodes it is done, once it is on all. A number that is not there is 0.
fn done(daemonset: &Value) -> Option<u64> {
    let status = |field: &str| daemonset["status"][field].as_u64().unwrap_or(0);
    let generation = daemonset["metadata"]["generation"].as_u64()?;
    let wanted = status("desiredNumberScheduled");
    let all = status("observedGeneration") >= generation
        && status("updatedNumberScheduled") == wanted
        && status("numberReady") == wanted;
    all.then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_all_pods_are_new_and_ready() {
        let set = |observed, updated, ready| {
            let status = json!({ "observedGeneration": observed, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": updated, "numberReady": ready });
            json!({ "metadata": { "generation": 2 }, "status": status })
        };
        assert_eq!(done(&set(2, 3, 3)), Some(3));
        assert_eq!(done(&set(1, 3, 3)), None);
        assert_eq!(done(&set(2, 2, 3)), None);
        assert_eq!(done(&set(2, 3, 2)), None);
        // No node at all: fields that are zero are missing.
        let none =
            json!({ "metadata": { "generation": 1 }, "status": { "observedGeneration": 1 } });
        assert_eq!(done(&none), Some(0));
        assert_eq!(done(&json!({})), None);
    }
}
