//! The agent as a whole: a list in, images and weights warm, and a status that says so.

mod containerd;
mod gate;
mod list;
mod metrics;
mod once;
mod pressure;
mod start;
mod stop;
