//! The gRPC socket and the HTTP endpoints.
