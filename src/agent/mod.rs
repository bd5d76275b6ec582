//! The only loop that decides.
