//! A tiny program whose life can be followed: at each beat it writes who it
//! is, how often it has beaten, and the hostname that it sees. One that was
//! restored has the life of the one that was dumped, and counts on.

use crate::node::Node;
use crate::pod::{Container, ContainerSpec, Pod, PodSpec};
use crate::wait::wait_for;
use anyhow::Result;
use std::time::Duration;

/// Ends with 7 on SIGTERM. `/life` is written once, into the writable layer.
const SCRIPT: &str = "\
trap 'exit 7' TERM
read life < /proc/sys/kernel/random/uuid
echo $life > /life
n=0
while :; do
    n=$((n+1))
    read host < /proc/sys/kernel/hostname
    echo beat $life $n $host
    sleep 0.05
done";

/// One line of a heart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Chosen at random when the program began.
    pub life: String,
    /// How many beats there were.
    pub count: u64,
    /// The hostname at that moment.
    pub host: String,
}

/// A container with a heart.
#[must_use]
pub fn spec() -> ContainerSpec {
    ContainerSpec::shell(SCRIPT)
}

/// The exit code after SIGTERM.
pub const EXIT_CODE: i32 = 7;

impl Node {
    /// Runs a pod with a heart and waits until it beats.
    ///
    /// # Errors
    /// containerd's.
    pub fn run_heart(&self, pod: &PodSpec) -> Result<(Pod<'_>, Container<'_>)> {
        self.run_beating(pod, &spec())
    }

    /// Runs a pod with a heart that is configured otherwise.
    ///
    /// # Errors
    /// containerd's.
    pub fn run_beating(
        &self,
        pod: &PodSpec,
        container: &ContainerSpec,
    ) -> Result<(Pod<'_>, Container<'_>)> {
        let pod = self.run_pod(pod)?;
        let container = pod.run(container)?;
        container.next_beat()?;
        Ok((pod, container))
    }
}

impl Container<'_> {
    /// All beats in its log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn beats(&self) -> Result<Vec<Beat>> {
        Ok(self.log()?.lines().filter_map(parse).collect())
    }

    /// Waits for a beat that was not there before.
    ///
    /// # Errors
    /// When the heart does not beat.
    pub fn next_beat(&self) -> Result<Beat> {
        let known = self.beats()?.len();
        wait_for("a heartbeat", Duration::from_secs(20), || {
            Ok(self.beats()?.get(known).cloned())
        })
    }

    /// Whose life it lives.
    ///
    /// # Errors
    /// When the heart does not beat.
    pub fn life(&self) -> Result<String> {
        Ok(self.next_beat()?.life)
    }
}

fn parse(line: &str) -> Option<Beat> {
    let mut words = line.trim_end().split(' ');
    if words.next() != Some("beat") {
        return None;
    }
    Some(Beat {
        life: words.next()?.to_owned(),
        count: words.next()?.parse().ok()?,
        host: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_whole_beats_are_counted() {
        assert_eq!(parse("beat 1-2 7 pod\r").unwrap().count, 7);
        for line in ["", "beat", "beat 1-2", "beat 1-2 x pod", "hello"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
