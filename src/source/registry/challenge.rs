/// One way to prove oneself that a server offers (RFC 9110, 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic` or another scheme, in lower case.
    pub scheme: String,
    /// Its parameters in the server's order, names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// No server needs more of either.
const MOST: usize = 32;

/// Reads the challenges in the value of one `WWW-Authenticate`: several may stand in one header, and quoted values
/// may hold commas. What can't be read ends the reading; what came before it stands.
#[must_use]
pub fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut rest = Rest(text);
    let mut challenges = Vec::new();
    while challenges.len() < MOST {
        rest.skip(" \t,");
        let scheme = rest.token().to_ascii_lowercase();
        if scheme.is_empty() {
            break;
        }
        let spaces = rest.skip(" \t");
        if spaces {
            rest.skip_token68();
        }
        let parameters = rest.parameters();
        challenges.push(Challenge { scheme, parameters });
    }
    challenges
}

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Leaves out leading characters of `any`; whether there were some.
    fn skip(&mut self, any: &str) -> bool {
        let before = self.0.len();
        self.0 = self.0.trim_start_matches(|character| any.contains(character));
        self.0.len() < before
    }

    /// Takes what matches; it may be empty.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|character| !wanted(character)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// A token (RFC 9110, 5.6.2).
    fn token(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    }

    /// Credentials of other schemes, in one word: nothing of ours.
    fn skip_token68(&mut self) {
        let mut ahead = *self;
        let word = ahead.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        ahead.skip("=");
        ahead.skip(" \t");
        if !word.is_empty() && (ahead.0.is_empty() || ahead.0.starts_with(',')) {
            *self = ahead;
        }
    }

    /// `name=value`, joined by commas, up to the next scheme.
    fn parameters(&mut self) -> Vec<(String, String)> {
        let mut parameters = Vec::new();
        while parameters.len() < MOST {
            let mut ahead = *self;
            ahead.skip(" \t,");
            let name = ahead.token();
            ahead.skip(" \t");
            if name.is_empty() || !ahead.0.starts_with('=') {
                break;
            }
            ahead.0 = &ahead.0[1..];
            ahead.skip(" \t");
            let value =
                if ahead.0.starts_with('"') { ahead.quoted() } else { Some(ahead.token().to_owned()) };
            *self = ahead;
            let Some(value) = value else { break };
            parameters.push((name.to_ascii_lowercase(), value));
        }
        parameters
    }

    /// A quoted string (RFC 9110, 5.6.4), or `None` where its end is missing: then nothing is left.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut is_escaped = false;
        for (at, character) in self.0.char_indices().skip(1) {
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' => {
                    is_escaped = true;
                    continue;
                }
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                _ => {}
            }
            value.push(character);
        }
        self.0 = "";
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse_challenges(text).into_iter().map(|one| (one.scheme, one.parameters)).collect()
    }

    fn one(scheme: &str, parameters: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        (scheme.to_owned(), parameters.iter().map(owned).collect())
    }

    #[test]
    fn what_registries_send_is_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        assert_eq!(
            read(hub),
            [one(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:library/nginx:pull")
                ]
            )]
        );
        assert_eq!(
            read(r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#)
                .len(),
            1
        );
        let commas = read(r#"BEARER Realm="https://a/t" , scope="repository:a:pull,push repository:b:pull""#);
        assert_eq!(commas[0].1[1].1, "repository:a:pull,push repository:b:pull");
    }

    #[test]
    fn several_stand_in_one_header() {
        let several = r#"Negotiate, NTLM TlRMTVNT+/==, Basic realm="a \"quoted\" one, with a comma", Bearer realm=x,error=invalid_token"#;
        assert_eq!(
            read(several),
            [
                one("negotiate", &[]),
                one("ntlm", &[]),
                one("basic", &[("realm", "a \"quoted\" one, with a comma")]),
                one("bearer", &[("realm", "x"), ("error", "invalid_token")]),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_ends_the_reading() {
        assert_eq!(read(r#"Basic realm="a", Bearer realm="never ends"#).len(), 2);
        assert_eq!(parse_challenges(r#"Bearer realm="never ends"#)[0].get("realm"), None);
        assert_eq!(read("=,\"").len(), 0);
        assert_eq!(read(&"a,".repeat(10_000)).len(), MOST);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), header in "[Bb]earer [ -~é]{0,60}") {
            let _ = parse_challenges(&text);
            let _ = parse_challenges(&header);
        }

        #[test]
        fn what_is_quoted_comes_back(values in prop::collection::vec("[ -~]{0,20}", 0..5)) {
            let quoted = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
            let list: Vec<String> = values.iter().map(|value| format!("p=\"{}\"", quoted(value))).collect();
            let read = parse_challenges(&format!("Bearer {}, Basic realm=x", list.join(" , ")));
            let back: Vec<&String> = read[0].parameters.iter().map(|(_, value)| value).collect();
            prop_assert_eq!(back, values.iter().collect::<Vec<_>>());
            prop_assert_eq!(read[1].get("realm"), Some("x"));
        }
    }
}
