//! What containerd's CRI plugin says of a container, in its spec's annotations.

use oci_spec::runtime::Spec;

/// The annotation `io.kubernetes.cri.<name>`.
#[must_use]
pub fn annotation<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    let annotations = spec.annotations().as_ref()?;
    annotations
        .get(&format!("io.kubernetes.cri.{name}"))
        .map(String::as_str)
}
