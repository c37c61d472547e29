//! The environment of a container, without what names its pod or the neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The environment without per-pod names, sorted by name; of several lines with
/// one name the order stays.
pub(super) fn environment(env: &[String]) -> Vec<&String> {
    let mut kept: Vec<(&str, &String)> = Vec::new();
    let services = services(env);
    for line in env {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        if name != "HOSTNAME" && !of_service(name, &services) {
            kept.push((name, line));
        }
    }
    kept.sort_by_key(|(name, _)| *name);
    kept.into_iter().map(|(_, line)| line).collect()
}

/// Prefixes of the services that the kubelet announces in an environment.
fn services(env: &[String]) -> BTreeSet<&str> {
    let pairs: BTreeMap<&str, &str> = env.iter().filter_map(|l| l.split_once('=')).collect();
    pairs
        .iter()
        .filter_map(|(name, value)| {
            let service = name.strip_suffix("_SERVICE_HOST")?;
            value.parse::<IpAddr>().ok()?;
            let url = pairs.get(format!("{service}_PORT").as_str())?;
            url.split_once("://")
                .is_some_and(|(scheme, _)| matches!(scheme, "tcp" | "udp" | "sctp"))
                .then_some(service)
        })
        .collect()
}

fn of_service(name: &str, services: &BTreeSet<&str>) -> bool {
    services.iter().any(|service| {
        let Some(rest) = name.strip_prefix(service) else {
            return false;
        };
        if matches!(rest, "_SERVICE_HOST" | "_SERVICE_PORT" | "_PORT")
            || rest.starts_with("_SERVICE_PORT_")
        {
            return true;
        }
        let mut words = rest.strip_prefix("_PORT_").unwrap_or_default().split('_');
        let number = words.next().unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && words.next().is_none()
    })
}
