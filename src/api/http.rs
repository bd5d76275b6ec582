//! HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for kubelet, `/` for a look. GET only, plain text or one
//! page, one request a connection.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connection::HttpConnections;
use super::{FAREWELL, Labels, ServeError, metrics, page};
use crate::node::Report;
use crate::rt::{Liveness, Metrics};

/// What the answers are made from.
#[derive(Clone)]
pub struct Door {
    /// The agent's reports.
    pub reports: watch::Receiver<Arc<Report>>,
    /// Which labels a report puts on the Node.
    pub labels: Labels,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The heartbeat of the agent's loop.
    pub liveness: Liveness,
}

/// Serves until `stop`, and a moment longer for answers under way.
///
/// # Errors
/// When the listener fails; never because of a client.
pub async fn serve(listener: TcpListener, door: Door, stop: CancellationToken) -> Result<(), ServeError> {
    let server = axum::serve(HttpConnections::new(listener), router(door))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = server => served.map_err(ServeError::Http),
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

fn router(door: Door) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .layer(map_response(seal))
        .with_state(door)
}

/// On every answer. A connection that ends with its answer can't be kept by those who hold many.
async fn seal(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn index(State(door): State<Door>) -> Response {
    let report = door.reports.borrow().clone();
    let page = page::render(&report, &(door.labels)(&report));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

async fn scrape(State(door): State<Door>) -> Response {
    let report = door.reports.borrow().clone();
    match metrics::render(&door.metrics, &report, metrics::Process::read().as_ref()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn livez(State(door): State<Door>) -> (StatusCode, String) {
    if door.liveness.is_stuck() {
        let silent = door.liveness.age().as_secs();
        (StatusCode::SERVICE_UNAVAILABLE, format!("the agent's loop has made no turn for {silent} s\n"))
    } else {
        (StatusCode::OK, "ok\n".to_owned())
    }
}

async fn readyz(State(door): State<Door>) -> (StatusCode, String) {
    let report = door.reports.borrow().clone();
    match awaited(&report) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(awaited) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {awaited}\n")),
    }
}

/// What must still report before the node says anything to the cluster; `None` once it's settled.
fn awaited(report: &Report) -> Option<&'static str> {
    use crate::types::GpuReason;
    if report.settled {
        None
    } else if report.list.content.is_none() && report.list.errors.is_empty() {
        Some("the list to be read")
    } else if report.gpu.reason == GpuReason::NotProbedYet {
        Some("the first GPU probe")
    } else {
        Some("containerd's images, the cache and, in a cluster, the Node to be read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use crate::types::GpuState;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    fn door(report: Report) -> (watch::Sender<Arc<Report>>, Door) {
        let (sender, reports) = watch::channel(Arc::new(report));
        let door = Door {
            reports,
            labels: Arc::new(sample::labels),
            metrics: Arc::new(Metrics::new()),
            liveness: Liveness::new(),
        };
        (sender, door)
    }

    /// The status and the whole answer to a GET of each path, from one server that is stopped afterwards.
    async fn get(door: Door, paths: &[&str]) -> Vec<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, door, stop.clone()));
        let mut answers = Vec::new();
        for path in paths {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // It ends although we didn't ask for that: one request a connection.
            stream.read_to_string(&mut answer).await.unwrap();
            let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
            answers.push((status, answer));
        }
        stop.cancel();
        server.await.unwrap().unwrap();
        answers
    }

    #[tokio::test]
    async fn each_path_answers_with_its_type() {
        let (_sender, door) = door(sample::report());
        let answers = get(door, &["/", "/metrics", "/livez", "/readyz", "/nothing"]).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 404]);
        assert!(answers[0].1.contains("content-type: text/html"));
        assert!(answers[0].1.contains("default-src 'none'"));
        assert!(answers[1].1.contains(metrics::MEDIA_TYPE));
        assert!(answers[1].1.ends_with("# EOF\n"));
        assert!(answers[1].1.contains("\nprocess_resident_memory_bytes "));
    }

    #[tokio::test]
    async fn not_ready_names_what_is_awaited() {
        let (sender, door) = door(Report { settled: false, ..sample::report() });
        let answers = get(door.clone(), &["/readyz"]).await;
        assert_eq!(answers[0].0, 503);
        assert!(answers[0].1.ends_with(
            "waiting for containerd's images, the cache and, in a cluster, the Node to be read\n"
        ));
        sender.send(Arc::new(sample::report())).unwrap();
        assert_eq!(get(door, &["/readyz"]).await[0].0, 200);
    }

    #[test]
    fn list_and_gate_are_awaited_by_name() {
        let mut report = Report { settled: false, gpu: GpuState::unknown(), ..sample::report() };
        assert_eq!(awaited(&report), Some("the first GPU probe"));
        report.list.content = None;
        assert_eq!(awaited(&report), Some("the list to be read"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_fails_the_liveness_probe() {
        let (_sender, door) = door(sample::report());
        tokio::time::advance(Liveness::STUCK + Duration::from_secs(1)).await;
        let (status, text) = livez(State(door.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("61 s"), "{text}");
        door.liveness.beat();
        assert_eq!(livez(State(door)).await.0, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_cut_off_and_does_not_delay_the_stop() {
        let (_sender, door) = door(sample::report());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, door, stop.clone()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET / HT").await.unwrap();
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
