//! Whether containerd is new enough, and knows Reprise.

use std::path::Path;
use std::process::Command;

use toml::Value;

use super::Finding;

/// The type that a runtime handler of ours has.
const RUNTIME_TYPE: &str = "io.containerd.reprise.v2";
/// Where containerd's settings are unless it is told otherwise.
pub(in super::super) const CONFIG: &str = "/etc/containerd/config.toml";

/// What there is to say of containerd and its settings in `config`.
pub(super) fn findings(config: &Path) -> Vec<Finding> {
    let version = output(Command::new("containerd").arg("--version")).and_then(|t| version(&t));
    // Without one there is nothing to ask for its settings.
    if version.is_err() {
        return vec![("containerd", version)];
    }
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config).args(["config", "dump"]);
    let settings = output(&mut command).and_then(|text| {
        toml::from_str::<Value>(&text)
            .map_err(|e| format!("its settings cannot be understood: {e}"))
    });
    let mut found = vec![("containerd", version)];
    match settings {
        Ok(settings) => found.extend(handler(&settings, config)),
        Err(why) => found.push(("handler", Err(why))),
    }
    found
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = command
        .output()
        .map_err(|e| format!("`{shown}` cannot be run ({e}); put containerd on PATH"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said.trim().lines().next_back().unwrap_or_default();
        Err(format!("`{shown}` failed: {last}"))
    }
}

/// `containerd github.com/containerd/containerd/v2 v2.3.7 <commit>`
fn version(text: &str) -> Result<String, String> {
    let shown = text.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = shown
        .trim_start_matches('v')
        .split(['.', '-', '+', '~'])
        .map_while(|n| n.parse::<u32>().ok());
    let mut next = || numbers.next();
    let (Some(major), Some(minor), patch) = (next(), next(), next().unwrap_or(0)) else {
        return Err(format!("`containerd --version` says {:?}", text.trim()));
    };
    match (major, minor, patch) {
        (0..=1, ..) | (2, 0..=1, _) => Err(format!("{shown} is too old; install 2.3 or later")),
        // They ask for a file that only runc's shim writes (containerd 12280).
        (2, 2, 0..=4) | (2, 3, 0..=1) => Err(format!(
            "{shown} cannot take checkpoints of other runtimes than runc (`reprise checkpoint` \
             works); install 2.2.5, 2.3.2 or later"
        )),
        _ => Ok(shown.to_owned()),
    }
}

/// Our handler in CRI's settings: there, with annotations, on a snapshotter that
/// shares layers.
fn handler(settings: &Value, config: &Path) -> Vec<Finding> {
    let cri = settings
        .get("plugins")
        .and_then(|plugins| plugins.get("io.containerd.cri.v1.runtime"))
        .and_then(|cri| cri.get("containerd"));
    let runtimes = cri
        .and_then(|cri| cri.get("runtimes"))
        .and_then(Value::as_table);
    let ours = runtimes.into_iter().flatten().find(|(_, runtime)| {
        runtime.get("runtime_type").and_then(Value::as_str) == Some(RUNTIME_TYPE)
    });
    let shown = config.display();
    let Some((name, runtime)) = ours else {
        let table = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.reprise]";
        return vec![(
            "handler",
            Err(format!(
                "no runtime of {shown} has runtime_type = '{RUNTIME_TYPE}'; add it below {table} \
                 and restart containerd"
            )),
        )];
    };
    vec![
        ("handler", Ok(format!("{name} in {shown}"))),
        ("annotations", annotations(name, runtime)),
        ("snapshotter", snapshotter(settings, name, runtime)),
    ]
}

fn annotations(name: &str, runtime: &Value) -> Result<String, String> {
    let globs = runtime.get("pod_annotations").and_then(Value::as_array);
    let mut globs = globs.into_iter().flatten().filter_map(Value::as_str);
    match globs.find(|glob| ["reprise.dev/*", "reprise.dev/restore"].contains(glob)) {
        Some(glob) => Ok(format!("pods' {glob} reach the shim")),
        None => Err(format!(
            "handler {name} keeps pods' reprise.dev/* from the shim; set \
             pod_annotations = ['reprise.dev/*']"
        )),
    }
}

fn snapshotter(settings: &Value, name: &str, runtime: &Value) -> Result<String, String> {
    let text = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    let default = settings
        .get("plugins")
        .and_then(|plugins| plugins.get("io.containerd.cri.v1.images"))
        .and_then(|images| images.get("snapshotter"));
    let used = text(runtime.get("snapshotter"))
        .or_else(|| text(default))
        .unwrap_or_else(|| "overlayfs".to_owned());
    if used == "overlayfs" {
        Ok(used)
    } else {
        Err(format!(
            "{used} shares no layers that tell which image a container has, so nothing is \
             restored; set snapshotter = 'overlayfs' for handler {name}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(version_text: &str) -> Result<String, String> {
        version(&format!("containerd github.com/x {version_text} abc"))
    }

    #[test]
    fn versions_are_judged_by_what_they_can_do() {
        assert_eq!(say("v2.3.7"), Ok("v2.3.7".to_owned()));
        assert_eq!(say("2.4.2~ds1"), Ok("2.4.2~ds1".to_owned()));
        assert!(say("1.7.20").unwrap_err().contains("too old"));
        assert!(say("v2.3.1").unwrap_err().contains("2.3.2"));
        assert!(say("unknown").is_err());
    }

    fn texts(toml: &str) -> Vec<Finding> {
        handler(&toml::from_str(toml).unwrap(), Path::new("/c.toml"))
    }

    #[test]
    fn a_whole_configuration_is_fit() {
        let found = texts(
            "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.fast]\n\
             runtime_type = 'io.containerd.reprise.v2'\npod_annotations = ['reprise.dev/*']\n",
        );
        let all: Result<Vec<_>, _> = found.into_iter().map(|(_, found)| found).collect();
        assert_eq!(all.unwrap().first().unwrap(), "fast in /c.toml");
    }

    #[test]
    fn what_is_missing_is_said_with_its_mend() {
        let why = |toml: &str| {
            let found = texts(toml).into_iter();
            let bad: Vec<String> = found.filter_map(|(_, found)| found.err()).collect();
            bad.join("\n")
        };
        assert!(why("").contains("runtimes.reprise]"));
        let bare = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.reprise]\n\
                    runtime_type = 'io.containerd.reprise.v2'\nsnapshotter = 'erofs'\n";
        assert!(why(bare).contains("pod_annotations = ['reprise.dev/*']"));
        assert!(why(bare).contains("snapshotter = 'overlayfs'"));
    }
}
