//! `linux.resources`: every controller.

use serde_json::json;

use super::Field;

pub(super) const FIELDS: &[Field] = &[
    (
        "/linux/resources/devices",
        || {
            vec![
                json!([]),
                json!([{"allow": true, "access": "rwm"}]),
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]),
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": -1, "access": "r"}]),
            ]
        },
        || {
            vec![
                json!([{}]),
                json!([{"allow": true, "type": "x", "access": "r"}]),
                json!([{"allow": true, "access": "xyz"}]),
                json!([{"allow": true, "type": "c", "major": -5, "minor": 0, "access": "r"}]),
                json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": ""}]),
                json!({}),
            ]
        },
    ),
    (
        "/linux/resources/memory",
        || {
            vec![
                json!({}),
                json!({"limit": 67_108_864}),
                json!({"limit": 67_108_864, "swap": 67_108_864, "reservation": 33_554_432}),
                json!({"limit": -1}),
                json!({"swappiness": 10}),
                json!({"disableOOMKiller": false}),
                json!({"checkBeforeUpdate": true}),
                json!({"useHierarchy": true}),
                json!({"kernel": 33_554_432}),
            ]
        },
        || {
            vec![
                json!({"limit": 67_108_864, "swap": 1}),
                json!({"swappiness": 500}),
                json!({"limit": "1G"}),
                json!({"limit": -5}),
                json!({"swap": 67_108_864}),
                json!({"limit": 1.5}),
                json!({"kernelTCP": 33_554_432}),
            ]
        },
    ),
    (
        "/linux/resources/cpu",
        || {
            vec![
                json!({}),
                json!({"shares": 512}),
                json!({"quota": 50_000, "period": 100_000}),
                json!({"quota": -1}),
                json!({"cpus": "0", "mems": "0"}),
                json!({"burst": 0}),
                json!({"idle": 1}),
                json!({"idle": 0}),
                json!({"shares": 0}),
            ]
        },
        || {
            vec![
                json!({"quota": 1}),
                json!({"period": 1}),
                json!({"cpus": "99"}),
                json!({"cpus": "x"}),
                json!({"mems": "7"}),
                json!({"realtimeRuntime": 950_000, "realtimePeriod": 1_000_000}),
                json!({"idle": 5}),
                json!({"shares": -1}),
                json!({"burst": 1_000_000}),
            ]
        },
    ),
    (
        "/linux/resources/pids",
        || {
            vec![
                json!({"limit": 50}),
                json!({"limit": -1}),
                json!({"limit": 0}),
            ]
        },
        || vec![json!({}), json!({"limit": "x"}), json!({"limit": -7})],
    ),
    (
        "/linux/resources/blockIO",
        || {
            vec![
                json!({}),
                json!({"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1_048_576}]}),
                json!({"throttleWriteBpsDevice": [{"major": 254, "minor": 0, "rate": 1_048_576}]}),
                json!({"throttleReadIOPSDevice": [{"major": 254, "minor": 0, "rate": 100}]}),
                json!({"throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 100}]}),
            ]
        },
        || {
            vec![
                json!({"weight": 5}),
                json!({"weight": 500}),
                json!({"leafWeight": 500}),
                json!({"weightDevice": [{"major": 254, "minor": 0, "weight": 500}]}),
                json!({"throttleReadBpsDevice": [{"major": 99, "minor": 99, "rate": 1}]}),
                json!({"throttleReadBpsDevice": [{"major": 254, "minor": 0}]}),
                json!({"weight": 70_000}),
            ]
        },
    ),
    (
        "/linux/resources/hugepageLimits",
        || vec![json!([])],
        || {
            vec![
                json!([{"pageSize": "2MB", "limit": 0}]),
                json!([{"pageSize": "3MB", "limit": 0}]),
                json!([{"limit": 1}]),
                json!([{"pageSize": "2MB", "limit": u64::MAX}]),
            ]
        },
    ),
    (
        "/linux/resources/network",
        || vec![json!({})],
        || {
            vec![
                json!({"classID": 1}),
                json!({"priorities": [{"name": "lo", "priority": 1}]}),
                json!({"classID": -1}),
            ]
        },
    ),
    (
        "/linux/resources/rdma",
        || vec![json!({})],
        || {
            vec![
                json!({"mlx5_1": {"hcaHandles": 3}}),
                json!({"mlx5_1": {"hcaObjects": 3}}),
                json!({"mlx5_1": 1}),
            ]
        },
    ),
    (
        "/linux/resources/unified",
        || vec![json!({})],
        || {
            vec![
                json!({"memory.high": "1000000"}),
                json!({"no.such": "1"}),
                json!({"memory.max": 1}),
            ]
        },
    ),
    (
        "/linux/resources",
        || vec![json!({}), json!(null)],
        || vec![json!([]), json!("x")],
    ),
];
