//! Who is who in a cluster: its certificates, by `openssl`, and its users' tokens.

use super::network::{API_SERVICE, CONTROL};
use crate::node::Finished;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cluster's secrets, in a directory.
#[derive(Debug)]
pub(super) struct Credentials {
    dir: PathBuf,
}

/// Whoever has a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum User {
    Admin,
    /// With the rights of all of its controllers: giving each its own service account
    /// takes seconds at the start.
    ControllerManager,
    Scheduler,
    Proxy,
    /// A node's kubelet.
    Kubelet(usize),
}

impl User {
    fn all(nodes: usize) -> impl Iterator<Item = Self> {
        let components = [
            Self::Admin,
            Self::ControllerManager,
            Self::Scheduler,
            Self::Proxy,
        ];
        components.into_iter().chain((1..=nodes).map(Self::Kubelet))
    }

    fn name(self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::ControllerManager => "system:kube-controller-manager".to_owned(),
            Self::Scheduler => "system:kube-scheduler".to_owned(),
            Self::Proxy => "system:kube-proxy".to_owned(),
            Self::Kubelet(number) => format!("system:node:node-{number}"),
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Admin | Self::ControllerManager => "system:masters",
            Self::Scheduler | Self::Proxy => "system:authenticated",
            Self::Kubelet(_) => "system:nodes",
        }
    }

    fn file(self) -> String {
        format!("{}.token", self.name().replace(':', "-"))
    }
}

impl Credentials {
    /// Makes all of a cluster with so many nodes.
    pub(super) fn make(dir: PathBuf, nodes: usize) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        let made = Self { dir };
        made.certificate(
            "ca",
            "/CN=cluster",
            &["-addext", "keyUsage=critical,keyCertSign"],
        )?;
        let names = format!(
            "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
             DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
             IP:127.0.0.1,IP:{CONTROL},IP:{API_SERVICE}"
        );
        // What openssl makes is a CA unless it is told otherwise, and a client that is
        // stricter than Go's takes no CA for a server.
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        let signed = [&["-CA", "ca.crt", "-CAkey", "ca.key"], &leaf[..]].concat();
        let server = ["-addext", &names];
        made.certificate(
            "apiserver",
            "/CN=kube-apiserver",
            &[&signed[..], &server].concat(),
        )?;
        let subject = "/O=system:masters/CN=kube-apiserver-kubelet-client";
        made.certificate("kubelet-client", subject, &signed)?;
        made.service_account_keys()?;
        let mut tokens = String::new();
        for user in User::all(nodes) {
            let (token, name) = (new_token()?, user.name());
            tokens.push_str(&format!("{token},{name},{name},{}\n", user.group()));
            fs::write(made.dir.join(user.file()), token)?;
        }
        fs::write(made.file("tokens.csv"), tokens)?;
        Ok(made)
    }

    /// `ca.crt`, `apiserver.{crt,key}`, `kubelet-client.{crt,key}`, `sa.{pub,key}`,
    /// `tokens.csv`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A kubeconfig by which a user reaches the API server at a URL.
    pub(super) fn kubeconfig(&self, user: User, server: &str) -> Result<String> {
        let (ca, token) = (self.file("ca.crt"), self.dir.join(user.file()));
        let token = fs::read_to_string(token).with_context(|| user.name())?;
        Ok(format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters: [{{name: reprise, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: user, user: {{token: {token}}}}}]\n\
             contexts: [{{name: reprise, context: {{cluster: reprise, user: user}}}}]\n\
             current-context: reprise\n",
            ca.display()
        ))
    }

    fn certificate(&self, name: &str, subject: &str, more: &[&str]) -> Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let mut words = vec!["req", "-x509", "-nodes", "-days", "365", "-subj", subject];
        words.extend(curve);
        words.extend(["-keyout", &key, "-out", &certificate]);
        words.extend(more);
        self.openssl(&words)
    }

    fn service_account_keys(&self) -> Result<()> {
        self.openssl(&["genpkey", "-algorithm", "RSA", "-out", "sa.key"])?;
        self.openssl(&["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"])
    }

    fn openssl(&self, words: &[&str]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(words).current_dir(&self.dir);
        Finished::of(format!("openssl {}", words.join(" ")), &mut openssl)?.ok()?;
        Ok(())
    }
}

fn new_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open(Path::new("/dev/urandom"))?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
