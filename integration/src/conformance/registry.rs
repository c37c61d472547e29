//! The registry on each node that the suites pull their images from.
//!
//! The suites ask for images under public names. On the node these names mean
//! the loopback, where Debian's docker-registry serves what
//! `hack/images/suites` made, with a certificate that the node trusts.

use crate::node::Node;
use crate::registry;
use crate::tools::Tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Whose names lead to the loopback.
const HOSTS: [&str; 4] = ["registry.k8s.io", "ghcr.io", "gcr.io", "k8s.gcr.io"];
/// An image that the client suite wants by its digest.
const BY_DIGEST: &str = "containerd/busybox:1.36";

/// What all registries of a run have in common.
#[derive(Debug)]
pub(super) struct Registry {
    dir: PathBuf,
    images: PathBuf,
}

impl Registry {
    /// Makes a certificate, the configuration and the list of images.
    pub(super) fn prepare(out: &Path) -> Result<Self> {
        let images = Tools::suites().join("images");
        if !images.join("storage").exists() {
            bail!(
                "{} is missing: run `hack/setup conformance` first",
                images.display()
            );
        }
        let dir = out.join("registry");
        fs::create_dir_all(&dir)?;
        let registry = Self { dir, images };
        registry.make_certificate()?;
        fs::write(registry.dir.join("config.yml"), registry.config())?;
        fs::write(registry.image_list(), registry.images_by_digest()?)?;
        Ok(registry)
    }

    /// What makes programs on the node trust it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let certificate = self.dir.join("cert.pem").display().to_string();
        vec![("SSL_CERT_FILE".to_owned(), certificate)]
    }

    /// The file for the containerd suites' `-image-list`.
    pub(super) fn image_list(&self) -> PathBuf {
        self.dir.join("images.toml")
    }

    /// Starts it on a node, and leads the public names to it.
    pub(super) fn serve(&self, node: &Node) -> Result<Child> {
        let mut hosts = File::options().append(true).open(node.path("/etc/hosts"))?;
        writeln!(hosts, "\n127.0.0.1 {}", HOSTS.join(" "))?;
        let program = Tools::suites().join("docker-registry");
        let config = self.dir.join("config.yml");
        registry::start(node, &program, &config, "127.0.0.1:443")
    }

    fn make_certificate(&self) -> Result<()> {
        let names: Vec<String> = HOSTS.iter().map(|host| format!("DNS:{host}")).collect();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args([
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=conformance",
                "-addext",
            ])
            .arg(format!("subjectAltName={}", names.join(",")))
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&self.dir)
            .output()
            .context("starting openssl")?;
        if !made.status.success() {
            bail!("no certificate: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(())
    }

    fn config(&self) -> String {
        let (dir, images) = (self.dir.display(), self.images.display());
        format!(
            "version: 0.1\n\
             log: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage:\n  \
               filesystem: {{rootdirectory: \"{images}/storage\"}}\n  \
               maintenance: {{readonly: {{enabled: true}}, uploadpurging: {{enabled: false}}}}\n\
             http:\n  \
               addr: 127.0.0.1:443\n  \
               tls: {{certificate: \"{dir}/cert.pem\", key: \"{dir}/key.pem\"}}\n"
        )
    }

    fn images_by_digest(&self) -> Result<String> {
        let digests = fs::read_to_string(self.images.join("digests.json"))?;
        let digests: BTreeMap<String, String> = serde_json::from_str(&digests)?;
        let digest = digests.get(BY_DIGEST).context("no digest of busybox")?;
        Ok(format!(
            "busyboxbydigest = \"ghcr.io/containerd/busybox@{digest}\"\n"
        ))
    }
}
