//! What of the machine, or of Kubernetes and containerd, keeps a case from passing under
//! either RuntimeClass.

use crate::conformance::causes::{Cause, cause};

const STOP_SIGNALS: Cause = cause(
    "stopSignal",
    "the API server has dropped stopSignal",
    "Kubernetes' feature gate ContainerStopSignals is off, unless somebody switches it on",
);

/// It fails before any shim is asked; why was not looked into.
const IDMAPPED_LAYERS: Cause = cause(
    "",
    "tmpmounts/ovl-idmapped",
    "containerd 2.2 does not find the id-mapped layers that it has just mounted",
);

/// `core/runtime/v2/shim_load.go`: it asks for pids, and there are none. From 2.3 on a shim
/// that answers with an error, as ours does, is kept.
const ENDED_TASKS: Cause = cause(
    "pods end while containerd is away",
    "\"exitCode\":255",
    "containerd 2.2 throws away the shim of a task that ended meanwhile, and its exit code",
);

/// Those of a version of containerd.
pub(super) fn of(containerd: &str) -> &'static [Cause] {
    match containerd {
        "2.2" => &[STOP_SIGNALS, IDMAPPED_LAYERS, ENDED_TASKS],
        _ => &[STOP_SIGNALS],
    }
}
