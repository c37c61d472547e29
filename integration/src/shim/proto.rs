//! The part of containerd's bootstrap and task protocols that is spoken here,
//! written by hand: field numbers are those of the `.proto` files.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct BootstrapParams {
    #[prost(string, tag = "1")]
    pub(super) instance_id: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(string, tag = "5")]
    pub(super) containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub(super) containerd_grpc_address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BootstrapResult {
    #[prost(string, tag = "2")]
    pub(super) address: String,
}

/// A mount, as in `CreateTaskRequest.rootfs`.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    /// Its type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its source.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Its options.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateTask {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) bundle: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) rootfs: Vec<Mount>,
}

/// Requests about a container, and about its init as no exec is named.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ById {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Kill {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint32, tag = "3")]
    pub(super) signal: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Connected {
    #[prost(uint32, tag = "1")]
    pub(super) shim_pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Waited {
    #[prost(uint32, tag = "1")]
    pub(super) exit_status: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// A request about one process, with the number that some have in the third place.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Named {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) exec_id: String,
    #[prost(uint32, tag = "3")]
    pub(super) third: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AddExec {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) exec_id: String,
    #[prost(message, optional, tag = "7")]
    pub(super) spec: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateTask {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resources: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckpointTask {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) path: String,
    #[prost(message, optional, tag = "3")]
    pub(super) options: Option<Any>,
}
