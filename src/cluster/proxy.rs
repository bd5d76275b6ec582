use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// A proxy to open a tunnel through.
pub(super) struct Proxy {
    pub(super) uri: Uri,
    pub(super) auth: Option<HeaderValue>,
}

/// The proxy to reach `server` by: the one that the kubeconfig names, else what the environment says (`HTTPS_PROXY`,
/// unless `NO_PROXY` covers the server). `Err` with its name, without a password, if it's of a kind that isn't known.
pub(super) fn find(own: Option<&str>, server: &Uri) -> Result<Option<Proxy>, String> {
    match own {
        Some(own) => through(&Matcher::builder().all(own.to_owned()).build(), server)
            .and_then(|proxy| proxy.map(Some).ok_or_else(|| "the proxy-url of the kubeconfig".to_owned())),
        None if is_loopback(server) => Ok(None),
        None => through(&Matcher::from_env(), server),
    }
}

fn through(matcher: &Matcher, server: &Uri) -> Result<Option<Proxy>, String> {
    let Some(intercept) = matcher.intercept(server) else { return Ok(None) };
    let uri = intercept.uri().clone();
    if uri.scheme_str() == Some("http") {
        Ok(Some(Proxy { uri, auth: intercept.basic_auth().cloned() }))
    } else {
        Err(format!("the proxy {uri}"))
    }
}

/// No proxy leads to this machine, as for Go's programs.
fn is_loopback(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(https: &str, no: &str, server: &str) -> Result<Option<String>, String> {
        let matcher = Matcher::builder().https(https.to_owned()).no(no.to_owned()).build();
        let found = through(&matcher, &server.parse().unwrap());
        found.map(|proxy| proxy.map(|proxy| proxy.uri.authority().unwrap().to_string()))
    }

    #[test]
    fn no_proxy_is_about_the_server_not_the_proxy() {
        let proxy = Ok(Some("10.0.0.5:3128".to_owned()));
        assert_eq!(with("http://10.0.0.5:3128", "10.0.0.0/8", "https://kube.example:6443"), proxy);
        assert_eq!(with("http://10.0.0.5:3128", "10.0.0.0/8", "https://10.96.0.1"), Ok(None));
        assert_eq!(with("http://10.0.0.5:3128", ".example", "https://kube.example:6443"), Ok(None));
        assert_eq!(with("10.0.0.5:3128", "", "https://kube.example"), proxy, "a proxy without a scheme");
    }

    #[test]
    fn the_kubeconfigs_own_proxy_is_taken_and_its_password_kept_quiet() {
        let server = "https://kube.example".parse().unwrap();
        let found = find(Some("http://me:secret@proxy.example:3128"), &server).unwrap().unwrap();
        assert_eq!(found.uri.authority().unwrap(), "proxy.example:3128");
        assert!(found.auth.is_some_and(|auth| auth.is_sensitive()));
        let refused = find(Some("socks5://me:secret@proxy.example:1080"), &server).err().unwrap();
        assert!(refused.contains("socks5://proxy.example:1080") && !refused.contains("secret"), "{refused}");
        assert!(find(Some("::"), &server).is_err());
    }

    #[test]
    fn a_server_on_this_machine_needs_no_proxy() {
        for server in ["https://localhost:6443", "https://127.0.0.1:6443", "https://[::1]:6443"] {
            assert!(is_loopback(&server.parse().unwrap()), "{server}");
        }
        assert!(!is_loopback(&"https://10.96.0.1".parse().unwrap()));
    }
}
