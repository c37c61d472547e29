//! What of the machine keeps a case from passing under either RuntimeClass.

use crate::conformance::causes::{Cause, cause};

const STOP_SIGNALS: &str =
    "Kubernetes' feature gate ContainerStopSignals is off, unless somebody switches it on";

/// It fails before any shim is asked, and 2.3 and 2.4 do not; why was not looked into.
const IDMAPPED_LAYERS: &str =
    "containerd 2.2 does not find the id-mapped layers that it has just mounted";

pub(super) const CAUSES: &[Cause] = &[
    cause(
        "stopSignal",
        "the API server has dropped stopSignal",
        STOP_SIGNALS,
    ),
    cause("", "tmpmounts/ovl-idmapped", IDMAPPED_LAYERS),
];
