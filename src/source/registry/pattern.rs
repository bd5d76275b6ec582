//! Patterns of images, as keys of a docker configuration and `matchImages` write them: `host[:port][/path]`, in which
//! each part of the host's name may hold wildcards (kubernetes, `URLsMatch` in `pkg/credentialprovider/keyring.go`).

use crate::types::ImageRef;

/// Whether `pattern` is for `image`: as many parts in the host and each one a glob that fits, the same port, and a
/// path that the image's begins with.
pub(crate) fn pattern_matches(pattern: &str, image: &ImageRef) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (want_name, want_port) = split_port(host);
    let (name, port) = split_port(image.domain());
    let (want_parts, parts) = (want_name.split('.'), name.split('.'));
    port == want_port
        && image.repository().starts_with(path)
        && want_parts.clone().count() == parts.clone().count()
        && want_parts.zip(parts).all(|(glob, part)| fits(glob, part))
}

/// A registry as it's written in `auths`, as a pattern: without a scheme or a user, and without the `/v1/` or `/v2/`
/// of an API's address.
pub(super) fn pattern_of(registry: &str) -> String {
    let rest =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = host.rsplit('@').next().unwrap_or_default();
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    format!("{host}{}", if path == "/" { "" } else { path })
}

/// A host without its port and the brackets of an address, and the port.
fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    (address.filter(|address| address.contains(':')).unwrap_or(name), port)
}

/// One character of a glob.
enum Token {
    /// Any characters, or none.
    Star,
    /// One of these, or with `true` one of all others.
    OneOf(bool, Vec<(char, char)>),
}

/// Whether `text` is what `glob` says, in the language of Go's `path.Match`: `*` is any characters, `?` one, `[a-c]` one
/// of some, `[^a-c]` one of the others, and `\` takes the meaning from the next. A malformed glob fits nothing.
fn fits(glob: &str, text: &str) -> bool {
    let Some(tokens) = tokens(glob) else { return false };
    let text: Vec<char> = text.chars().collect();
    let (mut token_at, mut text_at, mut star) = (0, 0, None);
    while text_at < text.len() {
        match tokens.get(token_at) {
            Some(Token::Star) => {
                star = Some((token_at, text_at));
                token_at += 1;
            }
            Some(Token::OneOf(others, ranges)) if is_in(ranges, text[text_at]) != *others => {
                token_at += 1;
                text_at += 1;
            }
            _ => match star {
                None => return false,
                // Let the last star take one more.
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    token_at = star_at + 1;
                    text_at = taken + 1;
                }
            },
        }
    }
    tokens[token_at..].iter().all(|token| matches!(token, Token::Star))
}

fn is_in(ranges: &[(char, char)], c: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// `None` is a malformed glob.
fn tokens(glob: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::OneOf(true, Vec::new()),
            '[' => {
                let others = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
                    let first = member(&mut rest)?;
                    let last = if rest.next_if_eq(&'-').is_some() { member(&mut rest)? } else { first };
                    ranges.push((first, last));
                }
                Token::OneOf(others, ranges)
            }
            '\\' => {
                let literal = rest.next()?;
                Token::OneOf(false, vec![(literal, literal)])
            }
            literal => Token::OneOf(false, vec![(literal, literal)]),
        });
    }
    Some(tokens)
}

/// An end of a range between brackets.
fn member(rest: &mut impl Iterator<Item = char>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_are_gos() {
        for (glob, text, fit) in [
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[^a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[ab-]", "a", false),
            ("[]a]", "a", false),
            ("[-a]", "a", false),
            ("[a", "a", false),
            ("[", "[", false),
            ("a\\", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("*[0-9]", "node12", true),
            ("reg[12]", "reg3", false),
        ] {
            assert_eq!(fits(glob, text), fit, "{glob} for {text}");
        }
    }

    #[test]
    fn stars_are_no_bomb() {
        assert!(!fits(&"*a".repeat(2000), &"a".repeat(1999)));
    }

    /// What a glob means, written without a thought for speed.
    fn model(glob: &[char], text: &[char]) -> bool {
        match (glob.first(), text.first()) {
            (None, None) => true,
            (Some('*'), _) => model(&glob[1..], text) || (!text.is_empty() && model(glob, &text[1..])),
            (Some('?'), Some(_)) => model(&glob[1..], &text[1..]),
            (Some(a), Some(b)) => a == b && model(&glob[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_fits_where_the_model_does(glob in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(fits(&glob, &text), model(&chars(&glob), &chars(&text)));
        }

        #[test]
        fn any_pattern_is_answered(pattern in ".{0,40}|[\\[\\]a:/.*?^-]{0,20}") {
            pattern_matches(&pattern_of(&pattern), &"gcr.io/a/b:c".parse().unwrap());
        }
    }
}
