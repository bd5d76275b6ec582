//! The containerd that is already on the node, over its socket. Nobody else imports its client crates.
