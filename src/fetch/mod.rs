//! How bytes travel: ranges, budget, retry, progress. One engine for both goods.
//!
//! It owns which range goes next and how many bytes and connections there are at once. It never decides what is
//! fetched, and knows nothing of where bytes end up but a [`Sink`].

mod engine;
mod error;
mod sink;

pub use engine::{Engine, Limits};
pub use error::FetchError;
pub use sink::{ALIGNMENT, Sink};
