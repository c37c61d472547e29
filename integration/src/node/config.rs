//! What the node's containerd and CNI are told.

use super::NodeOptions;
use crate::wait::patience;
use std::path::Path;

/// containerd's config.toml.
pub(super) fn containerd(cni: &Path, options: &NodeOptions) -> String {
    let cni = cni.display();
    let default_runtime = &options.default_runtime;
    let systemd = options.cgroup_driver.is_systemd();
    let handler = if options.pristine { "" } else { HANDLER };
    let (sandbox, cri, more) = if options.suites {
        (SUITES_SANDBOX, SUITES_CRI, SUITES)
    } else {
        (SANDBOX, "", "")
    };
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[debug]
  level = "info"

[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd/opt"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{sandbox}"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  enable_experimental_restore_via_create = true
{cri}

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{cni}"]
  conf_dir = "/etc/cni/net.d"

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "{default_runtime}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options.SystemdCgroup = {systemd}
{handler}{more}"#
    )
}

/// What makes a node one with Reprise.
const HANDLER: &str = r#"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.reprise]
  runtime_type = "io.containerd.reprise.v2"
  pod_annotations = ["reprise.dev/*"]
  container_annotations = ["reprise.dev/*", "io.kubernetes.container.*"]
"#;

/// crictl's own, for a machine on which two seconds are too short.
pub(super) fn crictl() -> String {
    format!("timeout: {}\n", 2 * patience())
}

/// The image of pods' sandboxes.
const SANDBOX: &str = "docker.io/reprise/pause:latest";

/// The one that containerd's tests look for, pulled when it is needed first.
const SUITES_SANDBOX: &str = "registry.k8s.io/pause:3.10.2";

/// What containerd's own test script sets in the CRI plugin.
const SUITES_CRI: &str = r#"  drain_exec_sync_io_timeout = "10s""#;

/// What it sets besides.
const SUITES: &str = r#"
[plugins.'io.containerd.nri.v1.nri']
  disable = false
  socket_path = "/var/run/nri-test.sock"
  plugin_path = "/no/pre-launched/nri/plugins"

[plugins.'io.containerd.snapshotter.v1.overlayfs']
  slow_chown = true
"#;

/// The pod network: a bridge in the node's own network namespace, with host
/// ports if they are wanted; looking for them costs each pod a process. In a cluster a
/// pod reaches itself as a service, too.
pub(super) fn network(options: &NodeOptions) -> String {
    let ports = match options.suites || options.kubelet {
        true => PORTMAP,
        false => "",
    };
    CNI.replace("@PORTMAP@", ports)
        .replace("@PODS@", &options.pods)
        .replace("@HAIRPIN@", &options.kubelet.to_string())
}

const PORTMAP: &str = r#",
    { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }"#;

const CNI: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "node",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": @HAIRPIN@,
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "@PODS@" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    }@PORTMAP@
  ]
}
"#;

/// A `criu` for machines whose root has no `CAP_SYS_RESOURCE`, on which CRIU
/// cannot read the limits of another user's process.
pub(super) fn criu_with_preload(preload: &Path, criu: &Path) -> String {
    format!(
        "#!/bin/sh\nLD_PRELOAD={} exec {} \"$@\"\n",
        preload.display(),
        criu.display()
    )
}
