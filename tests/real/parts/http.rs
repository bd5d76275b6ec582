//! A plain HTTP client for the parts' own use.

use std::path::Path;

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
pub(super) fn requests(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(request).collect()
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
