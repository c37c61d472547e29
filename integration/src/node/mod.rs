//! A private containerd node on this machine.
//!
//! `init.sh` is PID 1 of the node's own PID, mount and network namespaces: it
//! gives it a `/run`, `/etc` and `/var/lib` of its own and removes everything
//! when the harness lets go of it, however the harness ended. The host's
//! containerd, CNI and `/run` are never touched, and many nodes run at once.

mod boot;
mod cgroups;
mod command;
mod config;
mod driver;
mod options;
mod place;
mod sweep;
mod template;

pub(crate) use boot::{only_child, wait_until_ready};
pub use command::Finished;
pub(crate) use command::{time_limit, time_limit_of};
pub use driver::CgroupDriver;
pub use options::{Criu, NodeOptions};
pub(crate) use place::Place;

use crate::containerd::Containerd;
use crate::cri::Cri;
use crate::tools::{self, Tools};
use crate::wait::{patience, wait_for};
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const INIT: &str = include_str!("init.sh");
/// Tests that restart containerd first want to see it gone. Others count a
/// shim's pipes, and one that this program was started with is none of them.
const KEEP_ALIVE: &str = r#"
for fd in /proc/$$/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
done
while :; do containerd "$@"; sleep 3; done"#;
/// A service manager for nodes on which containerd is restarted by somebody who did
/// not start it: the node's own `SERVICE_RESTART` stands for `systemctl restart`.
const SERVICE: &str =
    r#"while :; do containerd "$@" & echo $! >/run/containerd.pid; wait $!; sleep 0.1; done"#;
/// The shell command that restarts containerd on a pristine node.
pub const SERVICE_RESTART: &str = "pid=$(cat /run/containerd.pid); kill $pid; \
     while [ \"$(cat /run/containerd.pid)\" = $pid ]; do sleep 0.05; done";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where packages of containerd have its configuration.
pub const PACKAGED_CONFIG: &str = "/etc/containerd/config.toml";

/// A private containerd with its own processes, mounts, network and cgroups.
#[derive(Debug)]
pub struct Node {
    place: Place,
    tools: Tools,
    driver: CgroupDriver,
    plan: boot::Plan,
    init: boot::Init,
    containerd: Mutex<Option<Child>>,
    environment: Vec<(String, String)>,
    keeper: Option<&'static str>,
    config: PathBuf,
    cri: Cri,
}

impl Node {
    /// Starts a node with the default containerd.
    ///
    /// # Errors
    /// When a tool is missing or containerd does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(&NodeOptions::default())
    }

    /// Starts a node.
    ///
    /// # Errors
    /// When a tool is missing or containerd does not come up.
    pub fn start_with(options: &NodeOptions) -> Result<Self> {
        let tools = Tools::find(&options.containerd)?;
        let template = match options.images_root {
            Some(_) => None,
            None => Some(template::prepare(&tools).context("making the image template")?),
        };
        let place = Place::new()?;
        let dir = place.dir.clone();
        let root = options
            .images_root
            .clone()
            .unwrap_or_else(|| dir.join("containerd"));
        furnish(&dir, &tools, options)?;
        if let Some(template) = &template {
            fs::create_dir_all(&root)?;
            template::copy(template, &root)?;
        }
        let plan = boot::Plan::new(&place, (&root, template.as_deref()), &tools.cni(), options);
        let init = plan.boot()?;
        let cri = cri_of(init.pid)?;
        let (config, keeper) = match options {
            NodeOptions { pristine: true, .. } => (PathBuf::from(PACKAGED_CONFIG), Some(SERVICE)),
            _ => (
                dir.join("containerd.toml"),
                options.suites.then_some(KEEP_ALIVE),
            ),
        };
        let node = Self {
            place,
            tools,
            driver: options.cgroup_driver,
            plan,
            init,
            containerd: Mutex::new(None),
            environment: options.environment.clone(),
            keeper,
            config,
            cri,
        };
        node.start_containerd()?;
        Ok(node)
    }

    /// Ends all that runs on it, as a power cut does, and starts it again: `/run`, the
    /// processes and the network are new, the disk is what it was.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn reboot(&mut self) -> Result<()> {
        self.plan.halt(&mut self.init)?;
        if let Some(mut nsenter) = self.lock_containerd().take() {
            nsenter.wait()?;
        }
        self.init = self.plan.boot()?;
        self.cri = cri_of(self.init.pid)?;
        self.start_containerd()
    }

    /// The parent of all this node's pods in every cgroup controller.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("/{}", self.driver.top(&self.place.id))
    }

    /// `linux.cgroupsPath` of a container that is made without the CRI.
    #[must_use]
    pub fn cgroups_path(&self, id: &str) -> String {
        self.driver.cgroups_path(&self.place.id, id)
    }

    /// The cgroup directory of a pod's container, in a controller (cgroup v1)
    /// or at all (v2).
    #[must_use]
    pub fn cgroup_of(&self, id: &str, controller: &str) -> PathBuf {
        driver::hierarchy(controller).join(self.driver.directory(&self.place.id, id))
    }

    /// Who makes the pods' cgroups.
    #[must_use]
    pub fn cgroup_driver(&self) -> CgroupDriver {
        self.driver
    }

    /// The node's files, at the same place inside and outside.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// The tools that this node runs with.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A path inside the node, as the harness reaches it.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new(&format!("/proc/{}/root", self.init.pid))
            .join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Its first process, as the harness knows it.
    pub(crate) fn pid(&self) -> Pid {
        self.init.pid
    }

    /// The node's mounts.
    pub(crate) fn mountinfo(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/mountinfo", self.init.pid))
    }

    /// Whether a process of the node's `/proc` is one of its own: where all are
    /// seen, those that have its mounts or one of its cgroups.
    pub(crate) fn has_process(&self, proc: &Path) -> bool {
        let mounts = |dir: &Path| fs::read_link(dir.join("ns/mnt")).ok();
        let cgroup = || fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        let init = PathBuf::from(format!("/proc/{}", self.init.pid));
        match self.driver {
            CgroupDriver::Cgroupfs => true,
            CgroupDriver::Systemd => {
                mounts(proc) == mounts(&init) || cgroup().contains(&self.driver.top(&self.place.id))
            }
        }
    }

    /// The CRI client of this node.
    #[must_use]
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// A client of containerd's own API, in the CRI plugin's namespace.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn containerd(&self) -> Result<Containerd> {
        let socket = self.path(SOCKET).display().to_string();
        Containerd::new(&socket, "k8s.io")
    }

    /// What containerd and the shims have logged so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.place.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where the log is; it stays after the node is gone.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.place.log
    }

    /// Does work on a thread that is in the node's network.
    ///
    /// # Errors
    /// When the network cannot be entered.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<T> {
                setns(&self.init.network, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts containerd and waits until its CRI is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_containerd(&self) -> Result<()> {
        let log = File::options().append(true).open(&self.place.log)?;
        let mut containerd = match self.keeper {
            Some(script) => {
                let mut shell = self.command("bash");
                shell.args(["-c", script, "keep-alive"]);
                shell
            }
            None => self.command("containerd"),
        };
        let child = containerd
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let mut containerd = self.lock_containerd();
        *containerd = Some(child);
        wait_for("containerd's CRI", Duration::from_secs(30), || {
            if let Some(status) = containerd
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten())
            {
                bail!("containerd ended with {status}");
            }
            Ok(self.cri.ready().then_some(()))
        })
        .with_context(|| format!("see {}", self.place.log.display()))
    }

    /// Ends containerd with SIGTERM and waits for its end; pods go on.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop_containerd(&self) -> Result<()> {
        self.end_containerd(Signal::SIGTERM)
    }

    /// Ends containerd with SIGKILL, as a crash does; pods go on.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill_containerd(&self) -> Result<()> {
        self.end_containerd(Signal::SIGKILL)
    }

    fn end_containerd(&self, signal: Signal) -> Result<()> {
        let Some(mut nsenter) = self.lock_containerd().take() else {
            return Ok(());
        };
        // nsenter stays only where it must fork into other processes' namespace.
        let containerd = match self.driver {
            CgroupDriver::Cgroupfs => only_child(nsenter.id())?,
            CgroupDriver::Systemd => Pid::from_raw(i32::try_from(nsenter.id())?),
        };
        kill(containerd, signal)?;
        nsenter.wait()?;
        Ok(())
    }

    /// The cgroup directories of this node's pods, in every controller.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        sweep::cgroups_named(&self.driver.top(&self.place.id))
            .iter()
            .flat_map(|top| sweep::children(top))
            .collect()
    }

    fn lock_containerd(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.containerd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    /// Lets init remove the node, and waits for it.
    fn drop(&mut self) {
        self.init.end();
        if let Some(mut nsenter) = self.lock_containerd().take() {
            nsenter.wait().ok();
        }
    }
}

fn cri_of(init: Pid) -> Result<Cri> {
    Cri::new(&format!("/proc/{init}/root{SOCKET}"))
}

/// Writes the files that the node starts from.
fn furnish(dir: &Path, tools: &Tools, options: &NodeOptions) -> Result<()> {
    for sub in ["bin", "tmp", "reprise", "containerd", "logs"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for program in tools.programs() {
        let name = program.file_name().unwrap_or_default();
        if options.pristine && tools::OURS.iter().any(|ours| name == *ours) {
            continue;
        }
        std::os::unix::fs::symlink(&program, dir.join("bin").join(name))?;
    }
    options.criu.install(&dir.join("bin"), tools)?;
    fs::write(
        dir.join("containerd.toml"),
        config::containerd(&tools.cni(), options),
    )?;
    fs::write(dir.join("cni.conflist"), config::network(options))?;
    if patience() > 1 {
        fs::write(dir.join("crictl.yaml"), config::crictl())?;
    }
    fs::write(dir.join("init.sh"), INIT)?;
    if let Some(reprise) = &options.config {
        fs::write(dir.join("reprise.toml"), reprise)?;
    }
    Ok(())
}
