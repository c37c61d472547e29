//! What of the machine keeps a case from passing under either RuntimeClass.

use crate::conformance::causes::Cause;

pub(super) const CAUSES: &[Cause] = &[];
