//! What a registry's documents mean: indexes, manifests and configurations, of the OCI's and Docker's kinds. Pure.
//!
//! Bytes in, meaning out: nothing here fetches or checks a digest.
