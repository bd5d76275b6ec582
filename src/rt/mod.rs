//! What every long-running part needs and none of them owns: retries, stopping, logs, metrics.

mod chain;
mod host_path;
mod liveness;
pub mod metrics;
mod retry;
mod shutdown;
mod telemetry;
mod uptime;

pub use chain::chain;
pub use host_path::host_path;
pub use liveness::Liveness;
pub use metrics::{MetricKind, Metrics};
pub use retry::{Attempts, LONGEST_RETRY_AFTER, RetryPolicy};
pub use shutdown::Shutdown;
pub use telemetry::{LogFormat, init_logs};
pub use uptime::uptime;
