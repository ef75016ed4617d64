//! What only a terminal has: columns and colours.

use shared::control::Health;
use shared::words::health_name;

/// Lays rows out in columns, two spaces apart. Columns whose head begins with `>` are aligned to
/// the right.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let names = head.map(|name| name.trim_start_matches('>').to_owned());
    let mut widths = [0; N];
    for row in std::iter::once(&names).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(widths).zip(head) {
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) = if name.starts_with('>') {
                (gap.as_str(), "")
            } else {
                ("", gap.as_str())
            };
            line += &format!("{before}{cell}{after}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Whether words are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    /// Whether they are.
    pub(crate) on: bool,
}

impl Paint {
    /// Writes the name of a state, in its colour.
    pub(crate) fn health(self, health: Health) -> String {
        let name = health_name(health);
        let colour = match health {
            Health::Healthy => 32,
            Health::Degraded | Health::Held => 33,
            Health::Halted => 31,
        };
        self.word(name, colour)
    }

    /// Writes a word in a colour of the terminal.
    pub(crate) fn word(self, word: &str, colour: u8) -> String {
        if self.on {
            format!("\x1b[1;{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [row("a", "4.9 KiB", "x"), row("büro", "1 B", "")];
        let text = "NAME     SIZE  WHY\n\
                    a     4.9 KiB  x\n\
                    büro      1 B\n";
        assert_eq!(table(["NAME", ">SIZE", "WHY"], &rows), text);
    }

    #[test]
    fn colours() {
        assert_eq!(Paint { on: false }.health(Health::Held), "held");
        assert_eq!(
            Paint { on: true }.health(Health::Halted),
            "\x1b[1;31mhalted\x1b[0m"
        );
    }
}
