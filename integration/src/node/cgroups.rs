//! A node in a cgroup namespace of its own.
//!
//! Programs that choose their own cgroup paths, such as other people's test
//! suites, would meet those of other nodes otherwise.

use super::sweep;
use std::process::Command;

/// Joins the node's group in every hierarchy and goes on in a namespace whose
/// root it is.
const ENTER: &str = r#"set -e
id=$1 && shift
enter() {
    mkdir -p "$1/$id"
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$1/$file" ]; then cat "$1/$file" >"$1/$id/$file"; fi
    done
    echo $$ >"$1/$id/cgroup.procs"
}
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    enter /sys/fs/cgroup
else
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -L "${hierarchy%/}" ] || enter "${hierarchy%/}"
    done
fi
exec unshare --cgroup "$@""#;

/// What enters the node's namespaces later joins its groups too: a process from
/// outside would find itself at `/..`.
pub(super) const JOIN: &str = r#"
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    if [ -e "$procs" ]; then echo $$ >"$procs"; fi
done
exec "$@""#;

/// The node's groups; removed when this is dropped, after the node's end.
#[derive(Debug)]
pub(super) struct OwnCgroups {
    id: String,
}

impl OwnCgroups {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned() }
    }

    /// An `unshare` that starts inside them; its further options follow.
    pub(super) fn unshare(&self) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", ENTER, "enter-cgroups", &self.id]);
        command
    }
}

impl Drop for OwnCgroups {
    fn drop(&mut self) {
        sweep::remove_cgroups_named(&self.id);
    }
}
