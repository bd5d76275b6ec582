//! The gRPC service `stoker.v1.Stoker` and the standard health service, on a unix socket.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::connection::unix_connections;
use super::proto::stoker_server::{Stoker, StokerServer};
use super::proto::{StatusRequest, StatusResponse};
use super::{FAREWELL, Labels, ServeError, convert};
use crate::node::Report;

/// How often a watcher hears of bytes that move. They are no change of the report.
const TICK: Duration = Duration::from_secs(1);
/// Requests have no content to speak of.
const LARGEST_REQUEST: usize = 4 << 10;
/// Of one connection.
const STREAMS: u32 = 16;
/// A peer that is stopped or wedged answers no ping and is cut off.
const PING: Duration = Duration::from_secs(30);

/// The services' names for health checks: the whole server and the one service.
const HEALTH_NAMES: [&str; 2] = ["", "stoker.v1.Stoker"];

/// Serves until `stop`, and a moment longer for clients to hang up.
///
/// # Errors
/// When the transport fails; never because of a client.
pub async fn serve(
    listener: UnixListener,
    reports: watch::Receiver<Arc<Report>>,
    labels: Labels,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = health_reporter();
    set_health(&health, ServingStatus::NotServing).await;
    let door = Door { reports: reports.clone(), labels, stop: stop.clone() };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .add_service(StokerServer::new(door).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(health_service)
        .serve_with_incoming_shutdown(unix_connections(listener), stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => served.map_err(ServeError::Grpc),
        () = tell_health(health, reports, &stop) => Ok(()),
        () = overdue => Ok(()),
    }
}

/// SERVING once the report is settled; forgotten at the stop, which ends the streams of those who watch it. Never
/// returns.
async fn tell_health(
    health: HealthReporter,
    mut reports: watch::Receiver<Arc<Report>>,
    stop: &CancellationToken,
) {
    let settled = async {
        // The guard isn't kept: it would hold up the agent, and it can't change threads.
        reports.wait_for(|report| report.settled).await.is_ok()
    };
    tokio::select! {
        settled = settled => if settled {
            set_health(&health, ServingStatus::Serving).await;
        },
        () = stop.cancelled() => {}
    }
    stop.cancelled().await;
    for name in HEALTH_NAMES {
        let mut health = health.clone();
        health.clear_service_status(name).await;
    }
    pending().await
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

struct Door {
    reports: watch::Receiver<Arc<Report>>,
    labels: Labels,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl Stoker for Door {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let report = self.reports.borrow().clone();
        Ok(Response::new(convert::status(&report, (self.labels)(&report))))
    }

    type WatchStatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn watch_status(
        &self,
        _: Request<StatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (labels, stop) = (self.labels.clone(), self.stop.clone());
        let states = watch_reports(self.reports.clone(), stop)
            .map(move |report| Ok(convert::status(&report, labels(&report))));
        Ok(Response::new(states.boxed()))
    }
}

/// The report now, at each change, and at each tick while a job is under way. Nothing is queued: an item is made
/// when the client has room for it, so a slow one misses states and holds no memory.
fn watch_reports(
    mut reports: watch::Receiver<Arc<Report>>,
    stop: CancellationToken,
) -> BoxStream<'static, Arc<Report>> {
    reports.mark_changed();
    futures::stream::unfold((reports, stop), |(mut reports, stop)| async {
        let moving = reports.borrow().entries.iter().any(|entry| entry.progress.is_some());
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            changed = reports.changed() => changed.ok()?,
            () = tokio::time::sleep(TICK), if moving => {}
        }
        let report = reports.borrow_and_update().clone();
        Some((report, (reports, stop)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use futures::FutureExt as _;

    fn still() -> Report {
        let mut report = sample::report();
        report.entries.iter_mut().for_each(|entry| entry.progress = None);
        report
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_hears_at_once_and_then_of_changes_only() {
        let (sender, receiver) = watch::channel(Arc::new(still()));
        let mut states = watch_reports(receiver, CancellationToken::new());
        assert!(!states.next().await.unwrap().ready);
        assert!(states.next().now_or_never().is_none(), "nothing changed");
        // Two changes before the client asks again are one.
        sender.send(Arc::new(Report { done: true, ..still() })).unwrap();
        sender.send(Arc::new(Report { ready: true, ..still() })).unwrap();
        assert!(states.next().await.unwrap().ready);
        assert!(states.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn moving_bytes_are_told_once_a_second() {
        let (sender, receiver) = watch::channel(Arc::new(sample::report()));
        let mut states = watch_reports(receiver, CancellationToken::new());
        states.next().await.unwrap();
        let start = tokio::time::Instant::now();
        states.next().await.unwrap();
        states.next().await.unwrap();
        assert_eq!(start.elapsed(), 2 * TICK);
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_ends_with_the_agent() {
        let (sender, receiver) = watch::channel(Arc::new(still()));
        let stop = CancellationToken::new();
        let mut states = watch_reports(receiver.clone(), stop.clone());
        states.next().await.unwrap();
        stop.cancel();
        assert!(states.next().await.is_none());
        let mut states = watch_reports(receiver, CancellationToken::new());
        states.next().await.unwrap();
        drop(sender);
        assert!(states.next().await.is_none());
    }
}
