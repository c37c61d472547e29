//! How much a node keeps: which checkpoints have to go. Pure.
//!
//! Too old ones go first; then, while a namespace or the node is above its quota, the
//! one whose last restore (or making, if there was none) is longest ago. One that a
//! container uses never goes, so that a quota may stay exceeded.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::{LimitsConfig, Quota};

const DAY_MS: u64 = 86_400_000;

/// A checkpoint, as far as limits care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Whose it is: the pod's namespace, else containerd's.
    pub namespace: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// Milliseconds since the epoch.
    pub created_unix_ms: u64,
    /// Milliseconds since the epoch; `None` if nothing was restored from it yet.
    pub restored_unix_ms: Option<u64>,
    /// A container that was restored from it is there.
    pub in_use: bool,
}

impl Kept {
    fn used_unix_ms(&self) -> u64 {
        self.restored_unix_ms
            .map_or(self.created_unix_ms, |restored| {
                restored.max(self.created_unix_ms)
            })
    }
}

/// Why a checkpoint has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surplus {
    /// It was neither made nor restored for longer than `limits.max_age_days`.
    Age,
    /// Its namespace has more than it may.
    Namespace,
    /// The node has more than it may.
    Node,
}

impl std::fmt::Display for Surplus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Age => "unused for longer than limits.max_age_days",
            Self::Namespace => "its namespace is above limits.namespace_bytes or namespace_count",
            Self::Node => "the node is above limits.node_bytes or node_count",
        })
    }
}

/// What has to go, in the order in which it does.
#[must_use]
pub fn surplus<'a>(
    limits: &LimitsConfig,
    kept: &'a [Kept],
    now_unix_ms: u64,
) -> Vec<(&'a Kept, Surplus)> {
    let mut oldest_first: Vec<&Kept> = kept.iter().collect();
    oldest_first.sort_by_key(|one| (one.used_unix_ms(), &one.id));
    let mut held: BTreeMap<&str, Held> = BTreeMap::new();
    for one in kept {
        held.entry(&one.namespace).or_default().add(one);
    }
    let mut gone = Vec::new();
    let mut ids = BTreeSet::new();
    let too_old = |one: &Kept| {
        let age_ms = now_unix_ms.saturating_sub(one.used_unix_ms());
        limits.max_age_days > 0 && age_ms > u64::from(limits.max_age_days) * DAY_MS
    };
    for why in [Surplus::Age, Surplus::Namespace, Surplus::Node] {
        for one in oldest_first.iter().filter(|one| !one.in_use) {
            let namespace = held
                .get(one.namespace.as_str())
                .copied()
                .unwrap_or_default();
            let goes = match why {
                Surplus::Age => too_old(one),
                Surplus::Namespace => namespace.is_above(limits.namespace()),
                Surplus::Node => Held::sum(held.values()).is_above(limits.node()),
            };
            if goes && ids.insert(&one.id) {
                held.entry(&one.namespace).or_default().take(one);
                gone.push((*one, why));
            }
        }
    }
    gone
}

/// What is there of one namespace, or of all.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    bytes: u64,
    count: u64,
}

impl Held {
    fn add(&mut self, one: &Kept) {
        self.bytes = self.bytes.saturating_add(one.bytes);
        self.count += 1;
    }

    fn take(&mut self, one: &Kept) {
        self.bytes = self.bytes.saturating_sub(one.bytes);
        self.count -= 1;
    }

    fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            bytes: sum.bytes.saturating_add(one.bytes),
            count: sum.count + one.count,
        })
    }

    fn is_above(self, quota: Quota) -> bool {
        let above = |held: u64, limit: u64| limit > 0 && held > limit;
        above(self.bytes, quota.bytes) || above(self.count, quota.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 100 * DAY_MS;

    fn kept(id: &str, namespace: &str, bytes: u64, days_ago: u64) -> Kept {
        Kept {
            id: id.to_owned(),
            namespace: namespace.to_owned(),
            bytes,
            created_unix_ms: NOW - days_ago * DAY_MS,
            restored_unix_ms: None,
            in_use: false,
        }
    }

    fn gone(limits: &LimitsConfig, all: &[Kept]) -> Vec<String> {
        let gone = surplus(limits, all, NOW).into_iter();
        gone.map(|(one, why)| format!("{} {why:?}", one.id))
            .collect()
    }

    #[test]
    fn without_limits_everything_stays() {
        let all = [kept("a", "x", u64::MAX, 99), kept("b", "x", u64::MAX, 0)];
        assert!(gone(&LimitsConfig::default(), &all).is_empty());
    }

    #[test]
    fn the_least_recently_restored_goes_first() {
        let mut all = [
            kept("new", "x", 10, 1),
            kept("old", "x", 10, 9),
            kept("loved", "x", 10, 20),
        ];
        all[2].restored_unix_ms = Some(NOW - 60_000);
        let limits = LimitsConfig {
            node_count: 2,
            ..Default::default()
        };
        assert_eq!(gone(&limits, &all), ["old Node"]);
        all[1].in_use = true;
        assert_eq!(gone(&limits, &all), ["new Node"]);
    }

    #[test]
    fn a_namespace_pays_for_itself() {
        let all = [
            kept("a1", "a", 60, 2),
            kept("a2", "a", 60, 1),
            kept("b1", "b", 60, 5),
        ];
        let limits = LimitsConfig {
            namespace_bytes: 100,
            node_bytes: 130,
            ..Default::default()
        };
        assert_eq!(gone(&limits, &all), ["a1 Namespace"]);
    }

    #[test]
    fn age_counts_from_the_last_restore() {
        let mut all = [kept("a", "x", 1, 40), kept("b", "x", 1, 40)];
        all[1].restored_unix_ms = Some(NOW - DAY_MS);
        let limits = LimitsConfig {
            max_age_days: 30,
            ..Default::default()
        };
        assert_eq!(gone(&limits, &all), ["a Age"]);
    }

    fn any_kept() -> impl Strategy<Value = Vec<Kept>> {
        let one = (0_u64..4, 0_u64..100, 0_u64..60, any::<bool>());
        prop::collection::vec(one, 0..20).prop_map(|all| {
            let numbered = all.into_iter().enumerate();
            numbered
                .map(|(n, (namespace, bytes, days, in_use))| Kept {
                    in_use,
                    ..kept(&n.to_string(), &namespace.to_string(), bytes, days)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn quotas_hold_as_far_as_use_allows(
            all in any_kept(), node_bytes in 0_u64..500, node_count in 0_u64..10,
            namespace_bytes in 0_u64..200, namespace_count in 0_u64..5,
        ) {
            let limits = LimitsConfig {
                node_bytes, node_count, namespace_bytes, namespace_count, max_age_days: 0,
            };
            let gone = surplus(&limits, &all, NOW);
            prop_assert!(gone.iter().all(|(one, _)| !one.in_use));
            let ids: BTreeSet<&str> = gone.iter().map(|(one, _)| one.id.as_str()).collect();
            prop_assert_eq!(ids.len(), gone.len());
            let left: Vec<&Kept> = all.iter().filter(|o| !ids.contains(o.id.as_str())).collect();
            let held = |of: &[&Kept]| {
                let mut held = Held::default();
                of.iter().for_each(|one| held.add(one));
                held
            };
            prop_assert!(!held(&left).is_above(limits.node()) || left.iter().all(|o| o.in_use));
            for namespace in 0..4_u64 {
                let own: Vec<&Kept> = left.iter().copied()
                    .filter(|one| one.namespace == namespace.to_string()).collect();
                prop_assert!(
                    !held(&own).is_above(limits.namespace()) || own.iter().all(|o| o.in_use)
                );
            }
            // Nothing goes without need: with the last one back, a quota is exceeded.
            if let Some((last, _)) = gone.last() {
                let mut more = left.clone();
                more.push(last);
                let own: Vec<&Kept> = more.iter().copied()
                    .filter(|one| one.namespace == last.namespace).collect();
                prop_assert!(
                    held(&more).is_above(limits.node()) || held(&own).is_above(limits.namespace())
                );
            }
        }
    }
}
