//! What a case is made of: declared, not run.

use super::Stand;
use super::spec::Spec;
use crate::Runtime;
use anyhow::Result;
use serde_json::Value;

/// Changes a spec.
type Change = Box<dyn for<'s> Fn(&'s mut Spec) -> &'s mut Spec + Send + Sync>;
/// Tells from both observations whether ours is stricter exactly as declared.
type Predicate = Box<dyn Fn(&Value, &Value) -> bool + Send + Sync>;
/// A case that is not one container of one bundle.
type Free = Box<dyn Fn(&Stand, Runtime) -> Result<Value> + Send + Sync>;

/// One comparison of both runtimes.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Case {
    /// The row of libcontainer-gaps.md.
    pub row: u8,
    /// What it is about, unique within its row.
    pub name: &'static str,
    /// What is run and looked at.
    pub body: Body,
    /// What it needs of the machine.
    pub needs: Vec<Need>,
    /// Where we are stricter on purpose.
    pub stricter: Option<Stricter>,
    /// What is seen and not compared.
    pub ignored: Vec<&'static str>,
}

/// What is run and looked at.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub enum Body {
    /// A container, made from a bundle.
    Bundle(Box<Bundle>),
    /// Anything else.
    Free(Free),
}

/// A container made from a bundle, and how it is looked at.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Bundle {
    /// A shell script that fills `$ROOT`, a layer on the base image.
    pub image: Option<String>,
    /// Whether the cgroup driver is systemd's.
    pub systemd: bool,
    /// Whether its layer is mapped for the user namespace of the spec.
    pub mapped_layer: bool,
    /// A shell script that is run on the node before Create, in `$P`.
    pub before: Option<String>,
    /// How containerd's default spec is changed.
    pub changes: Vec<Change>,
    /// Whether some time passes between Create and Start.
    pub settles: bool,
    /// What its first process does.
    pub program: Program,
    /// What is looked at, in this order.
    pub looks: Vec<Look>,
    /// Whether it is looked at as restored from a checkpoint, too.
    pub restored: Restored,
}

/// What a container's first process does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// Waits until it is killed.
    #[default]
    Waits,
    /// Runs a shell script and ends.
    Script(&'static str),
    /// What the spec says, and ends.
    Own,
}

/// One thing that is looked at.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub enum Look {
    /// By another process in the container.
    Exec(Exec),
    /// By a shell script on the node, while the container runs.
    Node(&'static str, &'static str),
    /// By a shell script on the node, after the container is gone.
    After(&'static str, String),
}

/// A process that is added to a container.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Exec {
    /// What the look is called.
    pub name: &'static str,
    /// A shell script; empty when the change sets other arguments.
    pub script: &'static str,
    /// How the container's own process is changed for it.
    pub change: Option<Change>,
}

/// Whether a case makes sense for a restored container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Restored {
    /// No: it is about how something starts, or about nothing that is restored.
    #[default]
    Not,
    /// Yes.
    Yes,
    /// It starts cold by design, for a reason that has these words.
    ColdBecause(&'static str),
    /// It cannot be checkpointed by design, for a reason that has these words.
    NoCheckpoint(&'static str),
}

/// What a case needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// cgroup v1.
    CgroupV1,
    /// cgroup v2.
    CgroupV2,
    /// A running systemd, for its cgroup driver.
    Systemd,
    /// A controller of cgroup v1 or v2.
    Controller(&'static str),
    /// A kernel with this security module.
    SecurityModule(&'static str),
}

/// Where we are stricter than runc on purpose.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Stricter {
    /// A reason that a user would accept.
    pub why: &'static str,
    /// Whether exactly that was seen, runc's observation first.
    pub holds: Predicate,
}

impl Case {
    /// A container that waits while it is looked at.
    #[must_use]
    pub fn new(row: u8, name: &'static str) -> Self {
        Self {
            row,
            name,
            body: Body::Bundle(Box::default()),
            needs: Vec::new(),
            stricter: None,
            ignored: Vec::new(),
        }
    }

    /// A case that is not one container of one bundle.
    #[must_use]
    pub fn free(
        row: u8,
        name: &'static str,
        run: impl Fn(&Stand, Runtime) -> Result<Value> + Send + Sync + 'static,
    ) -> Self {
        Self {
            body: Body::Free(Box::new(run)),
            ..Self::new(row, name)
        }
    }

    /// Only on such a machine.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Without comparing this, which must differ.
    #[must_use]
    pub fn ignoring(mut self, seen: &'static str) -> Self {
        self.ignored.push(seen);
        self
    }

    /// We are stricter on purpose; `holds` tells whether exactly so.
    #[must_use]
    pub fn stricter(
        mut self,
        why: &'static str,
        holds: impl Fn(&Value, &Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        let holds = Box::new(holds);
        self.stricter = Some(Stricter { why, holds });
        self
    }

    /// On an image with more in it: a shell script that fills `$ROOT`.
    #[must_use]
    pub fn image(self, script: impl Into<String>) -> Self {
        self.with(|bundle| bundle.image = Some(script.into()))
    }

    /// In a user namespace, on layers that are mapped for it.
    #[must_use]
    pub fn in_user_namespace(self) -> Self {
        self.with(|bundle| bundle.mapped_layer = true)
            .spec(|spec| spec.user_namespace(super::stand::HOST_ID))
    }

    /// With containerd's own seccomp profile.
    #[must_use]
    pub fn default_seccomp(self) -> Self {
        self.spec(|spec| spec.set("/linux/seccomp", super::run::CONTAINERDS_PROFILE))
    }

    /// Started only when what dies after Create has died: else runc's words
    /// depend on who is faster.
    #[must_use]
    pub fn settles(self) -> Self {
        self.with(|bundle| bundle.settles = true)
    }

    /// With systemd's cgroup driver.
    #[must_use]
    pub fn systemd(self) -> Self {
        self.with(|bundle| bundle.systemd = true)
    }

    /// After a shell script on the node, in `$P`.
    #[must_use]
    pub fn before(self, script: impl Into<String>) -> Self {
        self.with(|bundle| bundle.before = Some(script.into()))
    }

    /// With another spec.
    #[must_use]
    pub fn spec(
        self,
        change: impl for<'s> Fn(&'s mut Spec) -> &'s mut Spec + Send + Sync + 'static,
    ) -> Self {
        self.with(|bundle| bundle.changes.push(Box::new(change)))
    }

    /// Runs a shell script as its first process, and ends.
    #[must_use]
    pub fn runs(self, script: &'static str) -> Self {
        self.with(|bundle| bundle.program = Program::Script(script))
    }

    /// Runs what the spec says as its first process, and ends.
    #[must_use]
    pub fn runs_own(self) -> Self {
        self.with(|bundle| bundle.program = Program::Own)
    }

    /// Looked at by a shell script in the container.
    #[must_use]
    pub fn exec(self, name: &'static str, script: &'static str) -> Self {
        self.look(Look::Exec(Exec {
            name,
            script,
            change: None,
        }))
    }

    /// Looked at by a process in the container that differs from its own.
    #[must_use]
    pub fn exec_as(
        self,
        name: &'static str,
        script: &'static str,
        change: impl for<'s> Fn(&'s mut Spec) -> &'s mut Spec + Send + Sync + 'static,
    ) -> Self {
        self.look(Look::Exec(Exec {
            name,
            script,
            change: Some(Box::new(change)),
        }))
    }

    /// Looked at by a shell script on the node, with `$PID`, `$ID`, `$P` and
    /// `$CGROUP`, while it runs.
    #[must_use]
    pub fn node(self, name: &'static str, script: &'static str) -> Self {
        self.look(Look::Node(name, script))
    }

    /// Looked at by a shell script on the node after it is gone.
    #[must_use]
    pub fn after(self, name: &'static str, script: impl Into<String>) -> Self {
        self.look(Look::After(name, script.into()))
    }

    /// As restored from a checkpoint, too.
    #[must_use]
    pub fn restored(self) -> Self {
        self.with(|bundle| bundle.restored = Restored::Yes)
    }

    /// As a container that has a checkpoint and starts cold all the same.
    #[must_use]
    pub fn cold_because(self, words: &'static str) -> Self {
        self.with(|bundle| bundle.restored = Restored::ColdBecause(words))
    }

    /// As a container that cannot be checkpointed.
    #[must_use]
    pub fn no_checkpoint(self, words: &'static str) -> Self {
        self.with(|bundle| bundle.restored = Restored::NoCheckpoint(words))
    }

    fn look(self, look: Look) -> Self {
        self.with(|bundle| bundle.looks.push(look))
    }

    fn with(mut self, change: impl FnOnce(&mut Bundle)) -> Self {
        if let Body::Bundle(bundle) = &mut self.body {
            change(bundle);
        }
        self
    }
}
