use std::collections::BTreeMap;

use super::writer::Part;

/// What stands in the way of writing: told once when it comes and once when it's over, not at each try. One kind of
/// write may be refused while the others go well, so each has its own; `None` is the API server itself.
#[derive(Debug, Default)]
pub(super) struct Trouble(BTreeMap<Option<Part>, String>);

impl Trouble {
    /// Whether this must be told.
    pub(super) fn is_new(&mut self, of: Option<Part>, text: &str) -> bool {
        self.0.insert(of, text.to_owned()).is_none_or(|before| before != text)
    }

    /// Whether a trouble that was told is over by an answer to this.
    pub(super) fn is_over(&mut self, of: Option<Part>) -> bool {
        let answered = self.0.remove(&None).is_some();
        self.0.remove(&of).is_some() || answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_however_well_the_rest_goes() {
        let mut trouble = Trouble::default();
        let keys = Some(Part::Keys);
        assert!(!trouble.is_over(keys), "nothing was wrong");
        assert!(trouble.is_new(keys, "refused"));
        assert!(!trouble.is_over(Some(Part::Conditions)) && !trouble.is_over(None));
        assert!(!trouble.is_new(keys, "refused"));
        assert!(trouble.is_new(keys, "refused for another reason"));
        assert!(trouble.is_over(keys) && !trouble.is_over(keys));
    }

    #[test]
    fn any_answer_ends_the_servers_silence() {
        let mut trouble = Trouble::default();
        assert!(trouble.is_new(None, "no answer") && !trouble.is_new(None, "no answer"));
        assert!(trouble.is_over(Some(Part::Taints)) && trouble.is_new(None, "no answer"));
    }
}
