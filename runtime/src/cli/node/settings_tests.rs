//! Tests of what is written into containerd's configuration.

use super::*;
use proptest::prelude::*;

const FILE: &str = "/etc/containerd/conf.d/reprise.toml";

fn file() -> &'static Path {
    Path::new(FILE)
}

#[test]
fn a_main_file_is_changed_by_one_entry_and_back() {
    for main in [
        "",
        "version = 3\n",
        "\u{feff}version = 3\r\n[grpc]\r\n  address = 'x'\r\n",
        "version = 2\nimports = []\n[grpc]\n",
        "imports = ['a', \"b\"] # mine\nversion = 3\n",
        "version = 3\nimports = [\n  'a', # why\n]\n[debug]\nlevel = 'info'",
    ] {
        let dir = Path::new("/etc/containerd");
        assert_eq!(imports(main, dir, file()), Ok(false), "{main}");
        let changed = with_import(Some(main), file()).unwrap();
        assert_eq!(imports(&changed, dir, file()), Ok(true), "{changed}");
        assert_eq!(version(&changed), version(main));
        assert_eq!(without_import(&changed, file()).unwrap(), main);
        // Edits of the user's in the meantime are the user's.
        let edited = format!("{changed}\n# edited\n");
        let back = without_import(&edited, file()).unwrap();
        assert_eq!(back, format!("{main}\n# edited\n"));
    }
    assert_eq!(without_import("version = 3\n", file()), None);
}

#[test]
fn a_missing_main_file_is_made() {
    let made = with_import(None, file()).unwrap();
    assert_eq!(version(&made), Ok(3));
    assert_eq!(
        imports(&made, Path::new("/etc/containerd"), file()),
        Ok(true)
    );
}

#[test]
fn imports_are_resolved_as_containerd_does() {
    let covered = |pattern: &str| {
        let main = format!("imports = ['{pattern}']");
        imports(&main, Path::new("/etc/containerd"), file()).unwrap()
    };
    for yes in [
        "/etc/containerd/conf.d/*.toml",
        "/etc/containerd/conf.d/*",
        "conf.d/*.toml",
        "conf.d/r*e.t*l",
        "/etc/*/conf.d/reprise.toml",
        FILE,
    ] {
        assert!(covered(yes), "{yes}");
    }
    for no in [
        "/etc/containerd/*.toml",
        "/etc/containerd/*",
        "conf.d/*.conf",
        "conf.d/a*.toml",
        "conf.d/reprise.toml*x",
        "/etc/containerd/conf.d/[a-z]*",
    ] {
        assert!(!covered(no), "{no}");
    }
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let why = with_import(Some("version = 3\n[grpc\n"), file()).unwrap_err();
    assert!(why.starts_with("line 2: ") && !why.contains('\n'), "{why}");
}

#[test]
fn the_drop_in_speaks_the_main_files_version() {
    let parsed = |text: &str| toml::from_str::<Value>(text).unwrap();
    let old = parsed(&drop_in(2, None, None));
    assert_eq!(old["version"].as_integer(), Some(2));
    assert!(old["plugins"].get("io.containerd.grpc.v1.cri").is_some());
    let shim = Path::new("/opt/reprise/bin/shim");
    let new = parsed(&drop_in(4, Some("overlayfs"), Some(shim)));
    assert_eq!(new["version"].as_integer(), Some(3));
    let ours = &new["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["reprise"];
    assert_eq!(ours["snapshotter"].as_str(), Some("overlayfs"));
    assert_eq!(ours["runtime_path"].as_str(), shim.to_str());
}

#[test]
fn nothing_but_the_handler_may_change() {
    let base = "imports = ['a']\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
                options = { SystemdCgroup = true }\n";
    let with = base.replace("'a'", "'a', 'b'")
        + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.reprise]\nx = 1\n";
    assert_eq!(differ_by_the_handler(base, &with), Ok(()));
    assert!(has_handler(&with) && !has_handler(base));
    let lost = with.replace("true", "false");
    let why = differ_by_the_handler(base, &lost).unwrap_err();
    assert!(
        why.ends_with("runtimes.runc.options.SystemdCgroup"),
        "{why}"
    );
}

proptest! {
    #[test]
    fn whatever_is_imported_comes_and_goes(names in proptest::collection::vec("[a-z'\"#,]{0,6}", 0..4)) {
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let main = format!("imports = [{}]\nversion = 3\n", quoted.join(",  "));
        let changed = with_import(Some(&main), file()).unwrap();
        prop_assert_eq!(imports(&changed, Path::new("/"), file()), Ok(true));
        prop_assert_eq!(without_import(&changed, file()), Some(main));
    }
}
