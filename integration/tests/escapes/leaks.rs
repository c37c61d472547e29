//! What a process inherits without having been given it. There is nothing to race with.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use integration::programs::BUSYBOX;
use integration::{ContainerSpec, Node, PodSpec};

use crate::round::{Outcome, Round, attempts};

/// CVE-2024-21626: the working directory, and the program itself, by way of a
/// directory that the runtime has open, at create and at exec.
#[test]
fn no_directory_leaks_by_number() -> Result<()> {
    let node = Node::start()?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "leaks"), &[])?;
    let canary = round.host.canary.display().to_string();
    let inside = canary.trim_start_matches('/');
    let script = format!(
        "p=.; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat $p/{inside}/secret 2>/dev/null; \
         echo x 2>/dev/null >> $p/{inside}/0; p=$p/..; done; cat secret 2>/dev/null; \
         for f in /proc/self/fd/*; do [ -e $f/{inside}/secret ] && echo BREACH $f; done; echo confined"
    );
    let shell = ContainerSpec::shell(&script);
    // The same script where the canary can be reached: it says so.
    let reached = shell.clone().mount(&canary, &canary, true);
    match round.container(&reached)? {
        Outcome::Ran(said) => ensure!(round.host.betrayed_by(&said), "{said}"),
        Outcome::Refused(why) => anyhow::bail!("{why}"),
    }
    let running = round
        .pod
        .run(&ContainerSpec::shell("sleep 1000").name("running"))?;
    let tops = [
        "/proc/self/fd",
        "/proc/1/fd",
        "/proc/thread-self/fd",
        "/dev/fd",
    ];
    for n in 0..attempts() as usize {
        let top = format!("{}/{}", tops[n % tops.len()], 3 + n / tops.len());
        let mut spec = shell.clone();
        if n % 3 == 2 {
            // The host's program by the same way.
            let program = format!("{top}/../../../../../../..{canary}/tool");
            spec = ContainerSpec::new(BUSYBOX).command(&[&program]);
        } else {
            spec.config.working_dir.clone_from(&top);
        }
        let outcome = round.container(&spec)?;
        round.hear(outcome)?;
        let program = format!("{top}/../../../../../../../bin/busybox");
        let said = match running.exec(&[&program, "sh", "-c", &script]) {
            Err(refused) => Outcome::Refused(format!("{refused:#}")),
            Ok(done) => Outcome::Ran(done.stdout + &done.stderr),
        };
        round.hear(said)?;
    }
    round.close(false, &["refused"])
}

/// CVE-2022-29162: with an inheritable set that is not empty, a program with
/// inheritable file capabilities gives a user what the process was not given.
#[test]
fn no_inheritable_capabilities() -> Result<()> {
    let node = Node::start()?;
    let mut round = Round::new(&node, &PodSpec::new("escapes", "sets"), &[])?;
    let tools = node.dir().join("tools");
    let busybox = integration::wait_for("busybox", std::time::Duration::from_secs(1), || {
        Ok(["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| fs::exists(path).is_ok_and(|is| is)))
    })?;
    for (name, sets) in [
        ("inherits", "cap_chown,cap_kill+ei"),
        ("gains", "cap_chown+ep"),
    ] {
        let program = tools.join(name).join("busybox");
        fs::create_dir_all(tools.join(name))?;
        fs::copy(busybox, &program)?;
        let setcap = Command::new("setcap").arg(sets).arg(program).status()?;
        ensure!(setcap.success(), "setcap {sets}");
    }
    let sets = |program: &str| {
        format!("/tools/{program}/busybox grep -E '^Cap(Inh|Eff)' /proc/self/status")
    };
    let script = format!(
        "{} | grep -v ':.0000000000000000' && echo BREACH; \
         {} | grep 'CapEff:.0000000000000001' && echo measured",
        sets("inherits"),
        sets("gains")
    );
    let spec = |user: i64| {
        ContainerSpec::shell(&script)
            .user(user)
            .mount(&tools.display().to_string(), "/tools", true)
    };
    let own = ContainerSpec::shell("sleep 1000")
        .name("running")
        .user(1000);
    let own = own.mount(&tools.display().to_string(), "/tools", true);
    let running = round.pod.run(&own)?;
    for n in 0..attempts() {
        let mut spec = spec(1000 + i64::from(n));
        if n % 2 == 1 {
            // Given to the process, but not for others to inherit.
            for name in ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_PTRACE"] {
                spec = spec.capability(name);
            }
        }
        let outcome = round.container(&spec)?;
        round.hear(outcome)?;
        let done = running.exec(&["/bin/sh", "-c", &script])?;
        round.hear(Outcome::Ran(done.stdout + &done.stderr))?;
    }
    round.close(false, &["ran: CapEff:\t0000000000000001\nmeasured"])
}
