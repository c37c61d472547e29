//! containerd's transfer service: it pushes an image to a registry, and says how far
//! it has come.
//!
//! Beside the call there are streams: on one containerd tells its progress, on the other
//! it asks for a login when a registry wants one. So a password is in no argument of a
//! process and in no file of containerd's.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use containerd_client::services::v1::streaming_client::StreamingClient;
use containerd_client::services::v1::transfer_client::TransferClient;
use containerd_client::services::v1::{StreamInit, TransferOptions, TransferRequest};
use containerd_client::to_any;
use containerd_client::tonic::codegen::tokio_stream::Stream;
use containerd_client::tonic::{Status, Streaming};
use containerd_client::types::transfer::{
    AuthResponse, AuthType, ImageStore, OciRegistry, Progress, RegistryResolver,
};
use prost_types::Any;
use reprise_runtime::Result;
use reprise_runtime::maker::Maker;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::client::{Client, LONG};
use super::meter::Meter;

/// Where an image is pushed to.
#[derive(Debug)]
pub(crate) struct Registry<'a> {
    /// The image's name there, registry included.
    pub(crate) reference: &'a str,
    /// Without TLS.
    pub(crate) plain_http: bool,
    /// Directory with containerd's `hosts.toml` files.
    pub(crate) hosts_dir: Option<&'a Path>,
    /// Who one is there.
    pub(crate) login: Option<Login>,
}

/// A user of a registry.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:(hidden)", self.user)
    }
}

/// Both ends of a stream that containerd knows by an id.
struct Line {
    id: String,
    said: Streaming<Any>,
    say: UnboundedSender<Any>,
}

/// What is said on a line, as the stream that a call takes.
struct Words(UnboundedReceiver<Any>);

impl Stream for Words {
    type Item = Any;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Any>> {
        self.0.poll_recv(context)
    }
}

impl Client {
    /// Pushes an image, all that it refers to included.
    ///
    /// # Errors
    /// containerd's and the registry's.
    pub(crate) fn push(&self, image: &str, to: &Registry<'_>, meter: &Meter) -> Result<()> {
        let doing = format!("Cannot push {image} to {}", to.reference);
        self.wait(LONG, &doing, async {
            let mut progress = self.line("progress").await?;
            let mut logins = match &to.login {
                Some(_) => Some(self.line("login").await?),
                None => None,
            };
            let source = ImageStore {
                name: image.to_owned(),
                ..ImageStore::default()
            };
            let resolver = RegistryResolver {
                auth_stream: logins.as_ref().map(|l| l.id.clone()).unwrap_or_default(),
                host_dir: to.hosts_dir.map(shown).unwrap_or_default(),
                default_scheme: if to.plain_http { "http" } else { "" }.to_owned(),
                ..RegistryResolver::default()
            };
            let request = self.request(TransferRequest {
                source: Some(to_any(&source)),
                destination: Some(to_any(&OciRegistry {
                    reference: to.reference.to_owned(),
                    resolver: Some(resolver),
                })),
                options: Some(TransferOptions {
                    progress_stream: progress.id.clone(),
                }),
            });
            let mut client = TransferClient::new(self.channel.clone());
            let mut pushed = pin!(client.transfer(request));
            let mut tally = Tally::default();
            loop {
                tokio::select! {
                    done = &mut pushed => return done.map(drop),
                    event = progress.hear() => tally.count(event, meter),
                    _asked = hear(logins.as_mut()) => {
                        if let (Some(line), Some(login)) = (&logins, &to.login) {
                            line.say.send(answer(login)).ok();
                        }
                    }
                }
            }
        })
    }

    /// Opens a stream.
    async fn line(&self, what: &str) -> std::result::Result<Line, Status> {
        let id = format!("reprise-{what}-{}", Maker::me());
        let (say, words) = unbounded_channel();
        say.send(to_any(&StreamInit { id: id.clone() })).ok();
        let mut client = StreamingClient::new(self.channel.clone());
        let answer = client.stream(self.request(Words(words))).await?;
        let mut said = answer.into_inner();
        // Its first word is that it knows the id.
        said.message().await?;
        Ok(Line { id, said, say })
    }
}

impl Line {
    /// The next word; waits for ever once there are no more.
    async fn hear(&mut self) -> Any {
        match self.said.message().await {
            Ok(Some(word)) => word,
            _ => std::future::pending().await,
        }
    }
}

async fn hear(line: Option<&mut Line>) -> Any {
    match line {
        Some(line) => line.hear().await,
        None => std::future::pending().await,
    }
}

fn answer(login: &Login) -> Any {
    to_any(&AuthResponse {
        auth_type: AuthType::Credentials.into(),
        username: login.user.clone(),
        secret: login.password.clone(),
        ..AuthResponse::default()
    })
}

/// How far each blob has come.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, (u64, u64)>);

impl Tally {
    fn count(&mut self, mut event: Any, meter: &Meter) {
        // Go's names of types have no slash before them.
        event.type_url.insert(0, '/');
        let Ok(event) = event.to_msg::<Progress>() else {
            return;
        };
        if event.total <= 0 {
            return;
        }
        let bytes = |n: i64| u64::try_from(n).unwrap_or_default();
        self.0
            .insert(event.name, (bytes(event.progress), bytes(event.total)));
        let sum = |of: fn(&(u64, u64)) -> u64| self.0.values().map(of).sum();
        meter.set(sum(|(done, _)| *done), sum(|(_, total)| *total));
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_sum_of_all_blobs() {
        let event = |name: &str, progress, total| {
            to_any(&Progress {
                event: "uploading".to_owned(),
                name: name.to_owned(),
                progress,
                total,
                ..Progress::default()
            })
        };
        let (mut tally, meter) = (Tally::default(), Meter::default());
        tally.count(event("a", 5, 10), &meter);
        tally.count(event("b", 0, 90), &meter);
        tally.count(event("a", 10, 10), &meter);
        tally.count(event("c", 0, 0), &meter);
        tally.count(Any::default(), &meter);
        assert_eq!(meter.read(), (10, Some(100)));
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Login {
            user: "ci".to_owned(),
            password: "secret".to_owned(),
        };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
