/// A name from outside as a message shows it: in one line, and no longer than anybody reads.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 300;
    let visible = name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let mut shown: String = visible.take(LONGEST).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_the_line_it_stands_in() {
        assert_eq!(shown("a/ü b.bin"), "a/ü b.bin");
        assert_eq!(shown("a\n2026 ERROR\u{1b}[2J"), "a\u{fffd}2026 ERROR\u{fffd}[2J");
        assert_eq!(shown(&"x".repeat(5000)).chars().count(), 301);
    }
}
