//! containerd's own way to restore: `ctr container checkpoint` and
//! `ctr container restore --live`, which is `CreateTaskRequest.checkpoint`.

use anyhow::Result;
use integration::programs::BUSYBOX;
use integration::{Leftovers, Node, eventually, wait_for};
use std::time::Duration;

/// Beats into a file, since `ctr run --detach` reads no output.
const HEART: &str = "read life < /proc/sys/kernel/random/uuid; n=0
    trap 'exit 7' TERM
    while :; do n=$((n+1)); echo $life $n > /beat.new; mv /beat.new /beat; sleep 0.05; done";

fn runtime() -> &'static str {
    match std::env::var("REPRISE_TEST_HANDLER").as_deref() {
        Ok("runc") => "io.containerd.runc.v2",
        _ => "io.containerd.reprise.v2",
    }
}

/// A container that was started with `ctr`, without any pod.
struct Bare<'n> {
    node: &'n Node,
    id: &'static str,
}

impl<'n> Bare<'n> {
    fn run(node: &'n Node, id: &'static str) -> Result<Self> {
        let flags = ["run", "--detach", "--null-io", "--runtime", runtime()];
        let program = [BUSYBOX, id, "/bin/sh", "-c", HEART];
        let cgroup = node.ctr_cgroup(id);
        let words = flags.into_iter();
        node.ctr(
            words
                .chain(cgroup.iter().map(String::as_str))
                .chain(program),
        )?;
        Ok(Self { node, id })
    }

    /// Its life and the number of its beats so far.
    fn beat(&self) -> Result<(String, u64)> {
        wait_for("a beat", Duration::from_secs(10), || {
            let exec = ["task", "exec", "--exec-id", "look", self.id, "cat", "/beat"];
            let done = self.node.run("ctr", exec)?;
            let parsed = done
                .stdout
                .trim()
                .split_once(' ')
                .and_then(|(life, count)| Some((life.to_owned(), count.parse().ok()?)));
            Ok(parsed)
        })
    }

    fn is(&self, state: &str) -> bool {
        let tasks = self.node.ctr(["task", "ls"]).unwrap_or_default();
        tasks
            .lines()
            .any(|line| line.starts_with(self.id) && line.contains(state))
    }

    /// Removes it when it has ended; ctr tells how in a warning.
    fn ended_with(self, code: i32) -> Result<()> {
        let done = self.node.run("ctr", ["task", "delete", self.id])?;
        assert!(
            done.stderr.contains(&format!("exit code {code}")),
            "{done:?}"
        );
        self.node.ctr(["container", "rm", self.id]).map(drop)
    }

    fn remove(self) -> Result<()> {
        self.node.ctr(["task", "delete", "--force", self.id])?;
        self.node.ctr(["container", "rm", self.id]).map(drop)
    }
}

#[test]
fn a_container_without_a_pod_runs_and_is_removed() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let bare = Bare::run(&node, "bare-1")?;
    let (life, count) = bare.beat()?;
    eventually("more beats", || {
        bare.beat()
            .is_ok_and(|(now, more)| now == life && more > count)
    })?;

    node.ctr(["task", "kill", "--signal", "TERM", "bare-1"])?;
    eventually("its end", || bare.is("STOPPED"))?;
    bare.ended_with(7)?;
    node.is_as_before(&before)
}

#[test]
fn a_terminal_of_ctr_answers_and_knows_its_size() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let cgroup = node.ctr_cgroup("typed").join(" ");
    let run = format!(
        "ctr run --rm --tty --runtime {} {cgroup} {BUSYBOX} typed /bin/sh",
        runtime()
    );
    let mut terminal = node.terminal(&run, 31, 97)?;
    terminal.types("echo sum $((40+2))")?;
    terminal.shows("sum 42")?;
    // ctr sends the size once it has started the shell.
    terminal.types("until stty size | grep -q 31; do sleep 0.1; done; stty size")?;
    terminal.shows("31 97")?;
    terminal.types("exit 9")?;
    terminal.ends()?;
    node.is_as_before(&before)
}

#[test]
fn a_live_restore_goes_on_with_memory_and_files() -> Result<()> {
    let node = Node::start()?;
    let bare = Bare::run(&node, "bare-1")?;
    let (life, count) = bare.beat()?;
    node.ctr([
        "container",
        "checkpoint",
        "--rw",
        "--image",
        "--task",
        "bare-1",
        "checkpoint/bare:1",
    ])?;
    assert!(bare.is("RUNNING"), "it goes on");
    assert_eq!(bare.beat()?.0, life);
    bare.remove()?;

    node.ctr([
        "container",
        "restore",
        "--rw",
        "--live",
        "bare-2",
        "checkpoint/bare:1",
    ])?;
    let restored = Bare {
        node: &node,
        id: "bare-2",
    };
    let (restored_life, restored_count) = restored.beat()?;
    assert_eq!(restored_life, life);
    assert!(restored_count >= count);
    eventually("more beats", || {
        restored.beat().is_ok_and(|(_, more)| more > restored_count)
    })?;

    node.ctr(["task", "kill", "--signal", "TERM", "bare-2"])?;
    eventually("its end", || restored.is("STOPPED"))?;
    restored.ended_with(7)
}

#[test]
fn a_restore_that_is_not_live_starts_anew() -> Result<()> {
    let node = Node::start()?;
    let bare = Bare::run(&node, "bare-1")?;
    let (life, _) = bare.beat()?;
    node.ctr([
        "container",
        "checkpoint",
        "--rw",
        "--image",
        "--task",
        "bare-1",
        "checkpoint/bare:1",
    ])?;
    bare.remove()?;

    node.ctr([
        "container",
        "restore",
        "--rw",
        "bare-2",
        "checkpoint/bare:1",
    ])?;
    let restored = Bare {
        node: &node,
        id: "bare-2",
    };
    eventually("a life of its own", || {
        restored.beat().is_ok_and(|(now, _)| now != life)
    })
}

#[test]
fn a_broken_checkpoint_is_an_error_when_it_is_asked_for_by_name() -> Result<()> {
    let node = Node::start()?;
    let bare = Bare::run(&node, "bare-1")?;
    bare.beat()?;
    // Without the task there is nothing that could be restored live.
    node.ctr([
        "container",
        "checkpoint",
        "--rw",
        "--image",
        "bare-1",
        "checkpoint/cold:1",
    ])?;
    bare.remove()?;

    let before = Leftovers::of(&node)?;
    let live = [
        "container",
        "restore",
        "--rw",
        "--live",
        "bare-2",
        "checkpoint/cold:1",
    ];
    assert_ne!(node.run("ctr", live)?.code, 0);
    node.is_as_before(&before)
}
