//! What of the machine keeps a case from passing under either RuntimeClass.

use crate::conformance::causes::{Cause, cause};

const STOP_SIGNALS: &str =
    "Kubernetes' feature gate ContainerStopSignals is off, unless somebody switches it on";

pub(super) const CAUSES: &[Cause] = &[cause(
    "stopSignal",
    "the API server has dropped stopSignal",
    STOP_SIGNALS,
)];
