//! containerd's leases: what one holds is not collected as garbage.

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{CreateRequest, DeleteRequest, ListRequest};
use reprise_runtime::Result;

use super::client::{optional, to_map};
use super::{Client, Labels};

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Its id.
    pub(crate) id: String,
    /// Its labels.
    pub(crate) labels: Labels,
}

impl Client {
    fn leases(&self) -> LeasesClient<containerd_client::tonic::transport::Channel> {
        LeasesClient::new(self.channel.clone())
    }

    /// Takes a lease.
    pub(crate) fn create_lease(&self, id: &str, labels: &Labels) -> Result<()> {
        let request = self.request(CreateRequest {
            id: id.to_owned(),
            labels: to_map(labels),
        });
        let mut client = self.leases();
        self.call("Cannot take a lease", client.create(request))
            .map(drop)
    }

    /// Gives a lease back; none there is no error. With `sync` what it alone kept is
    /// gone when this returns.
    pub(crate) fn remove_lease(&self, id: &str, sync: bool) -> Result<()> {
        let request = self.request(DeleteRequest {
            id: id.to_owned(),
            sync,
        });
        let mut client = self.leases();
        let removed = self.call(
            format_args!("Cannot give lease {id} back"),
            client.delete(request),
        );
        optional(removed).map(drop)
    }

    /// Leases that fit one of containerd's filters; all without any.
    pub(crate) fn list_leases(&self, filters: &[String]) -> Result<Vec<Lease>> {
        let request = self.request(ListRequest {
            filters: filters.to_vec(),
        });
        let mut client = self.leases();
        let answer = self.call("Cannot list leases", client.list(request))?;
        let leases = answer.leases.into_iter().map(|lease| Lease {
            id: lease.id,
            labels: lease.labels.into_iter().collect(),
        });
        Ok(leases.collect())
    }
}
