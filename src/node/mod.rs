//! What the node says of itself. Pure: a [`Report`] in, labels, annotations and conditions out.
//!
//! Presence means warm: no label ever says "false" or "updating", so that a label can't attract a pod wrongly.

mod affinity;
mod condition;
mod cut;
mod desired;
mod difference;
mod event;
mod label;
mod ledger;
mod on_node;
mod pace;
mod report;
mod status_annotation;

pub use affinity::affinity;
pub use condition::{Condition, conditions};
pub use desired::Desired;
pub use difference::{Difference, Strays, difference, urgency};
pub use event::{EventBook, NodeEvent};
pub use label::{Applied, READY_LABEL, goods_label, goods_of_label, labels};
pub use ledger::{LANDS_WITHIN, Ledger};
pub use on_node::{OnNode, StandingCondition, is_our_annotation, is_our_label};
pub use pace::{Pace, Urgency};
pub use report::{EntryReport, EntryState, GoodsKind, ListReport, ReadyBy, Reason, Report};
pub use status_annotation::{BOOT_ID_ANNOTATION, STATUS_ANNOTATION, status_annotation};
