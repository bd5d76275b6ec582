//! Where the list comes from and where the status goes.
