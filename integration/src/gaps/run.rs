//! Runs one container of a case and writes down what is seen.

use super::case::{Bundle, Exec, Look, Program};
use super::place::{Heard, Place};
use super::spec::Spec;
use super::words;
use crate::Runtime;
use crate::containerd::NewTask;
use crate::grpc::Refused;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Stands for containerd's own seccomp profile in a spec.
pub(super) const CONTAINERDS_PROFILE: &str = "containerd's own";

/// How long a runtime's own process may take to die of a profile before Start.
const SETTLES: Duration = Duration::from_millis(500);

/// A container of a case, from its layer to what is left of it.
#[derive(Debug)]
pub(super) struct Run<'p> {
    place: &'p Place<'p>,
    spec: Spec,
    seen: Value,
}

/// How far a container came.
enum Came {
    /// It runs; its pid and its output.
    Started(u32, Heard),
    /// It was refused.
    Refused,
}

impl<'p> Run<'p> {
    /// Prepares a container.
    ///
    /// # Errors
    /// When the script before it fails.
    pub(super) fn new(place: &'p Place<'p>, bundle: &Bundle, waits: bool) -> Result<Self> {
        if let Some(script) = &bundle.before {
            place.sh(&format!("set -e\n{script}"), 0)?;
        }
        let mut spec = place.stand().spec(place);
        if let (Program::Script(script), false) = (&bundle.program, waits) {
            spec.args(&["/bin/sh", "-c", &format!(". /facts\n{script}")]);
        }
        for change in &bundle.changes {
            change(&mut spec);
        }
        if spec.0["linux"]["seccomp"] == CONTAINERDS_PROFILE {
            spec.set("/linux/seccomp", place.stand().seccomp()?);
        }
        Ok(Self {
            place,
            spec,
            seen: json!({}),
        })
    }

    /// Its spec, to be changed once more.
    pub(super) fn spec(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// Runs it to its own end; what was seen.
    ///
    /// # Errors
    /// When something fails that is no part of the case.
    pub(super) fn until_its_end(mut self, bundle: &Bundle) -> Result<Value> {
        if let Came::Started(_, heard) = self.start(bundle)? {
            self.end(heard, true)?;
        }
        self.finish(bundle)
    }

    /// Lets it wait, looks at it, and kills it; what was seen.
    ///
    /// # Errors
    /// When something fails that is no part of the case.
    pub(super) fn looked_at(mut self, bundle: &Bundle, extra: &[Exec]) -> Result<Value> {
        if let Came::Started(pid, heard) = self.start(bundle)? {
            let looked = self
                .is_its_program(pid)
                .and_then(|()| self.look(bundle, extra, pid));
            self.end(heard, false)?;
            looked?;
        }
        self.finish(bundle)
    }

    /// Lets it wait, does something to it, and kills it.
    ///
    /// # Errors
    /// When it does not start, or the deed fails.
    pub(super) fn while_running<T>(
        mut self,
        bundle: &Bundle,
        deed: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Came::Started(_, heard) = self.start(bundle)? else {
            bail!("it did not start: {}", self.seen);
        };
        let done = deed();
        self.end(heard, false)?;
        self.finish(bundle)?;
        done
    }

    fn start(&mut self, bundle: &Bundle) -> Result<Came> {
        let place = self.place;
        let api = place.stand().api();
        let terminal = self.spec.0["process"]["terminal"] == true;
        let heard = place.output("init", terminal)?;
        let spec = self.spec.filled(|text| place.fill(text));
        let created = api.create(NewTask {
            id: place.id(),
            runtime: place.runtime().kind(),
            spec: &spec,
            rootfs: place.stand().rootfs(bundle, place.id())?,
            output: &heard.output,
            systemd: bundle.systemd,
        });
        let pid = match created {
            Ok(pid) => pid,
            Err(refused) => {
                self.seen["create"] = self.refused(&refused);
                return Ok(Came::Refused);
            }
        };
        if bundle.settles {
            std::thread::sleep(SETTLES);
        }
        if let Err(refused) = api.start(place.id(), "") {
            self.seen["start"] = self.refused(&refused);
            self.remove()?;
            let said = heard.read(place)?;
            if said != json!({}) {
                self.seen["said"] = said;
            }
            return Ok(Came::Refused);
        }
        Ok(Came::Started(pid, heard))
    }

    /// Waits until the process is the container's program: both runtimes answer
    /// Start a moment before their own process becomes it.
    fn is_its_program(&self, pid: u32) -> Result<()> {
        let exe = self.place.stand().node().path(format!("/proc/{pid}/exe"));
        wait_for("the container's program", Duration::from_secs(10), || {
            let Ok(program) = fs::read_link(&exe) else {
                return Ok(Some(())); // It has ended, which the looks will tell.
            };
            let program = program.to_string_lossy();
            let is_runtime = ["runc", "reprise"].iter().any(|own| program.contains(own));
            Ok((!is_runtime).then_some(()))
        })
    }

    fn look(&mut self, bundle: &Bundle, extra: &[Exec], pid: u32) -> Result<()> {
        for look in &bundle.looks {
            match look {
                Look::Exec(exec) => self.seen[exec.name] = self.exec(exec)?,
                Look::Node(name, script) => {
                    let told = self.place.sh(script, pid).context(*name)?;
                    self.seen[*name] = self.place.lines(&told);
                }
                Look::After(..) => {}
            }
        }
        for exec in extra {
            self.seen[exec.name] = self.exec(exec)?;
        }
        Ok(())
    }

    /// Runs another process in the container.
    fn exec(&self, exec: &Exec) -> Result<Value> {
        let (place, id) = (self.place, self.place.id());
        let api = place.stand().api();
        let mut process = Spec(self.spec.0["process"].clone());
        let script = format!(". /facts\n{}", exec.script);
        process.set("/args", json!(["/bin/sh", "-c", script]));
        if let Some(change) = &exec.change {
            change(&mut process);
        }
        let name: String = exec
            .name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let heard = place.output(&name, process.0["terminal"] == true)?;
        let spec = process.filled(|text| place.fill(text));
        if let Err(refused) = api.exec(id, &name, &spec, &heard.output) {
            return Ok(json!({ "exec": self.refused(&refused) }));
        }
        if let Err(refused) = api.start(id, &name) {
            api.delete_exec(id, &name).ok();
            return Ok(json!({ "start": self.refused(&refused) }));
        }
        let code = api.wait(id, &name).context("its end")?;
        api.delete_exec(id, &name)?;
        let mut seen = heard.read(place)?;
        seen["exit"] = json!(code);
        Ok(seen)
    }

    /// Sees it end: by itself, or by our hand.
    fn end(&mut self, heard: Heard, by_itself: bool) -> Result<()> {
        let api = self.place.stand().api();
        if !by_itself {
            api.kill(self.place.id()).ok();
        }
        let code = api.wait(self.place.id(), "");
        if code.is_err() {
            api.kill(self.place.id()).ok();
            api.wait(self.place.id(), "").ok();
        }
        self.remove()?;
        let said = heard.read(self.place)?;
        if by_itself {
            self.seen["exit"] = json!(code.context("its end")?);
            self.seen["said"] = said;
        } else {
            code.context("its end by SIGKILL")?;
        }
        Ok(())
    }

    /// Deletes task and container, and writes down when that fails.
    fn remove(&mut self) -> Result<()> {
        let (api, id) = (self.place.stand().api(), self.place.id());
        if let Err(refused) = api.delete(id) {
            self.seen["delete"] = self.refused(&refused);
            api.kill(id).ok();
            api.delete(id).ok();
        }
        if let Err(refused) = api.forget(id) {
            self.seen["forget"] = self.refused(&refused);
        }
        Ok(())
    }

    /// Looks at what is left, and takes the layer away.
    fn finish(mut self, bundle: &Bundle) -> Result<Value> {
        for look in &bundle.looks {
            if let Look::After(name, script) = look {
                let told = self.place.sh(script, 0).context(*name)?;
                self.seen[*name] = self.place.lines(&told);
            }
        }
        let left = self.place.left()?;
        if !left.is_empty() {
            self.seen["left"] = json!(left);
        }
        self.place.stand().api().remove_layer(self.place.id())?;
        Ok(self.seen)
    }

    /// An error as the user reads it.
    fn refused(&self, refused: &Refused) -> Value {
        let message = self.place.plain(&refused.message);
        let mut seen = json!({
            "code": words::code(refused.code),
            "cause": words::cause(&message, "@ID@"),
        });
        if self.place.runtime() == Runtime::Reprise {
            let named = words::times_named(&message, "@ID@");
            if named != 1 {
                seen["named"] = json!(format!("{named} times in: {message}"));
            }
        }
        seen
    }
}
