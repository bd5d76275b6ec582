use std::error::Error;

/// An error and all its causes on one line: `a: b: c`. Errors here never print their own source, so that each
/// sentence stands once.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let sentence = error.to_string();
        // Some libraries' errors repeat their source's words; saying them once is enough.
        if line.ends_with(&sentence) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&sentence);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Level>>);

    #[test]
    fn every_cause_stands_once() {
        let error = Level("outer", Some(Box::new(Level("inner", Some(Box::new(Level("inner", None)))))));
        assert_eq!(chain(&error), "outer: inner");
    }
}
