//! How bytes travel: ranges, budget, retry, progress. One engine for both goods.
//!
//! It owns which range goes next and how many bytes and connections there are at once. It never decides what is
//! fetched, and knows nothing of where bytes end up but a [`Sink`], or a channel that takes [`Piece`]s in order.

mod bandwidth;
mod bodies;
mod budget;
mod buffer;
mod climb;
#[cfg(test)]
mod climb_tests;
mod counted;
mod cut;
mod engine;
mod error;
mod frontier;
mod handed;
mod kept;
mod late;
#[cfg(test)]
mod ordered_tests;
mod origin;
mod outlet;
#[cfg(test)]
mod paced_tests;
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
mod urgency;
mod whole;

pub use bandwidth::Bandwidth;
pub use engine::{Engine, Limits};
pub use error::FetchError;
pub use kept::Kept;
pub use piece::Piece;
pub use schedule::Schedule;
pub use sink::{ALIGNMENT, Sink};
pub use urgency::Urgency;
pub use whole::Whole;
