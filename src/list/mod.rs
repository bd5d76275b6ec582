//! The prediction list: what it may say, and what is made of a document that says it badly.
//!
//! Pure: text in, [`List`] out. Where the text comes from is `cluster/`'s business.

mod entry;
mod listed;

pub use entry::{Entry, Goods, ImageGoods, NodeSelector, WeightsGoods};
pub use listed::{List, Listed};
