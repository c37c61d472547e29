//! The systemd cgroup driver: a container's cgroup is a transient unit, named by
//! a `cgroupsPath` of the form `slice:prefix:name`. systemd makes and removes the
//! cgroup and knows its limits, so that it does not undo them; everything else is
//! done in the cgroup's files, as with the other driver.
//!
//! ```text
//!  kubepods-pod1.slice:cri-containerd:abc
//!  -> unit   cri-containerd-abc.scope
//!  -> cgroup /kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope
//! ```

use std::collections::HashMap;

use oci_spec::runtime::{LinuxResources, Spec};

use super::dbus::{Body, CallError, Connection, Property, Value};
use super::devices::Rules;
use super::{annotation, properties};
use crate::error::{Error, ErrorKind, Result};

/// Where units without a slice go.
const DEFAULT_SLICE: &str = "system.slice";
/// Longest name of a unit.
const LONGEST: usize = 255;

/// A container's unit: a scope, or a slice if its name ends so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    name: String,
    slice: String,
    container: String,
    /// What can be said at the start only: `org.systemd.property.*` annotations,
    /// and what happens when one process is killed for memory.
    extra: Vec<Property>,
    /// `memory.oom.group`, as the spec has it.
    oom_group: Option<String>,
}

impl Unit {
    /// The unit that a `cgroupsPath` names; `None` if it has not this form.
    ///
    /// # Errors
    /// A slice or unit that cannot exist; annotations that are no properties.
    pub(super) fn of(path: &str, spec: &Spec) -> Result<Option<Self>> {
        let parts: Vec<&str> = path.split(':').collect();
        let &[slice, prefix, container] = &parts[..] else {
            return Ok(None);
        };
        let slice = match slice {
            "" => DEFAULT_SLICE,
            slice if is_slice(slice) && !slice.contains('/') => slice,
            _ => return Ok(None),
        };
        let name = if is_slice(container) {
            container.to_owned()
        } else {
            format!("{prefix}-{container}.scope")
        };
        expand(slice)?;
        if is_slice(&name) {
            expand(&name)?;
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > LONGEST || !name.chars().all(fits) {
            return Err(invalid(format!("invalid unit name: {name}")));
        }
        let unified = resources(spec).and_then(|r| r.unified().as_ref());
        let annotations = spec.annotations().clone().unwrap_or_default();
        Ok(Some(Self {
            extra: extra(&annotations)?,
            oom_group: unified.and_then(|u| u.get("memory.oom.group")).cloned(),
            name,
            slice: slice.to_owned(),
            container: container.to_owned(),
        }))
    }

    /// Its cgroup, below the root of each hierarchy.
    pub(super) fn path(&self) -> Result<String> {
        let slice = expand(&self.slice)?;
        Ok(format!("{}/{}", slice.trim_end_matches('/'), self.name))
    }

    /// Whether it is a slice, which has no processes when it is made.
    pub(super) fn is_slice(&self) -> bool {
        is_slice(&self.name)
    }

    /// Starts the unit around its first process and waits until it is there. A
    /// failed one of the same name is forgotten first.
    ///
    /// # Errors
    /// systemd refuses it, or cannot be reached.
    pub(super) fn start(&self, first: u32, is_v2: bool) -> Result<()> {
        self.start_at(&mut Connection::open()?, first, is_v2)
    }

    pub(super) fn start_at(&self, systemd: &mut Connection, first: u32, is_v2: bool) -> Result<()> {
        let doing = || format!("Cannot start unit {}", self.name);
        let mut properties = self.founding(first, is_v2);
        if let Some(policy) = self.oom_group.as_deref().filter(|_| is_v2) {
            let version = systemd.version().map_err(|e| e.doing(doing()))?;
            properties.extend(properties::oom_policy(policy, version));
        }
        let body = || {
            Body::default()
                .and_text(&self.name)
                .and_text("replace")
                .and_properties(&properties)
                .and_no_units()
        };
        let member = "StartTransientUnit";
        let mut asked = systemd.manager(member, "ssa(sv)a(sa(sv))", body());
        if matches!(&asked, Err(e) if e.is("UnitExists")) {
            if self.is_slice() {
                return Ok(());
            }
            self.forget(systemd);
            asked = systemd.manager(member, "ssa(sv)a(sa(sv))", body());
        }
        let job = asked.map_err(|e| e.doing(doing()))?.unwrap_or_default();
        let result = systemd.wait_for_job(&job)?;
        if result != "done" {
            self.forget(systemd);
            let line = format!("{}: systemd's job ended with {result:?}", doing());
            return Err(Error::internal(line));
        }
        Ok(())
    }

    /// What the unit is, before its limits.
    fn founding(&self, first: u32, is_v2: bool) -> Vec<Property> {
        let own = |name: &str, value| (name.to_owned(), value);
        let description = format!("reprise container {}", self.container);
        let mut all = vec![own("Description", Value::Text(description))];
        if self.is_slice() {
            all.push(own("Wants", Value::Texts(vec![self.slice.clone()])));
        } else {
            all.push(own("Slice", Value::Text(self.slice.clone())));
            all.push(own("Delegate", Value::Bool(true)));
            all.push(own("PIDs", Value::Numbers(vec![first])));
        }
        let io = if is_v2 {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        };
        for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            all.push(own(accounting, Value::Bool(true)));
        }
        all.push(own("DefaultDependencies", Value::Bool(false)));
        all.extend(self.extra.iter().cloned());
        all
    }

    /// Tells systemd the limits, and the device rules if there are any to tell.
    ///
    /// # Errors
    /// A limit that systemd or the node cannot have.
    pub(super) fn set(
        &self,
        resources: &LinuxResources,
        rules: Option<&Rules>,
        is_v2: bool,
    ) -> Result<()> {
        self.set_at(&mut Connection::open()?, resources, rules, is_v2)
    }

    pub(super) fn set_at(
        &self,
        systemd: &mut Connection,
        resources: &LinuxResources,
        rules: Option<&Rules>,
        is_v2: bool,
    ) -> Result<()> {
        let doing = || format!("Cannot set the properties of unit {}", self.name);
        let version = if properties::depend_on_version(resources) {
            systemd.version().map_err(|e| e.doing(doing()))?
        } else {
            u32::MAX
        };
        let mut all = rules.map(properties::devices).unwrap_or_default();
        all.extend(properties::limits(resources, is_v2, version)?);
        if all.is_empty() {
            return Ok(());
        }
        let body = Body::default()
            .and_text(&self.name)
            .and_bool(true) // until the next boot: a transient unit has no file
            .and_properties(&all);
        systemd
            .manager("SetUnitProperties", "sba(sv)", body)
            .map_err(|e| e.doing(doing()))?;
        Ok(())
    }

    /// Stops the unit and waits until systemd is done. None there is no error: a
    /// scope goes by itself with its last process.
    ///
    /// # Errors
    /// systemd refuses, or cannot be reached.
    pub(super) fn stop(&self) -> Result<()> {
        self.stop_at(&mut Connection::open()?)
    }

    pub(super) fn stop_at(&self, systemd: &mut Connection) -> Result<()> {
        let body = Body::default().and_text(&self.name).and_text("replace");
        match systemd.manager("StopUnit", "ss", body) {
            Ok(job) => {
                systemd.wait_for_job(&job.unwrap_or_default())?;
            }
            Err(e) if e.is("NoSuchUnit") => return Ok(()),
            Err(e) => return Err(e.doing(format_args!("Cannot stop unit {}", self.name))),
        }
        self.forget(systemd);
        Ok(())
    }

    /// Lets systemd forget a unit that failed.
    fn forget(&self, systemd: &mut Connection) {
        let body = Body::default().and_text(&self.name);
        // Nothing to forget is what it answers as a rule.
        drop::<std::result::Result<_, CallError>>(systemd.manager("ResetFailedUnit", "s", body));
    }
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

/// `a-b.slice` is `/a.slice/a-b.slice`, and `-.slice` the root.
fn expand(slice: &str) -> Result<String> {
    let wrong = || invalid(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        let so_far = &name[..end];
        if so_far.is_empty() || so_far.ends_with('-') || so_far.contains(['/', '\0', '\n']) {
            return Err(wrong());
        }
        path.push_str(&format!("/{so_far}.slice"));
    }
    Ok(path)
}

/// The properties among the annotations, in a fixed order.
fn extra(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    for (name, text) in annotations {
        if let Some(name) = name.strip_prefix(annotation::PREFIX) {
            all.push(annotation::property(name, text)?);
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
