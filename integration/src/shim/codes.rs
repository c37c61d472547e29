//! What a shim answers to requests that cannot be done, by every state that a
//! container goes through. Both shims are asked the same.

use super::proto::{AddExec, Any, CheckpointTask, CreateTask, Named, UpdateTask};
use super::{DirectShim, TASK};
use crate::bench::bundle::Template;
use crate::node::Node;
use crate::pod::Container;
use anyhow::{Context, Result};
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// One request and its answer: ttrpc's code (0 is well) and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The state, the method and whom it is about.
    pub asked: String,
    /// The code.
    pub code: i32,
    /// The message; empty when all is well.
    pub message: String,
}

/// A shim, and what it has answered so far.
struct Asking {
    shim: DirectShim,
    state: &'static str,
    answers: Vec<Answered>,
}

/// Drives a shim through the life of a container `id` that is like `like`.
///
/// # Errors
/// The shim does not come up or does not answer.
pub fn answers(
    node: &Node,
    program: &Path,
    id: &str,
    like: &Container<'_>,
) -> Result<Vec<Answered>> {
    let laid = Template::of(like)?.lay(id)?;
    let config = laid.bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    fs::write(&config, serde_json::to_vec(&spec)?)?;
    let mut shim = DirectShim::start(node, program, id, &laid.bundle)?;
    shim.create(&laid.rootfs)?;
    let mut asking = Asking {
        shim,
        state: "created",
        answers: Vec::new(),
    };
    asking.live(&spec["process"])?;
    asking.shim.shut_down();
    Ok(asking.answers)
}

const ALL: [&str; 11] = [
    "State",
    "Start",
    "Delete",
    "Pause",
    "Resume",
    "Kill",
    "ResizePty",
    "CloseIO",
    "Wait",
    "Pids",
    "Stats",
];
const OF_EXECS: [&str; 7] = [
    "State",
    "Start",
    "Delete",
    "Kill",
    "ResizePty",
    "CloseIO",
    "Wait",
];

/// Limits that every container can have.
const PIDS: &str = r#"{"pids": {"limit": 500}}"#;

/// Limits that none can have: what they are, and as they are sent.
const BAD_LIMITS: [(&str, &str); 8] = [
    ("no JSON", "["),
    ("nothing", ""),
    ("a word for a number", r#"{"memory": {"limit": "much"}}"#),
    ("a list", "[]"),
    ("too little memory", r#"{"memory": {"limit": 4096}}"#),
    (
        "too short a quota",
        r#"{"cpu": {"quota": 1, "period": 100000}}"#,
    ),
    ("a CPU that is not there", r#"{"cpu": {"cpus": "4000"}}"#),
    ("no list of CPUs", r#"{"cpu": {"cpus": "one"}}"#),
];

impl Asking {
    fn live(&mut self, process: &Value) -> Result<()> {
        for method in ALL {
            self.named(method, "nobody", "")?;
        }
        self.checkpoint("nobody")?;
        self.update("nobody", "a limit", PIDS)?;
        self.strangers()?;
        self.create_again()?;
        self.checkpoint("")?;
        self.update("", "a limit", PIDS)?;
        self.init(&["Pause", "Resume"])?;
        self.init(&["Start"])?;
        self.state = "running";
        self.strangers()?;
        self.init(&["Start", "Delete", "Resume"])?;
        self.create_again()?;
        self.checkpoint("")?;
        self.bad_requests()?;
        self.add("one", process)?;
        self.add("one", process)?;
        self.add("two", process)?;
        // Not started once more: runc's shim counts its end twice then, and panics.
        self.exec(&["Start", "Delete", "Kill", "Wait"])?;
        self.state = "its exec has ended";
        self.exec(&["Start", "ResizePty", "Kill", "Delete", "Delete", "Start"])?;
        self.state = "paused";
        self.init(&["Pause", "Pause", "Start", "Delete"])?;
        self.add("three", process)?;
        self.init(&["Resume", "Kill", "Wait"])?;
        self.state = "stopped";
        self.strangers()?;
        self.init(&["Start", "Pause", "Resume", "Kill", "Wait", "State"])?;
        self.create_again()?;
        self.checkpoint("")?;
        self.update("", "a limit", PIDS)?;
        self.add("four", process)?;
        let id = self.shim.id.clone();
        self.named("Start", &id, "two")?;
        self.init(&["Delete"])?;
        self.state = "deleted";
        self.checkpoint("")?;
        self.update("", "a limit", PIDS)?;
        self.init(&ALL)
    }

    /// About an exec that is not there.
    fn strangers(&mut self) -> Result<()> {
        let id = self.shim.id.clone();
        OF_EXECS
            .iter()
            .try_for_each(|method| self.named(method, &id, "stranger"))
    }

    fn init(&mut self, methods: &[&str]) -> Result<()> {
        let id = self.shim.id.clone();
        methods
            .iter()
            .try_for_each(|method| self.named(method, &id, ""))
    }

    fn exec(&mut self, methods: &[&str]) -> Result<()> {
        let id = self.shim.id.clone();
        methods
            .iter()
            .try_for_each(|method| self.named(method, &id, "one"))
    }

    fn named(&mut self, method: &str, id: &str, exec_id: &str) -> Result<()> {
        // A signal, a width, or whether it is stdin.
        let third = match method {
            "Kill" => 9,
            "ResizePty" => 80,
            "CloseIO" => 1,
            _ => 0,
        };
        let request = Named {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            third,
        };
        let whom = if exec_id.is_empty() { id } else { exec_id };
        self.ask(method, whom, &request)
    }

    fn add(&mut self, exec_id: &str, process: &Value) -> Result<()> {
        let request = AddExec {
            id: self.shim.id.clone(),
            exec_id: exec_id.to_owned(),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: serde_json::to_vec(process)?,
            }),
        };
        self.ask("Exec", exec_id, &request)
    }

    /// What no state would allow.
    fn bad_requests(&mut self) -> Result<()> {
        let signal = Named {
            id: self.shim.id.clone(),
            exec_id: String::new(),
            third: 99,
        };
        self.ask("Kill", "no signal", &signal)?;
        for (what, resources) in BAD_LIMITS {
            self.update("", what, resources)?;
        }
        Ok(())
    }

    /// New limits for a container, or for it when none is named.
    fn update(&mut self, whom: &str, what: &str, resources: &str) -> Result<()> {
        let request = UpdateTask {
            id: self.or_it(whom),
            resources: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
                    .to_owned(),
                value: resources.as_bytes().to_vec(),
            }),
        };
        self.ask("Update", &format!("{whom} with {what}"), &request)
    }

    /// A checkpoint into a place where none can be made.
    fn checkpoint(&mut self, whom: &str) -> Result<()> {
        let request = CheckpointTask {
            id: self.or_it(whom),
            path: "/dev/null/images".to_owned(),
            options: None,
        };
        self.ask("Checkpoint", &format!("{whom} into a file"), &request)
    }

    /// Once more what is there already.
    fn create_again(&mut self) -> Result<()> {
        let request = CreateTask {
            id: self.shim.id.clone(),
            bundle: self.shim.bundle.display().to_string(),
            rootfs: Vec::new(),
        };
        self.ask("Create", "it once more", &request)
    }

    fn or_it(&self, whom: &str) -> String {
        if whom.is_empty() {
            self.shim.id.clone()
        } else {
            whom.to_owned()
        }
    }

    fn ask(&mut self, method: &str, whom: &str, request: &impl Message) -> Result<()> {
        let (code, message) = self
            .shim
            .client
            .code_of(TASK, method, request)
            .with_context(|| format!("{method} of {whom}, {}", self.state))?;
        let whom = if whom == self.shim.id { "it" } else { whom };
        self.answers.push(Answered {
            asked: format!("{}: {method} of {whom}", self.state),
            code,
            message,
        });
        Ok(())
    }
}
