//! Error texts from registries can carry signed URLs; nothing that is printed may.

/// The most of a daemon's error text that is worth printing, in bytes.
const LONGEST: usize = 2000;

/// `text` without what follows `?` in any URL, without user names and passwords in URLs, and not too long.
pub(super) fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(LONGEST));
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = url.find(|c: char| c.is_whitespace() || "\"'`<>\\".contains(c)).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        push_url(&mut clean, url);
        rest = after;
    }
    clean.push_str(rest);
    if clean.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&end| clean.is_char_boundary(end)).unwrap_or(0);
        clean.truncate(end);
        clean.push('…');
    }
    clean
}

fn push_url(clean: &mut String, url: &str) {
    let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (host, path) = url.split_at(authority);
    match host.rsplit_once('@') {
        Some((_, host)) => clean.extend(["…@", host]),
        None => clean.push_str(host),
    }
    match path.find('?') {
        None => clean.push_str(path),
        Some(query) => {
            clean.push_str(&path[..query]);
            clean.push_str("?…");
            // Go ends the URL in "url: cause" with the colon; the cause is worth keeping.
            if path.ends_with(':') {
                clean.push(':');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_passwords_in_urls_go_and_the_rest_stays() {
        for (text, clean) in [
            ("not found", "not found"),
            (r#"Get "https://s3/b?X-Sig=abc": EOF"#, r#"Get "https://s3/b?…": EOF"#),
            ("GET https://h/p?a=b&c=d: 403", "GET https://h/p?…: 403"),
            ("http://user:pw@host/v2/ refused", "http://…@host/v2/ refused"),
            ("https://h?sig=1 and https://g?sig=2", "https://h?… and https://g?…"),
            (r"\u0026 Get \x22https://h/x?y=z\x22", r"\u0026 Get \x22https://h/x?…\x22"),
            ("://", "://"),
            ("what? https://h/x", "what? https://h/x"),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }

    #[test]
    fn a_very_long_text_is_cut_between_characters() {
        let cut = scrub(&"ä".repeat(5000));
        assert!(cut.len() <= LONGEST + '…'.len_utf8() && cut.ends_with('…'));
    }
}
