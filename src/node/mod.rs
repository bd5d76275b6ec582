//! What the node says of itself. Pure: a [`Report`] in, labels, annotations and conditions out.
//!
//! Presence means warm: no label ever says "false" or "updating", so that a label can't attract a pod wrongly.

mod affinity;
mod condition;
mod label;
mod report;
mod status_annotation;

pub use affinity::affinity;
pub use condition::{Condition, conditions};
pub use label::{Applied, READY_LABEL, goods_label, goods_of_label, labels};
pub use report::{EntryReport, EntryState, GoodsKind, ListReport, ReadyBy, Reason, Report};
pub use status_annotation::{BOOT_ID_ANNOTATION, STATUS_ANNOTATION, status_annotation};
