//! What of CRIU's messages `inspect` shows. Numbers and types are those of the
//! `.proto` files in CRIU's `images/`; fields that are not named here are skipped.

use prost::Message;

/// `pstree_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Process {
    #[prost(uint32, tag = "1")]
    pub(super) pid: u32,
    #[prost(uint32, tag = "2")]
    pub(super) ppid: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub(super) threads: Vec<u32>,
}

/// `core_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Core {
    #[prost(message, optional, tag = "3")]
    pub(super) task: Option<Task>,
}

/// `task_core_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Task {
    /// `TASK_ALIVE` 1, `TASK_DEAD` 2, `TASK_STOPPED` 3.
    #[prost(uint32, tag = "1")]
    pub(super) state: u32,
    #[prost(string, tag = "6")]
    pub(super) comm: String,
}

/// `task_kobj_ids_entry`, in `ids-<pid>.img`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ids {
    #[prost(uint32, tag = "2")]
    pub(super) files: u32,
}

/// `pagemap_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pages {
    /// Up to CRIU 4.0, and what a 32 bit number holds since.
    #[prost(uint32, tag = "2")]
    pub(super) short_count: u32,
    /// Since CRIU 4.1.
    #[prost(uint64, optional, tag = "5")]
    pub(super) count: Option<u64>,
}

/// `fdinfo_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(int32, tag = "3")]
    pub(super) kind: i32,
    #[prost(uint32, tag = "4")]
    pub(super) fd: u32,
}

/// `file_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(uint32, tag = "2")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "3")]
    pub(super) regular: Option<Regular>,
    #[prost(message, optional, tag = "4")]
    pub(super) inet: Option<Inet>,
    #[prost(message, optional, tag = "16")]
    pub(super) unix: Option<Unix>,
    #[prost(message, optional, tag = "18")]
    pub(super) pipe: Option<Pipe>,
}

/// `reg_file_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Regular {
    #[prost(string, tag = "6")]
    pub(super) name: String,
}

/// `inet_sk_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Inet {
    #[prost(uint32, tag = "3")]
    pub(super) family: u32,
    #[prost(uint32, tag = "5")]
    pub(super) protocol: u32,
    #[prost(uint32, tag = "6")]
    pub(super) state: u32,
    #[prost(uint32, tag = "7")]
    pub(super) source_port: u32,
    #[prost(uint32, tag = "8")]
    pub(super) target_port: u32,
    /// In network order, as the kernel has them in memory.
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    pub(super) source: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    pub(super) target: Vec<u32>,
}

/// `unix_sk_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Unix {
    #[prost(uint32, tag = "4")]
    pub(super) state: u32,
    /// An abstract name begins with a zero byte.
    #[prost(bytes = "vec", tag = "11")]
    pub(super) name: Vec<u8>,
}

/// `pipe_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pipe {
    #[prost(uint32, tag = "2")]
    pub(super) pipe_id: u32,
}

/// `mnt_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Mount {
    #[prost(string, tag = "6")]
    pub(super) root: String,
    /// Relative to the container's root: `./proc`.
    #[prost(string, tag = "7")]
    pub(super) mountpoint: String,
    #[prost(string, tag = "8")]
    pub(super) source: String,
    #[prost(string, optional, tag = "14")]
    pub(super) fsname: Option<String>,
    #[prost(string, optional, tag = "18")]
    pub(super) external: Option<String>,
}
