//! As whom to ask a registry for an image: mounted Secrets, and the kubelet's credential providers, by the kubelet's own
//! rules, so that what the kubelet can pull we can.
//!
//! It never keeps a secret longer than its source allows, and never shows one.

mod keyring;

pub(super) use keyring::Keyring;
