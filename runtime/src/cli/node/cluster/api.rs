//! The API server of the cluster in which this pod is, as far as `reprise node` needs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Where every pod finds its token and its cluster's CA, if it is given them.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// For each request. An API server that is well answers in milliseconds, and whoever asks
/// is tried again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How the body of a PATCH is meant (RFC 7386, and Kubernetes' own, which merges lists
/// by name).
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Merge {
    Plain,
    Strategic,
}

/// A connection, by this pod's own ServiceAccount. It is not `Debug`: that would show the
/// token.
pub(in super::super) struct Api {
    agent: Agent,
    server: String,
    authorization: String,
}

impl Api {
    /// The API server, as the kubelet tells pods of it.
    ///
    /// # Errors
    /// This is no pod, or it has no token.
    pub(in super::super) fn of_this_pod() -> Result<Self> {
        let variable =
            |name| std::env::var(name).doing(format!("${name} is missing, which every pod has"));
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let file = |name| {
            let path = Path::new(ACCOUNT).join(name);
            std::fs::read_to_string(&path).doing(format!(
                "Cannot read {}, so this pod has no ServiceAccount's token; mount it",
                path.display()
            ))
        };
        Ok(Self {
            agent: agent(&file("ca.crt")?)?,
            server: server(&host, &port),
            authorization: format!("Bearer {}", file("token")?.trim()),
        })
    }

    /// # Errors
    /// It refuses, or does not answer.
    pub(in super::super) fn get(&self, path: &str) -> Result<Value> {
        self.ask(&Method::GET, path, None)
    }

    /// # Errors
    /// It refuses, or does not answer; [`ErrorKind::AlreadyExists`] if it has one.
    pub(in super::super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask(&Method::POST, path, Some(("application/json", body)))
    }

    /// Returns what is there then.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub(in super::super) fn patch(&self, path: &str, merge: Merge, body: &Value) -> Result<Value> {
        let kind = match merge {
            Merge::Plain => "application/merge-patch+json",
            Merge::Strategic => "application/strategic-merge-patch+json",
        };
        self.ask(&Method::PATCH, path, Some((kind, body)))
    }

    fn ask(&self, method: &Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        let url = format!("{}{path}", self.server);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", &self.authorization)
            .header("Accept", "application/json");
        let wrong = || format!("Cannot ask {url}");
        let silent = |e: &ureq::Error| {
            Error::because(
                format!("The API server ({}) does not answer", self.server),
                e,
            )
            .with_kind(ErrorKind::Unavailable)
        };
        let answer = match body {
            None => self.agent.run(request.body(()).doing(wrong())?),
            Some((kind, body)) => {
                let request = request.header("Content-Type", kind).body(body.to_string());
                self.agent.run(request.doing(wrong())?)
            }
        };
        let mut answer = answer.map_err(|e| silent(&e))?;
        let code = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(|e| silent(&e))?;
        if (200..300).contains(&code) {
            return serde_json::from_str(&text).doing(format!(
                "Cannot understand the API server's answer to {method} {path}"
            ));
        }
        Err(refused(&format!("{method} {path}"), code, &text))
    }
}

/// Only the cluster's own CA counts, and no proxy: the API server is the pod's neighbour.
fn agent(ca: &str) -> Result<Agent> {
    let mut roots = Vec::new();
    for item in parse_pem(ca.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.doing("Cannot understand ca.crt")? {
            roots.push(certificate);
        }
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("reprise/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Ok(config.into())
}

fn server(host: &str, port: &str) -> String {
    if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    }
}

/// What it says when it does not do something is in the answer's `message`.
fn refused(what: &str, code: u16, text: &str) -> Error {
    let status: Value = serde_json::from_str(text).unwrap_or_default();
    let words = status["message"].as_str().unwrap_or_else(|| text.trim());
    let kind = match code {
        404 => ErrorKind::NotFound,
        409 => ErrorKind::AlreadyExists,
        401 | 403 | 422 => ErrorKind::FailedPrecondition,
        429 | 500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let message = format!("The API server refuses {what} ({code}): {words}");
    Error::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_where_the_kubelet_says() {
        assert_eq!(server("10.96.0.1", "443"), "https://10.96.0.1:443");
        assert_eq!(server("fd00::1", "443"), "https://[fd00::1]:443");
    }

    #[test]
    fn a_refusal_has_the_servers_words() {
        let forbidden = r#"{"kind":"Status","message":"nodes \"a\" is forbidden"}"#;
        let error = refused("PATCH /api/v1/nodes/a", 403, forbidden);
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert!(
            error.message.ends_with("(403): nodes \"a\" is forbidden"),
            "{error}"
        );
        let error = refused("GET /", 502, " no upstream\n");
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.ends_with("(502): no upstream"), "{error}");
        assert_eq!(refused("POST /", 409, "").kind, ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n";
        let error = agent(broken).unwrap_err();
        assert!(error.message.contains("ca.crt"), "{error}");
    }
}
