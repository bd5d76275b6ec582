/// The longest quote of a document in a message, in characters.
const LONGEST: usize = 100;

/// Text from a document, fit for a message: short and on one line.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().flat_map(char::escape_debug).take(LONGEST + 1).collect();
    if let Some((end, _)) = quoted.char_indices().nth(LONGEST) {
        quoted.truncate(end);
        quoted.push('…');
    }
    quoted
}
