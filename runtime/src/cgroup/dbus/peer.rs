//! Plays systemd's manager on a socket, with zbus, an implementation of D-Bus that
//! is not ours: what it understands is what we wrote.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue};
use zbus::{DBusError, interface};

/// What it was asked for.
#[derive(Debug, PartialEq)]
pub(in crate::cgroup) enum Asked {
    Start(String, String, Vec<(String, OwnedValue)>),
    Set(String, bool, Vec<(String, OwnedValue)>),
    Stop(String, String),
    Forget(String),
}

/// How it behaves.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::cgroup) struct Manners {
    /// So many starts are refused since the unit exists.
    pub(in crate::cgroup) exists: u32,
    /// How jobs end, if not with `done`.
    pub(in crate::cgroup) result: Option<&'static str>,
    /// It knows no unit.
    pub(in crate::cgroup) knows_none: bool,
    /// Properties are refused.
    pub(in crate::cgroup) refuses: bool,
}

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    UnitExists(String),
    NoSuchUnit(String),
}

struct Manager {
    asked: Sender<Asked>,
    manners: Manners,
    jobs: u32,
}

impl Manager {
    async fn job(
        &mut self,
        emitter: &SignalEmitter<'_>,
        unit: &str,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.jobs += 1;
        let job = |n: u32| {
            let path = format!("/org/freedesktop/systemd1/job/{n}");
            OwnedObjectPath::try_from(path).unwrap()
        };
        let result = self.manners.result.unwrap_or("done");
        // Somebody else's job first, and ours before we hear of it.
        Self::job_removed(emitter, 7, job(7000).as_ref(), "other.service", "failed").await?;
        Self::job_removed(emitter, self.jobs, job(self.jobs).as_ref(), unit, result).await?;
        Ok(job(self.jobs))
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn start_transient_unit(
        &mut self,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedValue)>,
        others: Vec<(String, Vec<(String, OwnedValue)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert!(others.is_empty());
        let unit = name.clone();
        self.asked
            .send(Asked::Start(name, mode, properties))
            .unwrap();
        if self.manners.exists > 0 {
            self.manners.exists -= 1;
            return Err(Refusal::UnitExists(format!("Unit {unit} exists")));
        }
        self.job(&emitter, &unit).await
    }

    async fn set_unit_properties(
        &mut self,
        name: String,
        runtime: bool,
        properties: Vec<(String, OwnedValue)>,
    ) -> zbus::fdo::Result<()> {
        self.asked
            .send(Asked::Set(name, runtime, properties))
            .unwrap();
        if self.manners.refuses {
            let why = "Value specified in AllowedCPUs is out of range".to_owned();
            return Err(zbus::fdo::Error::InvalidArgs(why));
        }
        Ok(())
    }

    async fn stop_unit(
        &mut self,
        name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let unit = name.clone();
        self.asked.send(Asked::Stop(name, mode)).unwrap();
        if self.manners.knows_none {
            return Err(Refusal::NoSuchUnit(format!("Unit {unit} not loaded.")));
        }
        self.job(&emitter, &unit).await
    }

    async fn reset_failed_unit(&mut self, name: String) -> Result<(), Refusal> {
        let unit = name.clone();
        self.asked.send(Asked::Forget(name)).unwrap();
        Err(Refusal::NoSuchUnit(format!("Unit {unit} not loaded.")))
    }

    #[zbus(property)]
    async fn version(&self) -> String {
        "257.8-1~deb13u2".to_owned()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// A socket at which systemd seems to listen.
#[derive(Debug)]
pub(in crate::cgroup) struct Peer {
    _dir: tempfile::TempDir,
    pub(in crate::cgroup) socket: PathBuf,
    asked: Receiver<Asked>,
    _serving: Receiver<Connection>,
}

impl Peer {
    /// Listens for one connection.
    pub(in crate::cgroup) fn new(manners: Manners) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, asked) = channel();
        let (keep, serving) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let manager = Manager {
                asked: sender,
                manners,
                jobs: 0,
            };
            let connection = Builder::unix_stream(stream)
                .server(zbus::Guid::generate())
                .unwrap()
                .p2p()
                .serve_at("/org/freedesktop/systemd1", manager)
                .unwrap()
                .build()
                .unwrap();
            // It serves from threads of its own, as long as it is there.
            keep.send(connection).unwrap();
        });
        Self {
            _dir: dir,
            socket,
            asked,
            _serving: serving,
        }
    }

    /// What it was asked for since the last time.
    pub(in crate::cgroup) fn asked(&self) -> Vec<Asked> {
        let first = self.asked.recv_timeout(Duration::from_secs(5)).ok();
        first.into_iter().chain(self.asked.try_iter()).collect()
    }
}
