use std::collections::{BTreeMap, BTreeSet};

use super::Presence;
use crate::types::{Digest, ImageRef};

/// What containerd has of the images that are wanted, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Images {
    /// Whether containerd answered. While it doesn't, all but `problem` is as it last was (empty if it never
    /// answered): the bytes are still on the disk, so nothing is to be dropped for it, but nothing new is warm either.
    pub connected: bool,
    /// Why it isn't connected, or what is wrong with some image, and what to do.
    pub problem: Option<String>,
    /// The wanted images that this is about. Of others, nothing is known yet.
    pub asked: BTreeSet<ImageRef>,
    /// What was found of each wanted image. One that was asked for and isn't here isn't in containerd.
    pub by_ref: BTreeMap<ImageRef, Presence>,
    /// How full the disk that they are on is, in percent, as the kubelet counts it; `None` where that can't be told.
    pub fullness: Option<u8>,
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
