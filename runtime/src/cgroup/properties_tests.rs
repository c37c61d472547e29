//! Limits as properties: known values.

use super::*;

const NEW: u32 = 257;

fn of(json: &str, is_v2: bool, version: u32) -> Vec<Property> {
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    limits(&resources, is_v2, version).unwrap()
}

fn numbers(json: &str) -> Vec<(String, u64)> {
    let take = |(name, value): Property| match value {
        Value::U64(value) => (name, value),
        other => panic!("{name} is {other:?}"),
    };
    of(json, true, NEW).into_iter().map(take).collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let own = |(name, value): &(&str, u64)| ((*name).to_owned(), *value);
    expected.iter().map(own).collect()
}

#[test]
fn memory_swap_is_swap_alone_and_none_is_said_too() {
    let swapless = r#"{"memory":{"limit":4096,"swap":4096,"reservation":1024}}"#;
    let expected = [
        ("MemoryMax", 4096),
        ("MemoryLow", 1024),
        ("MemorySwapMax", 0),
    ];
    assert_eq!(numbers(swapless), pairs(&expected));
    let unlimited = r#"{"memory":{"limit":-1}}"#;
    let expected = [("MemoryMax", u64::MAX), ("MemorySwapMax", u64::MAX)];
    assert_eq!(numbers(unlimited), pairs(&expected));
    assert_eq!(numbers(r#"{"memory":{"limit":0}}"#), []);
    let below: LinuxResources =
        serde_json::from_str(r#"{"memory":{"limit":4096,"swap":1}}"#).unwrap();
    assert!(limits(&below, true, NEW).is_err());
}

#[test]
fn shares_are_converted_once() {
    assert_eq!(
        numbers(r#"{"cpu":{"shares":1024}}"#),
        pairs(&[("CPUWeight", 100)])
    );
    assert_eq!(
        numbers(r#"{"cpu":{"shares":2}}"#),
        pairs(&[("CPUWeight", 1)])
    );
    // A v2 weight is one already.
    let unified = r#"{"unified":{"cpu.weight":"77"}}"#;
    assert_eq!(numbers(unified), pairs(&[("CPUWeight", 77)]));
    assert_eq!(
        numbers(r#"{"cpu":{"shares":1024,"idle":1}}"#),
        pairs(&[("CPUWeight", 0)])
    );
    let old = of(r#"{"cpu":{"shares":1024,"idle":1}}"#, true, 251);
    assert_eq!(old, [("CPUWeight".to_owned(), Value::U64(100))]);
}

#[test]
fn quotas_come_in_whole_percents() {
    let half = r#"{"cpu":{"quota":50000,"period":100000}}"#;
    let expected = [
        ("CPUQuotaPeriodUSec", 100_000),
        ("CPUQuotaPerSecUSec", 500_000),
    ];
    assert_eq!(numbers(half), pairs(&expected));
    assert_eq!(round_quota(50_000, Some(100_000)), 50_000);
    // 33.333 % is kept as 34 %, in systemd and in the file.
    let third = r#"{"cpu":{"quota":33333,"period":100000}}"#;
    let expected = [
        ("CPUQuotaPeriodUSec", 100_000),
        ("CPUQuotaPerSecUSec", 340_000),
    ];
    assert_eq!(numbers(third), pairs(&expected));
    assert_eq!(round_quota(33_333, None), 34_000);
    let none = r#"{"cpu":{"quota":-1,"period":100000}}"#;
    let expected = [
        ("CPUQuotaPeriodUSec", 100_000),
        ("CPUQuotaPerSecUSec", u64::MAX),
    ];
    assert_eq!(numbers(none), pairs(&expected));
    assert_eq!(round_quota(-1, Some(100_000)), -1);
    // Before 242 the period goes to the file alone.
    let old = of(half, true, 241);
    assert_eq!(
        old,
        [("CPUQuotaPerSecUSec".to_owned(), Value::U64(500_000))]
    );
}

#[test]
fn cpus_are_bits_from_the_lowest_on() {
    assert_eq!(bits("9").unwrap(), [0, 2]);
    assert_eq!(bits("0-3").unwrap(), [0x0f]);
    assert_eq!(bits("40").unwrap(), [0, 0, 0, 0, 0, 1]);
    assert_eq!(bits(" 1, 3-5 ,,").unwrap(), [0b11_1010]);
    assert_eq!(bits("0,8,16").unwrap(), [1, 1, 1]);
    for bad in ["", ",", "a", "3-1", "1-", "-1", "4294967296", "1 2"] {
        assert!(bits(bad).is_err(), "{bad:?}");
    }
    let set = of(r#"{"cpu":{"cpus":"1","mems":"0"}}"#, true, NEW);
    let expected = [
        ("AllowedCPUs".to_owned(), Value::Bytes(vec![2])),
        ("AllowedMemoryNodes".to_owned(), Value::Bytes(vec![1])),
    ];
    assert_eq!(set, expected);
    assert_eq!(of(r#"{"cpu":{"cpus":"1"}}"#, true, 243), []);
}

#[test]
fn pids_are_tasks_and_never_none_at_all() {
    let tasks = |limit: i64| numbers(&format!(r#"{{"pids":{{"limit":{limit}}}}}"#))[0].1;
    assert_eq!((tasks(7), tasks(0), tasks(-1)), (7, 1, u64::MAX));
}

#[test]
fn unified_keys_with_a_property_have_it_and_the_others_are_left_to_files() {
    let json = r#"{"unified":{"memory.max":"max","memory.swap.max":"5","memory.high":"6",
        "memory.min":"1","memory.low":" 2 ","pids.max":"0","cpu.max":"max 50000",
        "memory.oom.group":"1","hugetlb.2MB.max":"0","io.weight":"default 10"}}"#;
    let expected = [
        ("CPUQuotaPeriodUSec", 50_000),
        ("CPUQuotaPerSecUSec", u64::MAX),
        ("MemoryHigh", 6),
        ("MemoryLow", 2),
        ("MemoryMax", u64::MAX),
        ("MemoryMin", 1),
        ("MemorySwapMax", 5),
        ("TasksMax", 1),
    ];
    assert_eq!(numbers(json), pairs(&expected));
    let idle = r#"{"unified":{"cpu.idle":"1","cpu.weight":"50"}}"#;
    assert_eq!(numbers(idle), pairs(&[("CPUWeight", 0)]));
    for bad in [
        r#"{"memory.max":"much"}"#,
        r#"{"cpu.max":"1 2 3"}"#,
        r#"{"cpuset.cpus":"x"}"#,
    ] {
        let json = format!(r#"{{"unified":{bad}}}"#);
        let resources: LinuxResources = serde_json::from_str(&json).unwrap();
        assert!(limits(&resources, true, NEW).is_err(), "{bad}");
    }
}

#[test]
fn v1_has_its_own_names() {
    let json = r#"{"memory":{"limit":4096,"swap":8192},"cpu":{"shares":512},
        "blockIO":{"weight":300},"pids":{"limit":9}}"#;
    let expected: Vec<Property> = [
        ("MemoryLimit", 4096),
        ("CPUShares", 512),
        ("BlockIOWeight", 300),
        ("TasksMax", 9),
    ]
    .map(|(name, value)| number(name, value))
    .to_vec();
    assert_eq!(of(json, false, NEW), expected);
}

#[test]
fn the_version_is_asked_for_only_when_it_matters() {
    let depends = |json: &str| depend_on_version(&serde_json::from_str(json).unwrap());
    assert!(!depends(
        r#"{"memory":{"limit":1},"cpu":{"shares":2},"pids":{"limit":1}}"#
    ));
    assert!(depends(r#"{"cpu":{"period":100000}}"#));
    assert!(depends(r#"{"cpu":{"cpus":"0"}}"#));
    assert!(depends(r#"{"unified":{"cpuset.cpus":"0"}}"#));
}

#[test]
fn the_oom_policy_is_known_to_newer_versions() {
    let policy = |group: &str, version| oom_policy(group, version).map(|(_, value)| value);
    assert_eq!(policy("1", 253), Some(Value::Text("kill".to_owned())));
    assert_eq!(policy("0", 257), Some(Value::Text("continue".to_owned())));
    assert_eq!(policy("1", 252), None);
    assert_eq!(policy("2", 257), None);
}

fn rules(json: &str) -> Vec<Property> {
    let list: Vec<oci_spec::runtime::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
    devices(&Rules::of(Some(&list), &[]).unwrap())
}

#[test]
fn device_rules_are_what_is_allowed() {
    let given = rules(
        r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"b","major":8,"access":"rw"},
            {"allow":true,"type":"c","minor":9,"access":"r"}]"#,
    );
    let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["DeviceAllow", "DevicePolicy", "DeviceAllow"]);
    assert_eq!(given[0].1, Value::Pairs(Vec::new()));
    assert_eq!(given[1].1, Value::Text("strict".to_owned()));
    let Value::Pairs(allowed) = &given[2].1 else {
        panic!("no list");
    };
    let has = |path: &str, access: &str| allowed.contains(&(path.to_owned(), access.to_owned()));
    assert!(has("/dev/char/1:3", "rwm") && has("char-136", "rwm"));
    assert!(has("char-*", "m") && has("block-*", "m") && has("block-8", "rw"));
    assert_eq!(allowed.len(), 12, "{allowed:?}");
}

#[test]
fn a_privileged_container_has_no_device_policy() {
    let given = rules(r#"[{"allow":true,"access":"rwm"}]"#);
    assert_eq!(given[1].1, Value::Text("auto".to_owned()));
    assert_eq!(given.len(), 2);
    // systemd cannot deny single devices; our own rules follow.
    let given = rules(
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#,
    );
    assert_eq!(given[1].1, Value::Text("strict".to_owned()));
}
