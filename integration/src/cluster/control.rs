//! etcd, the API server and those who act on what it has.

use super::credentials::{Credentials, User};
use super::daemon::Daemon;
use super::network::{API_SERVER, CONTROL, SERVICES};
use super::options::ClusterOptions;
use crate::node::{Finished, Place, wait_until_ready};
use crate::tools::Tools;
use crate::wait::wait_for;
use anyhow::{Context, Result};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

const INIT: &str = include_str!("control.sh");

/// A control plane in namespaces of its own.
#[derive(Debug)]
pub(super) struct ControlPlane {
    place: Place,
    credentials: Credentials,
    kubernetes: String,
    daemons: Vec<Daemon>,
    unshare: Child,
    lifeline: Option<ChildStdin>,
    init: Pid,
}

impl ControlPlane {
    /// Starts one and waits until its API server answers.
    pub(super) fn start(options: &ClusterOptions) -> Result<Self> {
        let place = Place::new()?;
        fs::create_dir_all(&place.dir)?;
        let credentials = Credentials::make(place.dir.join("credentials"), options.workers)?;
        let init = place.dir.join("control.sh");
        fs::write(&init, INIT)?;
        let mut unshare = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--fork",
                "--pid",
                "--mount-proc",
                "bash",
            ])
            .args([&*init, &*place.dir, Path::new(CONTROL)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).open(&place.log)?)
            .process_group(0)
            .spawn()
            .context("starting `unshare`")?;
        let lifeline = unshare.stdin.take();
        let init = wait_until_ready(&mut unshare).with_context(|| {
            format!(
                "the control plane did not start, see {}",
                place.log.display()
            )
        })?;
        let mut control = Self {
            place,
            credentials,
            kubernetes: options.kubernetes.clone(),
            daemons: Vec::new(),
            unshare,
            lifeline,
            init,
        };
        control.start_daemons()?;
        Ok(control)
    }

    /// Its first process, as this program knows it.
    pub(super) fn pid(&self) -> Pid {
        self.init
    }

    /// Its network.
    pub(super) fn network(&self) -> Result<File> {
        Ok(File::open(format!("/proc/{}/ns/net", self.init))?)
    }

    /// Its files, which go with it.
    pub(super) fn dir(&self) -> &Path {
        &self.place.dir
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where the logs of its programs are.
    pub(super) fn logs(&self) -> String {
        self.log("*").display().to_string()
    }

    /// Fails when one of its programs has ended.
    pub(super) fn check(&self) -> Result<()> {
        self.daemons.iter().try_for_each(Daemon::check)
    }

    /// Writes an administrator's kubeconfig.
    pub(super) fn write_admin_config(&self, file: &Path, server: &str) -> Result<()> {
        Ok(fs::write(
            file,
            self.credentials.kubeconfig(User::Admin, server)?,
        )?)
    }

    /// Writes the kubeconfig of somebody inside the cluster.
    pub(super) fn config_of(&self, user: User, file: &Path) -> Result<()> {
        let server = format!("https://{API_SERVER}");
        Ok(fs::write(
            file,
            self.credentials.kubeconfig(user, &server)?,
        )?)
    }

    fn start_daemons(&mut self) -> Result<()> {
        let etcd = self.command(&Tools::etcd(), self.etcd());
        self.run("etcd", etcd)?;
        let server = self.kubernetes("kube-apiserver", self.api_server());
        self.run("kube-apiserver", server)?;
        self.wait_for_api_server()?;
        let manager = self.kubernetes("kube-controller-manager", self.controller_manager()?);
        self.run("kube-controller-manager", manager)?;
        let scheduler = self.kubernetes("kube-scheduler", self.scheduler()?);
        self.run("kube-scheduler", scheduler)
    }

    fn wait_for_api_server(&self) -> Result<()> {
        let admin = self.place.dir.join("admin");
        self.config_of(User::Admin, &admin)?;
        wait_for("the API server", Duration::from_secs(60), || {
            self.check()?;
            let words = ["get", "--raw", "/readyz"].map(str::to_owned);
            let mut kubectl = self.kubernetes("kubectl", words);
            kubectl.env("KUBECONFIG", &admin);
            let ready = Finished::of("kubectl".to_owned(), &mut kubectl)?;
            Ok((ready.code == 0).then_some(()))
        })
        .with_context(|| format!("see the logs {}", self.logs()))
    }

    fn etcd(&self) -> Vec<String> {
        let data = self.place.dir.join("etcd");
        let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        vec![
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // It does not outlive this machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let mut flags = vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={CONTROL}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--allow-privileged".to_owned(),
            // Nobody has such a certificate; without a CA the others ask again and again.
            "--requestheader-allowed-names=front-proxy".to_owned(),
        ];
        flags.extend(self.files(&[
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("requestheader-client-ca-file", "ca.crt"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("token-auth-file", "tokens.csv"),
        ]));
        flags
    }

    fn controller_manager(&self) -> Result<Vec<String>> {
        let mut flags = self.component(User::ControllerManager, "controller-manager")?;
        flags.extend(self.files(&[
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
        ]));
        Ok(flags)
    }

    fn scheduler(&self) -> Result<Vec<String>> {
        self.component(User::Scheduler, "scheduler")
    }

    /// The flags that both of them have.
    fn component(&self, user: User, name: &str) -> Result<Vec<String>> {
        let config = self.place.dir.join(name);
        self.config_of(user, &config)?;
        let config = config.display();
        Ok(vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ])
    }

    fn files(&self, flags: &[(&str, &str)]) -> Vec<String> {
        flags
            .iter()
            .map(|(flag, name)| format!("--{flag}={}", self.credentials.file(name).display()))
            .collect()
    }

    fn run(&mut self, name: &str, command: Command) -> Result<()> {
        let daemon = Daemon::start(name, &self.log(name), command)?;
        self.daemons.push(daemon);
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.place.log.with_extension(format!("{name}.log"))
    }

    fn kubernetes(&self, name: &str, words: impl IntoIterator<Item = String>) -> Command {
        self.command(&Tools::kubernetes(&self.kubernetes, name), words)
    }

    fn command(&self, program: &Path, words: impl IntoIterator<Item = String>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--pid", "--target"])
            .arg(self.init.to_string())
            .arg("--")
            .arg(program)
            .args(words)
            .current_dir(&self.place.dir)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", &self.place.dir);
        command
    }
}

impl Drop for ControlPlane {
    /// Lets its first process end and remove everything, and waits for it.
    fn drop(&mut self) {
        drop(self.lifeline.take());
        self.unshare.wait().ok();
    }
}
