//! How bytes travel: ranges, budget, retry, progress. One engine for both goods.
//!
//! It owns which range goes next and how many bytes and connections there are at once. It never decides what is
//! fetched, and knows nothing of where bytes end up but a [`Sink`].

mod budget;
mod buffer;
mod counted;
mod engine;
mod error;
mod parallel;
mod schedule;
mod sink;
mod stream;
#[cfg(test)]
mod tests;
mod travel;

pub use engine::{Engine, Limits};
pub use error::FetchError;
pub use schedule::Schedule;
pub use sink::{ALIGNMENT, Sink};
