//! What containerd says of itself: namespaces, version, plugins.

use std::path::PathBuf;

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{ListNamespacesRequest, PluginsRequest};
use reprise_runtime::Result;

use super::Client;

impl Client {
    /// Names of all namespaces.
    pub(crate) fn namespaces(&self) -> Result<Vec<String>> {
        let request = self.request(ListNamespacesRequest::default());
        let mut client = NamespacesClient::new(self.channel.clone());
        let answer = self.call("Cannot list namespaces", client.list(request))?;
        Ok(answer.namespaces.into_iter().map(|n| n.name).collect())
    }

    /// containerd's version, as it says it (`v2.3.7`).
    pub(crate) fn version(&self) -> Result<String> {
        let request = self.request(());
        let mut client = VersionClient::new(self.channel.clone());
        let answer = self.call("Cannot tell containerd's version", client.version(request))?;
        Ok(answer.version)
    }

    /// The directory of a plugin (`io.containerd.snapshotter.v1`, `overlayfs`), if
    /// it is there and says so.
    pub(crate) fn plugin_root(&self, typ: &str, id: &str) -> Result<Option<PathBuf>> {
        let request = self.request(PluginsRequest {
            filters: vec![format!("type=={typ},id=={id}")],
        });
        let mut client = IntrospectionClient::new(self.channel.clone());
        let answer = self.call("Cannot list containerd's plugins", client.plugins(request))?;
        let mut plugins = answer.plugins.into_iter();
        Ok(plugins.find_map(|plugin| plugin.exports.get("root").map(PathBuf::from)))
    }
}
