use super::tree::{self, Node, Value};
use super::{Place, Problem};

/// The key of the ConfigMap under which the list stands.
const KEY: &str = "list.yaml";

/// A list that stands in a ConfigMap's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The list's own text, as the agent will see it.
    pub list: String,
    /// Where that text begins in the manifest.
    place: Option<Place>,
    /// Whether the text stands there line by line (`list.yaml: |`), so that its lines can be found again.
    line_by_line: bool,
}

/// The list in a manifest for kubectl: of its documents, the first ConfigMap with a `list.yaml`. `None` where there is
/// none, and so for a bare list and for what can't be read at all.
#[must_use]
pub fn manifest(text: &str) -> Option<Manifest> {
    // A large manifest is no list and needn't be read.
    if text.len() > 4 * super::MAX_BYTES || !text.contains("ConfigMap") {
        return None;
    }
    tree::read_all(text).ok()?.iter().find_map(|document| list_in(document, text))
}

fn list_in(document: &Node, text: &str) -> Option<Manifest> {
    if field(document, "kind")?.value != Value::Text("ConfigMap".to_owned()) {
        return None;
    }
    let node = field(field(document, "data")?, KEY)?;
    let Value::Text(list) = &node.value else { return None };
    let line_by_line = node.place.is_some_and(|place| stands_line_by_line(list, place, text));
    Some(Manifest { list: list.clone(), place: node.place, line_by_line })
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(pairs) = &node.value else { return None };
    pairs.iter().find(|(key, _)| key.value == Value::Text(name.to_owned())).map(|(_, value)| value)
}

fn stands_line_by_line(list: &str, place: Place, text: &str) -> bool {
    let (above, left) = (place.line.saturating_sub(1) as usize, place.column.saturating_sub(1) as usize);
    let mut outer = text.lines().skip(above);
    list.lines().all(|line| outer.next().is_some_and(|outer| outer.get(left..).unwrap_or_default() == line))
}

impl Manifest {
    /// The problem with its place in the manifest instead of its place in the list.
    #[must_use]
    pub fn locate(&self, mut problem: Problem) -> Problem {
        problem.place = match (self.place, problem.place) {
            (Some(start), Some(place)) if self.line_by_line => Some(Place {
                line: start.line.saturating_add(place.line).saturating_sub(1),
                column: start.column.saturating_add(place.column).saturating_sub(1),
            }),
            (start, _) => start,
        };
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AllowList, parse};
    use super::*;

    const LIST: &str = "apiVersion: stoker.dev/v1\nkind: PrefetchList\n\nentries:\n- id: a\n  imag: x\n";

    fn places(text: &str) -> Vec<Option<Place>> {
        let manifest = manifest(text).unwrap();
        assert_eq!(manifest.list, LIST);
        let parsed = parse(manifest.list.as_bytes(), &AllowList::default());
        parsed.all_problems().into_iter().map(|problem| manifest.locate(problem.clone()).place).collect()
    }

    #[test]
    fn lines_of_a_block_are_found_again() {
        let block: String = LIST.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "---\nkind: Secret\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n  list.yaml: |\n{block}"
        );
        let at = |line, column| Some(Place { line, column });
        assert_eq!(places(&text), [at(12, 7), at(13, 7)]);
    }

    #[test]
    fn of_a_quoted_list_only_the_beginning_is_known() {
        let text = format!("kind: ConfigMap\ndata: {{list.yaml: {LIST:?}}}\n");
        assert_eq!(places(&text), [Some(Place { line: 2, column: 19 }); 2]);
    }

    #[test]
    fn what_is_no_such_config_map_is_no_manifest() {
        for text in
            [LIST, "", "kind: ConfigMap", "kind: ConfigMap\ndata: {other: x}", "ConfigMap: [", "# ConfigMap"]
        {
            assert_eq!(manifest(text), None, "{text}");
        }
    }
}
