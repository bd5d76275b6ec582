//! The gRPC service `stoker.v1.Stoker` and the standard health service, on a unix socket.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::connection::unix_connections;
use super::outlook::knows_its_list;
use super::proto::stoker_server::{Stoker, StokerServer};
use super::proto::{
    FetchRequest, FetchResponse, FetchResult, StatusRequest, StatusResponse, WaitRequest, WaitResponse,
};
use super::requests::Requests;
use super::wait::{self, Wait};
use super::{FAREWELL, Labels, ServeError, TICK, convert};
use crate::agent::MAX_ENTRIES;
use crate::node::{Applied, Report};
use crate::types::EntryId;

/// Requests are a few ids at most.
const LARGEST_REQUEST: usize = 8 << 10;
/// Of one connection.
const STREAMS: u32 = 16;
/// A peer that is stopped or wedged answers no ping and is cut off.
const PING: Duration = Duration::from_secs(30);

/// The services' names for health checks: the whole server and the one service.
const HEALTH_NAMES: [&str; 2] = ["", "stoker.v1.Stoker"];

/// What the answers are made from, and where requests go.
#[allow(missing_debug_implementations, reason = "the labels are a function")]
pub struct Door {
    /// The agent's reports.
    pub reports: watch::Receiver<Arc<Report>>,
    /// Which labels a report puts on the Node.
    pub labels: Labels,
    /// What is known of the labels that stand there.
    pub applied: watch::Receiver<Option<Applied>>,
    /// Ids of listed entries that this node is asked to fetch although `nodes` leaves them out here.
    pub requested: watch::Sender<BTreeSet<EntryId>>,
}

/// Serves until `stop`, and a moment longer for clients to hang up.
///
/// # Errors
/// When the transport fails; never because of a client.
pub async fn serve(listener: UnixListener, door: Door, stop: CancellationToken) -> Result<(), ServeError> {
    let (health, health_service) = health_reporter();
    set_health(&health, ServingStatus::NotServing).await;
    let reports = door.reports.clone();
    let requests = Requests::new(door.requested);
    let service = Service {
        reports: door.reports,
        labels: door.labels,
        applied: door.applied,
        requests: requests.clone(),
        stop: stop.clone(),
    };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .add_service(StokerServer::new(service).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(health_service)
        .serve_with_incoming_shutdown(unix_connections(listener), stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => served.map_err(ServeError::Grpc),
        () = tell_health(health, reports.clone(), &stop) => Ok(()),
        () = requests.forget_unlisted(reports) => Ok(()),
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

struct Service {
    reports: watch::Receiver<Arc<Report>>,
    labels: Labels,
    applied: watch::Receiver<Option<Applied>>,
    requests: Requests,
    stop: CancellationToken,
}

impl Service {
    /// The first report that knows what is listed.
    async fn report_with_list(&self) -> Result<Arc<Report>, Status> {
        let mut reports = self.reports.clone();
        let known = async {
            let report = reports.wait_for(|report| knows_its_list(report)).await;
            report.ok().map(|report| Arc::clone(&report))
        };
        let report = tokio::select! {
            report = known => report,
            () = self.stop.cancelled() => None,
        };
        report.ok_or_else(|| Status::unavailable("the agent stops; ask again once it is back"))
    }
}

/// The ids of a request, each once.
fn ids(asked: &[String]) -> Result<Vec<EntryId>, Status> {
    let mut ids: Vec<EntryId> = Vec::new();
    for text in asked {
        let id = text.parse::<EntryId>().map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.is_empty() || ids.len() > MAX_ENTRIES {
        return Err(Status::invalid_argument(format!("name 1 to {MAX_ENTRIES} ids, not {}", ids.len())));
    }
    Ok(ids)
}

#[tonic::async_trait]
impl Stoker for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (report, applied) = (self.reports.borrow().clone(), self.applied.borrow().clone());
        Ok(Response::new(convert::status(&report, (self.labels)(&report), applied.as_ref())))
    }

    type WatchStatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn watch_status(
        &self,
        _: Request<StatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (labels, stop) = (self.labels.clone(), self.stop.clone());
        let states = watch_reports(self.reports.clone(), self.applied.clone(), stop)
            .map(move |(report, applied)| Ok(convert::status(&report, labels(&report), applied.as_ref())));
        Ok(Response::new(states.boxed()))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let ids = ids(&request.get_ref().ids)?;
        let report = self.report_with_list().await?;
        let answer = |id: &EntryId| {
            let (answer, reason) = self.requests.ask(&report, id)?;
            let reason = reason.as_ref().map(convert::reason);
            Some(FetchResult { id: id.to_string(), answer: answer.into(), reason })
        };
        Ok(Response::new(FetchResponse { results: ids.iter().filter_map(answer).collect() }))
    }

    type WaitStream = BoxStream<'static, Result<WaitResponse, Status>>;

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<Self::WaitStream>, Status> {
        let WaitRequest { ids: asked, fetch } = request.get_ref();
        let wait = Wait {
            ids: ids(asked)?,
            requests: fetch.then(|| self.requests.clone()),
            reports: self.reports.clone(),
            stop: self.stop.clone(),
            deadline: wait::deadline(request.metadata(), Instant::now()),
        };
        Ok(Response::new(wait.answers()))
    }
}

/// The report now, at each change of it or of what stands on the Node, and at each tick while a job is under way. Nothing is queued: an item is made
/// when the client has room for it, so a slow one misses states and holds no memory.
fn watch_reports(
    mut reports: watch::Receiver<Arc<Report>>,
    applied: watch::Receiver<Option<Applied>>,
    stop: CancellationToken,
) -> BoxStream<'static, (Arc<Report>, Option<Applied>)> {
    reports.mark_changed();
    futures::stream::unfold((reports, applied, stop), |(mut reports, mut applied, stop)| async {
        let moving = reports.borrow().entries.iter().any(|entry| entry.progress.is_some());
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            changed = reports.changed() => changed.ok()?,
            Ok(()) = applied.changed() => {}
            () = tokio::time::sleep(TICK), if moving => {}
        }
        let now = (reports.borrow_and_update().clone(), applied.borrow_and_update().clone());
        Some((now, (reports, applied, stop)))
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
        let (confirmed, applied) = watch::channel(None);
        let mut states = watch_reports(receiver, applied, CancellationToken::new());
        assert!(!states.next().await.unwrap().0.ready);
        assert!(states.next().now_or_never().is_none(), "nothing changed");
        // Two changes before the client asks again are one.
        sender.send(Arc::new(Report { done: true, ..still() })).unwrap();
        sender.send(Arc::new(Report { ready: true, ..still() })).unwrap();
        assert!(states.next().await.unwrap().0.ready);
        assert!(states.next().now_or_never().is_none());
        confirmed.send(Some(Applied::default())).unwrap();
        assert!(states.next().await.unwrap().1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn moving_bytes_are_told_once_a_second() {
        let (sender, receiver) = watch::channel(Arc::new(sample::report()));
        let mut states = watch_reports(receiver, watch::channel(None).1, CancellationToken::new());
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
        let mut states = watch_reports(receiver.clone(), watch::channel(None).1, stop.clone());
        states.next().await.unwrap();
        stop.cancel();
        assert!(states.next().await.is_none());
        let mut states = watch_reports(receiver, watch::channel(None).1, CancellationToken::new());
        states.next().await.unwrap();
        drop(sender);
        assert!(states.next().await.is_none());
    }
}
