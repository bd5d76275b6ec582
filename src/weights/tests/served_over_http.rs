use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::super::{Puller, Reserve, Warmer, WeightsError};
use super::bed::{Bed, engine, goods, id, large};
use crate::list::WeightsGoods;
use crate::source::{SourceConfig, Sources};
use crate::types::{ErrorKind, Progress};

/// A server of one file, which is replaced `changes` times by another just when its bytes are asked for.
struct Server {
    url: String,
    version: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

fn content(version: usize) -> Vec<u8> {
    large(version as u8)
}

impl Server {
    async fn start(changes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/model", listener.local_addr().unwrap());
        let version = Arc::new(AtomicUsize::new(1));
        let now = version.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, now.clone(), changes));
            }
        });
        Self { url, version, _task: AbortOnDropHandle::new(task) }
    }

    fn goods(&self) -> WeightsGoods {
        WeightsGoods { uri: self.url.parse().unwrap(), ..goods("over-http") }
    }
}

/// Requests on one connection, until its end.
async fn answer(stream: TcpStream, version: Arc<AtomicUsize>, changes: usize) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if value("if-match:").is_some() && version.load(SeqCst) <= changes {
            version.fetch_add(1, SeqCst);
        }
        let now = version.load(SeqCst);
        let (etag, bytes) = (format!("\"v{now}\""), content(now));
        let (status, range, body) = match (value("if-match:"), value("range:")) {
            (Some(wanted), _) if wanted != etag => ("412 Precondition Failed", String::new(), &[][..]),
            (_, Some(range)) => {
                let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let first: usize = first.parse().unwrap();
                let last = last.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
                let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
                ("206 Partial Content", range, &bytes[first..=last])
            }
            _ => ("200 OK", String::new(), &bytes[..]),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n{range}Content-Length: {length}\r\n\r\n"
        );
        let body = if head[0].starts_with("head ") { &[][..] } else { body };
        let sent = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.write_all(body).await
        };
        if sent.await.is_err() {
            return;
        }
    }
}

fn plain_http() -> Sources {
    Sources::new(SourceConfig { allow_http: true, ..SourceConfig::default() }).unwrap()
}

async fn ensure(bed: &Bed, server: &Server) -> Result<super::super::WarmWeights, WeightsError> {
    let warmer = Warmer::new(bed.cache().clone(), engine(), plain_http(), false)
        .with_reserve(Reserve { percent: 0, bytes: 0 });
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warm = warmer.ensure(&id("llama"), &server.goods(), None, &progress, &stop).await?;
    assert_eq!(progress.done(), progress.total());
    Ok(warm)
}

#[tokio::test]
async fn a_new_version_at_the_source_becomes_a_new_revision() {
    let (bed, server) = (Bed::new(), Server::start(0).await);
    let first = ensure(&bed, &server).await.unwrap();
    assert!(bed.read("weights/llama/current/model") == content(1));
    assert_eq!(ensure(&bed, &server).await.unwrap().fetched_bytes, 0);
    server.version.store(2, SeqCst);
    let second = ensure(&bed, &server).await.unwrap();
    assert!(second.revision != first.revision && bed.read("weights/llama/current/model") == content(2));
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_listed_again() {
    let (bed, server) = (Bed::new(), Server::start(2).await);
    ensure(&bed, &server).await.unwrap();
    assert!(bed.read("weights/llama/current/model") == content(3));
    let restless = Server::start(100).await;
    let error = ensure(&bed, &restless).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(bed.read("weights/llama/current/model") == content(3));
    bed.assert_tidy();
}

#[tokio::test]
async fn a_pull_ends_with_one_version_of_a_file() {
    let server = Server::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::new(engine(), plain_http(), false);
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let pulled = puller.pull_to(dir.path(), &server.goods(), None, &progress, &stop).await.unwrap();
    assert_eq!((pulled.files, pulled.verified), (1, false));
    assert!(std::fs::read(dir.path().join("model")).unwrap() == content(2));
}
