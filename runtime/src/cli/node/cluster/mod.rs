//! What the cluster is told of a node: a label by which pods of the RuntimeClass come,
//! and events that say why they do not.
//!
//! ```text
//!  told ──> member   the Node's label and annotation
//!       ──> event    what `kubectl describe node` shows
//!  all of them ──> api
//! ```

pub(super) mod api;
mod event;
mod member;
pub(super) mod told;
