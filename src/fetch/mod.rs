//! How bytes travel: ranges, budget, retry, progress. One engine for both goods.
//!
//! It owns which range goes next and how many bytes and connections there are at once. It never decides what is
//! fetched, and knows nothing of where bytes end up but a [`Sink`], or a channel that takes [`Piece`]s in order.

mod budget;
mod buffer;
mod counted;
mod cut;
mod engine;
mod error;
mod frontier;
mod handed;
mod kept;
#[cfg(test)]
mod ordered_tests;
mod outlet;
mod parallel;
mod piece;
#[cfg(test)]
mod resume_tests;
mod schedule;
mod sink;
mod stored;
mod stream;
#[cfg(test)]
mod tests;
mod travel;

pub use engine::{Engine, Limits};
pub use error::FetchError;
pub use kept::Kept;
pub use piece::Piece;
pub use schedule::Schedule;
pub use sink::{ALIGNMENT, Sink};
