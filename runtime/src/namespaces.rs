//! Whose a container's namespaces are, as its spec says: pure.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

/// Whose a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace<'a> {
    /// The container's own, made for it.
    Own,
    /// Another container's, by its path.
    Joined(&'a Path),
    /// The node's.
    Host,
}

/// Whose namespace of this type a container has. An empty path is none, as the
/// OCI spec has it.
#[must_use]
pub fn of(spec: &Spec, typ: LinuxNamespaceType) -> Namespace<'_> {
    let linux = spec.linux().as_ref();
    let listed = linux
        .and_then(|linux| linux.namespaces().as_ref())
        .and_then(|all| all.iter().find(|one| one.typ() == typ));
    let Some(namespace) = listed else {
        return Namespace::Host;
    };
    match namespace.path().as_deref() {
        Some(path) if !path.as_os_str().is_empty() => Namespace::Joined(path),
        _ => Namespace::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_path_is_none() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.1.0", "linux": {"namespaces": [
                {"type": "pid"}, {"type": "ipc", "path": ""}, {"type": "network", "path": "/n"}]}}"#,
        )
        .unwrap();
        let whose = |typ| of(&spec, typ);
        assert_eq!(whose(LinuxNamespaceType::Pid), Namespace::Own);
        assert_eq!(whose(LinuxNamespaceType::Ipc), Namespace::Own);
        let joined = Namespace::Joined(Path::new("/n"));
        assert_eq!(whose(LinuxNamespaceType::Network), joined);
        assert_eq!(whose(LinuxNamespaceType::User), Namespace::Host);
    }
}
