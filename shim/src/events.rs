//! Events for containerd, published in the order in which they were told.
//!
//! One queue per shim. While containerd is away (a restart) the first event in
//! the queue is tried again and holds the others back: an order that may break is
//! worth nothing to a subscriber.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::ExitSignal;
use containerd_shim::event::Event as Topic;
use containerd_shim::protos::api::ForwardRequest;
use containerd_shim::protos::events::task as wire;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::protobuf::{self, Message, MessageField};
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use containerd_shim::protos::types::mount::Mount;
use containerd_shim::util::timestamp;
use reprise_runtime::rootfs::RootfsMount;
use tokio::sync::mpsc;

use crate::protocol::to_any;
use crate::reaper::Exit;
use crate::stdio::Paths;

/// How many events may wait for containerd.
const QUEUED_EVENTS: usize = 1024;
/// How often one event is tried before it is given up.
const ATTEMPTS: u32 = 30;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Create(Box<Created>),
    Start {
        id: String,
        pid: i32,
    },
    ExecAdded {
        id: String,
        exec: String,
    },
    ExecStarted {
        id: String,
        exec: String,
        pid: i32,
    },
    /// Of init when `process` is the container's id, else of an exec.
    Exit {
        id: String,
        process: String,
        pid: i32,
        exit: Exit,
    },
    Oom {
        id: String,
    },
    Paused {
        id: String,
    },
    Resumed {
        id: String,
    },
    Checkpointed {
        id: String,
        path: String,
    },
    Delete {
        id: String,
        pid: i32,
        exit: Exit,
    },
}

/// What is told of a new container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<RootfsMount>,
    pub(crate) stdio: Paths,
    pub(crate) checkpoint: String,
}

/// Where events are told.
#[derive(Debug, Clone)]
pub(crate) struct Teller(mpsc::Sender<Event>);

impl Teller {
    /// A queue and its other end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (tell, told) = mpsc::channel(QUEUED_EVENTS);
        (Self(tell), told)
    }

    /// Queues an event. Nobody waits for containerd to hear of it.
    pub(crate) fn tell(&self, event: Event) {
        if let Err(e) = self.0.try_send(event) {
            log::error!(error = e.to_string().as_str(); "an event is lost");
        }
    }
}

/// Publishes until the shim ends, and then what is still in the queue.
pub(crate) async fn publish(
    mut told: mpsc::Receiver<Event>,
    address: String,
    namespace: String,
    exit: Arc<ExitSignal>,
) {
    let mut client = None;
    loop {
        let next = tokio::select! {
            biased;
            event = told.recv() => event,
            () = exit.wait() => told.try_recv().ok(),
        };
        let Some(event) = next else { return };
        let envelope = match envelope(&event, &namespace) {
            Ok(envelope) => envelope,
            Err(e) => {
                log::error!(error = e.to_string().as_str(); "cannot encode an event");
                continue;
            }
        };
        for attempt in 1..=ATTEMPTS {
            let Err(e) = forward(&mut client, &address, &envelope).await else {
                break;
            };
            client = None;
            if attempt == ATTEMPTS {
                log::error!(error = e.as_str(), topic = envelope.topic.as_str(); "an event is lost");
            } else {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
        }
    }
}

async fn forward(
    client: &mut Option<EventsClient>,
    address: &str,
    envelope: &Envelope,
) -> Result<(), String> {
    let client = match client {
        Some(client) => client,
        None => {
            let address = address.strip_prefix("unix://").unwrap_or(address);
            let connected = Client::connect(&format!("unix://{address}")).await;
            client.insert(EventsClient::new(connected.map_err(|e| e.to_string())?))
        }
    };
    let request = ForwardRequest {
        envelope: MessageField::some(envelope.clone()),
        ..Default::default()
    };
    let context = containerd_shim::protos::ttrpc::context::with_duration(Duration::from_secs(10));
    match client.forward(context, &request).await {
        Ok(_) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn envelope(event: &Event, namespace: &str) -> containerd_shim::Result<Envelope> {
    let (topic, message) = to_wire(event)?;
    Ok(Envelope {
        timestamp: MessageField::some(timestamp()?),
        namespace: namespace.to_owned(),
        topic,
        event: MessageField::some(message),
        ..Default::default()
    })
}

fn to_wire(event: &Event) -> protobuf::Result<(String, Any)> {
    fn with_topic<T: Topic + Message>(message: &T) -> protobuf::Result<(String, Any)> {
        Ok((message.topic(), to_any("containerd.events", message)?))
    }
    match event.clone() {
        Event::Create(created) => with_topic(&create_to_wire(*created)),
        Event::Start { id, pid } => with_topic(&wire::TaskStart {
            container_id: id,
            pid: pid.unsigned_abs(),
            ..Default::default()
        }),
        Event::ExecAdded { id, exec } => with_topic(&wire::TaskExecAdded {
            container_id: id,
            exec_id: exec,
            ..Default::default()
        }),
        Event::ExecStarted { id, exec, pid } => with_topic(&wire::TaskExecStarted {
            container_id: id,
            exec_id: exec,
            pid: pid.unsigned_abs(),
            ..Default::default()
        }),
        Event::Exit {
            id,
            process,
            pid,
            exit,
        } => with_topic(&wire::TaskExit {
            container_id: id,
            id: process,
            pid: pid.unsigned_abs(),
            exit_status: exit.status,
            exited_at: MessageField::some(to_timestamp(exit.at)),
            ..Default::default()
        }),
        Event::Oom { id } => with_topic(&wire::TaskOOM {
            container_id: id,
            ..Default::default()
        }),
        Event::Paused { id } => with_topic(&wire::TaskPaused {
            container_id: id,
            ..Default::default()
        }),
        Event::Resumed { id } => with_topic(&wire::TaskResumed {
            container_id: id,
            ..Default::default()
        }),
        Event::Checkpointed { id, path } => with_topic(&wire::TaskCheckpointed {
            container_id: id,
            checkpoint: path,
            ..Default::default()
        }),
        Event::Delete { id, pid, exit } => with_topic(&wire::TaskDelete {
            container_id: id,
            pid: pid.unsigned_abs(),
            exit_status: exit.status,
            exited_at: MessageField::some(to_timestamp(exit.at)),
            ..Default::default()
        }),
    }
}

fn create_to_wire(created: Created) -> wire::TaskCreate {
    let rootfs = created.rootfs.into_iter().map(|mount| Mount {
        type_: mount.typ,
        source: mount.source,
        target: mount.target,
        options: mount.options,
        ..Default::default()
    });
    wire::TaskCreate {
        container_id: created.id,
        bundle: created.bundle.to_string_lossy().into_owned(),
        rootfs: rootfs.collect(),
        io: MessageField::some(wire::TaskIO {
            stdin: created.stdio.stdin,
            stdout: created.stdio.stdout,
            stderr: created.stdio.stderr,
            terminal: created.stdio.terminal,
            ..Default::default()
        }),
        checkpoint: created.checkpoint,
        pid: created.pid.unsigned_abs(),
        ..Default::default()
    }
}

/// A point in time, as protobuf has it.
pub(crate) fn to_timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_containerds() {
        let exit = Event::Exit {
            id: "c".into(),
            process: "e".into(),
            pid: 3,
            exit: Exit::now(137),
        };
        let envelope = envelope(&exit, "k8s.io").unwrap();
        assert_eq!(envelope.topic, "/tasks/exit");
        assert_eq!(envelope.namespace, "k8s.io");
        assert_eq!(envelope.event.type_url, "containerd.events.TaskExit");
    }
}
