//! `reprise seal` and `reprise push`: a checkpoint image on its way to other nodes.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::json;

use super::{Places, image_of, progress, show};
use crate::images::seal::seal;
use crate::images::transfer::{Login, Registry};

/// Where containerd's documentation has its `hosts.toml` files.
const HOSTS_DIR: &str = "/etc/containerd/certs.d";

#[derive(Debug, Args)]
pub(super) struct Seal {
    /// Checkpoint id, a prefix that only one has, or an image's name
    image: String,
    /// containerd's namespace, for an image's name
    #[arg(long, short, default_value = "k8s.io")]
    namespace: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Seal {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let (client, image) = image_of(places, &self.image, &self.namespace)?;
        let digest = progress::shown("Sealing", |meter| seal(&client, &image, meter))?;
        Ok(match self.json {
            true => show::json(vec![json!({ "image": image, "digest": digest })]),
            false => format!("{image}@{digest}\n"),
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Push {
    /// Checkpoint id, a prefix that only one has, or an image's name
    image: String,
    /// Its name in the registry [default: the image's own name]
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// containerd's namespace, for an image's name
    #[arg(long, short, default_value = "k8s.io")]
    namespace: String,
    /// Speak HTTP without TLS; containerd does so with a registry on localhost anyway
    #[arg(long)]
    plain_http: bool,
    /// The registry's user; the password follows a colon or comes by --password-stdin
    #[arg(long, short, value_name = "USER[:PASSWORD]")]
    user: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// containerd's hosts.toml files of registries
    /// [default: /etc/containerd/certs.d, if it is there]
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Push {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let login = self.login()?;
        let (client, image) = image_of(places, &self.image, &self.namespace)?;
        let reference = self.reference.as_ref().unwrap_or(&image);
        if !has_registry(reference) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{reference} names no registry; say where it goes: `reprise push {} \
                     registry.example.com/checkpoints/NAME:TAG`",
                    self.image
                ),
            ));
        }
        let default = PathBuf::from(HOSTS_DIR);
        let hosts_dir = match &self.hosts_dir {
            Some(dir) => Some(dir),
            None => default.is_dir().then_some(&default),
        };
        let registry = Registry {
            reference,
            plain_http: self.plain_http,
            hosts_dir: hosts_dir.map(PathBuf::as_path),
            login,
        };
        let digest = progress::shown("Sealing", |meter| seal(&client, &image, meter))?;
        progress::shown("Pushing", |meter| client.push(&image, &registry, meter))?;
        Ok(match self.json {
            true => show::json(vec![json!({
                "image": image,
                "pushed": reference,
                "digest": digest,
            })]),
            false => format!("{reference}@{digest}\n"),
        })
    }

    fn login(&self) -> Result<Option<Login>> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        if self.password_stdin {
            let mut password = String::new();
            std::io::stdin()
                .read_to_string(&mut password)
                .doing("Cannot read the password")?;
            return Ok(Some(Login {
                user: user.clone(),
                password: password.trim_end_matches(['\r', '\n']).to_owned(),
            }));
        }
        match user.split_once(':') {
            Some((user, password)) => Ok(Some(Login {
                user: user.to_owned(),
                password: password.to_owned(),
            })),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("User {user} has no password; add --password-stdin"),
            )),
        }
    }
}

/// Whether a name begins with a host that can be asked: with a dot or a port, or
/// `localhost`, as everybody tells it from a path. Ours for images that nobody named is
/// none.
fn has_registry(reference: &str) -> bool {
    let host = reference.split_once('/').map(|(host, _)| host);
    host.is_some_and(|host| {
        host != "reprise.local" && (host.contains(['.', ':']) || host == "localhost")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_asked_is_a_registry() {
        for good in ["localhost/a:1", "127.0.0.1:5000/a", "example.com/b/c:2"] {
            assert!(has_registry(good), "{good}");
        }
        for bad in ["reprise.local/default/web:a-1", "a/b:1", "abc", ""] {
            assert!(!has_registry(bad), "{bad}");
        }
    }
}
