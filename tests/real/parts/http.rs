//! A plain HTTP client for the parts' own use.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// One client for all, which uses no proxy.
pub(super) fn client() -> reqwest::Client {
    // A client per call: a connection belongs to the runtime of the test that opened it.
    reqwest::Client::builder().no_proxy().build().expect("a client can be made")
}

/// Whether `url` answers at all with 2xx, or with 401 where a password is asked for.
pub(super) async fn answers(url: &str) -> bool {
    let answer = client().get(url).send().await;
    answer.is_ok_and(|answer| answer.status().is_success() || answer.status() == 401)
}

/// `METHOD PATH` of each line of an access log in the common format.
pub(super) fn requests(log: &str) -> Vec<String> {
    log.lines().filter_map(request).collect()
}

/// The access log of the server at `address`, with every request in it that was answered before this call: a
/// server writes its line *after* the answer. So a marked request for `path` is made until its line is there;
/// such lines are left out.
pub(super) fn settled_log(address: &str, path: &str, log: &Path) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const MARK: &str = "?settled=";
    let mark = format!("{MARK}{}-", NEXT.fetch_add(1, Ordering::Relaxed));
    for _ in 0..10_000 {
        ask(address, &format!("{path}{mark}"));
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A server may show the query in a column of its own, without its question mark.
        if text.contains(&mark[1..]) {
            let others = text.lines().filter(|line| !line.contains(&MARK[1..]));
            return others.fold(String::new(), |text, line| text + line + "\n");
        }
    }
    panic!("{address} doesn't log its requests into {}", log.display());
}

/// Asks and reads the answer to its end, whatever it is.
fn ask(address: &str, path: &str) {
    let answer = || {
        let mut server = TcpStream::connect(address)?;
        write!(server, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        server.read_to_end(&mut Vec::new())
    };
    if let Err(error) = answer() {
        panic!("{address} must be up to tell its requests: {error}");
    }
}

fn request(line: &str) -> Option<String> {
    let (_, quoted) = line.split_once("] \"")?;
    let (request, _) = quoted.split_once("\" ")?;
    let (request, _protocol) = request.rsplit_once(' ')?;
    Some(request.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_of_the_common_log_format_tells_its_request() {
        let line = r#"127.0.0.1 - - [24/Nov/2026:23:52:02 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "curl/8""#;
        assert_eq!(super::request(line).as_deref(), Some("GET /v2/"));
        assert_eq!(super::request("time=... level=info msg=\"listening\""), None);
    }
}
