//! `linux.resources` as JSON, where the OCI library reads it otherwise than runc
//! does. Pure.

use serde_json::Value;

/// Makes `linux.resources` mean to the library what they mean to runc: a limit of
/// huge pages beyond its range is none to the kernel either way, and `pids`
/// without a limit is not a limit of zero. Whether something had to be changed.
pub(crate) fn fit(resources: &mut Value) -> bool {
    let mut changed = false;
    if let Some(all) = resources
        .get_mut("hugepageLimits")
        .and_then(Value::as_array_mut)
    {
        for limit in all.iter_mut().filter_map(|one| one.get_mut("limit")) {
            if limit.as_u64().is_some_and(|n| i64::try_from(n).is_err()) {
                *limit = i64::MAX.into();
                changed = true;
            }
        }
    }
    let no_limit = |pids: &Value| pids.get("limit").is_none_or(Value::is_null);
    if resources.get("pids").is_some_and(no_limit)
        && let Some(all) = resources.as_object_mut()
    {
        changed |= all.remove("pids").is_some();
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_reads_otherwise_is_fitted() {
        let json = br#"{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615},
            {"pageSize":"1GB","limit":4096}],"pids":{}}"#;
        let mut value: Value = serde_json::from_slice(json).unwrap();
        assert!(fit(&mut value));
        assert_eq!(value["hugepageLimits"][0]["limit"], i64::MAX);
        assert_eq!(value["hugepageLimits"][1]["limit"], 4096);
        assert_eq!(value.get("pids"), None);
    }

    #[test]
    fn what_is_right_stays_as_it_is() {
        for limit in [0, 7] {
            let mut value = serde_json::json!({"pids": {"limit": limit}, "memory": {"limit": 1}});
            let before = value.clone();
            assert!(!fit(&mut value));
            assert_eq!(value, before);
        }
    }
}
