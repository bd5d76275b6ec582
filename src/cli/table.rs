//! Rows in aligned columns, the last one cut to the terminal's width.

use super::format::plain;
use super::terminal::{Look, Paint};

/// Between two columns.
const GAP: &str = "  ";
/// A column that is cut keeps at least this much, even if a line gets too long for it.
const LEAST: usize = 12;

/// Rows under a heading. All have as many cells as the heading.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[Cell; COLUMNS]>,
}

/// One text in one colour.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// `text`, made safe for a terminal.
    pub(super) fn new(text: &str, paint: Paint) -> Self {
        Self { text: plain(text), paint }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Paint::Plain)
    }
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(heading: [&str; COLUMNS]) -> Self {
        Self { rows: vec![heading.map(|text| Cell::new(text, Paint::Heading))] }
    }

    pub(super) fn row(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells);
    }

    /// The lines, each ended by a newline.
    pub(super) fn render(&self, look: Look) -> String {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(&cell.text));
            }
        }
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP.len()).sum();
        let room = look.width.map(|width| width.saturating_sub(before_last).max(LEAST));
        let mut lines = String::new();
        for row in &self.rows {
            lines.push_str(&line(row, &widths, room, look.colour));
            lines.push('\n');
        }
        lines
    }
}

fn line(row: &[Cell], widths: &[usize], room: Option<usize>, colour: bool) -> String {
    let mut line = String::new();
    // Padding is written only when something follows it: no line ends in spaces.
    let mut padding = 0;
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let text = if column + 1 == row.len() { cut(&cell.text, room) } else { cell.text.clone() };
        if !text.is_empty() {
            line.extend(std::iter::repeat_n(' ', padding));
            padding = 0;
            line.push_str(&cell.paint.on(&text, colour));
        }
        padding += width + GAP.len() - columns(&text).min(*width);
    }
    line
}

/// `text` in at most `room` columns; where it's cut, it says so.
pub(super) fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if columns(text) > room => {
            text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
        }
        _ => text.to_owned(),
    }
}

/// Ids, states and numbers are ASCII, a column each; for free text a character is near enough.
fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table = Table::new(["ID", "STATE", "REASON"]);
        table.row(["llama-70b".into(), Cell::new("Warm", Paint::Good), "".into()]);
        table.row(["a".into(), "".into(), "it failed\nbecause of a very long reason".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        assert_eq!(
            table().render(Look::default()),
            "ID         STATE  REASON\n\
             llama-70b  Warm\n\
             a                 it failed because of a very long reason\n"
        );
    }

    #[test]
    fn the_last_column_is_cut_to_the_terminal() {
        let look = Look { width: Some(32), ..Look::default() };
        let text = table().render(look);
        assert_eq!(text.lines().last(), Some("a                 it failed bec…"));
        assert_eq!(text.lines().map(columns).max(), Some(32));
        let narrow = table().render(Look { width: Some(5), ..look });
        assert_eq!(narrow.lines().last(), Some("a                 it failed b…"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let look = Look { colour: true, ..Look::default() };
        let text = table().render(look);
        assert_eq!(text.lines().nth(1), Some("llama-70b  \x1b[32mWarm\x1b[0m"));
        assert!(text.starts_with("\x1b[1mID\x1b[0m         \x1b[1mSTATE"));
    }
}
