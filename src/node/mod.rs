//! What the node says of itself. Pure: a [`Report`] in, labels, annotations, conditions and taints out.

mod report;

pub use report::{EntryReport, EntryState, GoodsKind, ListReport, Reason, Report};
