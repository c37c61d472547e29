//! `linux.resources` as JSON, where the OCI library reads it otherwise than runc
//! does. Pure.

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// Reads resources on their own, as an update brings them.
///
/// # Errors
/// They are no resources.
pub fn parse(json: &[u8]) -> Result<LinuxResources> {
    let invalid = |e: &serde_json::Error| {
        Error::because("Cannot read the new limits", e).with_kind(ErrorKind::InvalidArgument)
    };
    let mut value: Value = serde_json::from_slice(json).map_err(|e| invalid(&e))?;
    fit(&mut value);
    serde_json::from_value(value).map_err(|e| invalid(&e))
}

/// Makes `linux.resources` mean to the library what they mean to runc: a limit of
/// huge pages beyond its range is none to the kernel either way, and `pids`
/// without a limit is not a limit of zero. Whether something had to be changed.
pub fn fit(resources: &mut Value) -> bool {
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
        let resources = parse(json).unwrap();
        let limits = resources.hugepage_limits().as_ref().unwrap();
        assert_eq!((limits[0].limit(), limits[1].limit()), (i64::MAX, 4096));
        assert_eq!(*resources.pids(), None);
        let zero = parse(br#"{"pids":{"limit":0}}"#).unwrap();
        assert_eq!(zero.pids().unwrap().limit(), 0);
    }

    #[test]
    fn what_is_right_stays_as_it_is() {
        let mut value = serde_json::json!({"pids": {"limit": 7}, "memory": {"limit": 1}});
        let before = value.clone();
        assert!(!fit(&mut value));
        assert_eq!(value, before);
        assert!(parse(b"7 8").is_err());
    }
}
