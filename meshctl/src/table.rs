//! Tables as kubectl and istioctl print them: upper-case headers, columns padded with spaces, no borders.

use std::fmt;

/// Rows under headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The headers; no header line when all are empty.
    pub headers: Vec<&'static str>,
    /// The rows; each as long as the headers.
    pub rows: Vec<Vec<String>>,
    /// Spaces between columns. istioctl has 5 in most tables.
    pub padding: usize,
}

impl Table {
    /// An empty table with istioctl's padding.
    #[must_use]
    pub fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new(), padding: 5 }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.headers.iter().map(|header| width(header)).collect();
        for row in &self.rows {
            for (known, cell) in widths.iter_mut().zip(row) {
                *known = (*known).max(width(cell));
            }
        }
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, known) in cells.zip(&widths) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', known - width(cell) + self.padding));
            }
            writeln!(f, "{}", text.trim_end())
        };
        if self.headers.iter().any(|header| !header.is_empty()) {
            line(&mut self.headers.iter().copied())?;
        }
        self.rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_letter() {
        let mut table = Table { padding: 2, ..Table::new(&["NAME", "STATE"]) };
        table.row(["a-long-name".to_owned(), "ok".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME         STATE\na-long-name  ok\nb\n");
    }
}
