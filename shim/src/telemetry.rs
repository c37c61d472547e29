//! What we log, and how its fields are called.
//!
//! `container`, `pod`, `plan`, `checkpoint`, `reason`: the decision of a start, and
//! `decide_us`: how long it took.
//! `<step>_us`: how long a step took, in microseconds.

use std::path::Path;
use std::time::Instant;

use log::kv;
use reprise_runtime::Error;
use reprise_runtime::worker::Timing;

use crate::runtime::{Dumped, Planned, Way};

/// The one line that says how a container starts, and why.
pub(crate) fn log_decision(container: &str, planned: &Planned) {
    let pod = planned.pod.as_str();
    let decide_us = planned.decide_us;
    match &planned.way {
        Way::Restore { checkpoint, .. } => log::info!(
            container, pod, plan = "restore", checkpoint = checkpoint.as_str(), decide_us;
            "container start decided"
        ),
        Way::Cold { why } => log::info!(
            container, pod, plan = "cold", reason = why.to_string().as_str(), decide_us;
            "container start decided"
        ),
    }
}

/// The same for a start from images that containerd gave us.
pub(crate) fn log_given(container: &str, planned: &Planned, images: &Path) {
    let images = images.display().to_string();
    log::info!(
        container, pod = planned.pod.as_str(), plan = "restore", checkpoint = images.as_str();
        "container start decided"
    );
}

/// A failure with all that is known of it, CRIU's own lines included.
pub(crate) fn log_failure(container: &str, what: &str, error: &Error) {
    let criu_log = error.log.as_ref().map(|path| path.display().to_string());
    log::error!(
        container, error = error.message.as_str(),
        log = criu_log.as_deref().unwrap_or_default();
        "{what}"
    );
    for line in &error.detail {
        log::error!(container; "{}", line.trim_end());
    }
}

/// A container exists; how long each step took.
pub(crate) fn log_prepared(container: &str, restored: bool, began: Instant, timings: &[Timing]) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let steps: Vec<(String, u64)> = timings
        .iter()
        .map(|timing| (format!("{}_us", timing.step), timing.us))
        .collect();
    let mut fields: Vec<(&str, kv::Value<'_>)> = vec![
        ("container", container.into()),
        ("restored", restored.into()),
    ];
    fields.extend(steps.iter().map(|(step, us)| (step.as_str(), (*us).into())));
    let prepared_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    fields.push(("prepare_us", prepared_us.into()));
    log::logger().log(
        &log::Record::builder()
            .level(log::Level::Debug)
            .target(module_path!())
            .key_values(&fields.as_slice())
            .args(format_args!("container prepared"))
            .build(),
    );
}

/// A container runs: the time from Create, containerd's own between the two calls
/// included.
pub(crate) fn log_started(container: &str, since: Instant) {
    let create_to_start_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    log::debug!(container, create_to_start_us; "container started");
}

/// A checkpoint was taken.
pub(crate) fn log_checkpoint(container: &str, dumped: &Dumped) {
    log::info!(
        container,
        checkpoint = dumped.stored.as_deref().unwrap_or_default(),
        frozen_us = dumped.frozen_us,
        publish_us = dumped.publish_us,
        image_bytes = dumped.image_bytes;
        "container checkpointed"
    );
}
