use std::collections::BTreeMap;

use super::Presence;
use crate::types::{Digest, ImageRef};

/// What containerd has of the images that are wanted, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Images {
    /// Whether containerd answered. While it doesn't, `by_ref` and `our_pins` are as they last were (empty if it never
    /// answered): the bytes are still on the disk, so nothing is to be dropped for it, but nothing new is warm either.
    pub connected: bool,
    /// Why it isn't connected, or what is wrong with some image, and what to do.
    pub problem: Option<String>,
    /// What was found of each wanted image. One that isn't here isn't in containerd.
    pub by_ref: BTreeMap<ImageRef, Presence>,
    /// All records that carry our mark, wanted or not, by name.
    pub our_pins: Vec<Pin>,
}

/// A record that carries our mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The record's name.
    pub name: String,
    /// What it points at.
    pub target: Digest,
}
