//! What the bot says: text in parts, written as Telegram's HTML or as plain text, and cut to messages.
//!
//! Lengths are counted as Telegram counts them, in UTF-16 units after the marks are gone.

use serde::{Deserialize, Serialize};

/// Longest message, in UTF-16 units.
pub(crate) const MESSAGE_UNITS_MAX: usize = 4096;
/// Most messages that one answer becomes. What is longer is cut, and says so.
const MESSAGES_MAX: usize = 5;
const CUT: &str = "… and more.";

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Ordinary text.
    Plain(String),
    /// The first line of something.
    Bold(String),
    /// Columns and paths: every character is as wide as the next.
    Mono(String),
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Bold(text) | Self::Mono(text) => text,
        }
    }

    fn with(&self, text: &str) -> Self {
        match self {
            Self::Plain(_) => Self::Plain(text.to_owned()),
            Self::Bold(_) => Self::Bold(text.to_owned()),
            Self::Mono(_) => Self::Mono(text.to_owned()),
        }
    }
}

/// One message or more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Body(pub(crate) Vec<Part>);

impl Body {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self(vec![Part::Plain(text.into())])
    }

    #[must_use]
    pub(crate) fn and(mut self, part: Part) -> Self {
        self.0.push(part);
        self
    }

    /// Writes it without marks, a part a line.
    pub(crate) fn as_plain(&self) -> String {
        let parts: Vec<&str> = self.0.iter().map(|part| part.text().trim_end()).collect();
        parts.join("\n")
    }

    /// Writes it in Telegram's HTML, in which three characters alone need care.
    pub(crate) fn as_html(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|part| {
                let text = escaped(part.text().trim_end());
                match part {
                    Part::Plain(_) => text,
                    Part::Bold(_) => format!("<b>{text}</b>"),
                    Part::Mono(_) => format!("<pre>{text}</pre>"),
                }
            })
            .collect();
        parts.join("\n")
    }

    /// Returns its length in a message.
    pub(crate) fn units(&self) -> usize {
        units(&self.as_plain())
    }

    /// Cuts it into messages, at the ends of lines where there are any, each part in its own kind.
    pub(crate) fn messages(self) -> Vec<Self> {
        let mut messages = vec![Self::default()];
        let mut room = MESSAGE_UNITS_MAX;
        for part in self.0 {
            // A line's end stands between two parts.
            let mut left = part.text().trim_end();
            loop {
                let needed = units(left) + 1;
                if needed <= room {
                    push(&mut messages, part.with(left));
                    room -= needed;
                    break;
                }
                let (head, rest) = cut(left, room.saturating_sub(1));
                // A few characters at the end of a message are worth less than a whole part in the next one.
                let whole = messages.last().is_some_and(|message| message.0.is_empty());
                if !head.is_empty() && (whole || room > MESSAGE_UNITS_MAX / 4) {
                    push(&mut messages, part.with(head));
                    left = rest;
                }
                messages.push(Self::default());
                room = MESSAGE_UNITS_MAX;
            }
        }
        messages.retain(|message| message.units() > 0);
        if messages.len() > MESSAGES_MAX {
            messages.truncate(MESSAGES_MAX - 1);
            messages.push(Self::plain(CUT));
        }
        messages
    }
}

fn push(messages: &mut [Body], part: Part) {
    if let Some(message) = messages.last_mut() {
        message.0.push(part);
    }
}

/// Cuts a text so that the head has at most `units_max` units: behind a paragraph, a line, a word, or anywhere.
fn cut(text: &str, units_max: usize) -> (&str, &str) {
    let mut end = 0;
    let mut so_far = 0;
    for (at, c) in text.char_indices() {
        so_far += c.len_utf16();
        if so_far > units_max {
            break;
        }
        end = at + c.len_utf8();
    }
    let head = &text[..end];
    let good = ["\n\n", "\n", " "]
        .into_iter()
        .filter_map(|mark| head.rfind(mark).map(|at| at + mark.len()))
        .find(|at| *at > end / 2)
        .unwrap_or(end);
    (
        text[..good].trim_end(),
        text[good..].trim_start_matches('\n'),
    )
}

/// Returns the length of a text as Telegram counts it.
pub(crate) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Returns the first characters of a text, with a sign when it goes on.
pub(crate) fn head(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(chars_max).collect();
    match chars.next() {
        Some(_) => head + "…",
        None => head,
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_escapes() {
        let body = Body::plain("a < b & c\n")
            .and(Part::Mono("x > y".to_owned()))
            .and(Part::Bold("z".to_owned()));
        assert_eq!(
            body.as_html(),
            "a &lt; b &amp; c\n<pre>x &gt; y</pre>\n<b>z</b>"
        );
        assert_eq!(body.as_plain(), "a < b & c\nx > y\nz");
    }

    #[test]
    fn a_long_text_becomes_messages_that_fit() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n} 파일 📎")).collect();
        let messages = Body::plain("head")
            .and(Part::Mono(lines.join("\n")))
            .messages();
        assert!(messages.len() > 2);
        for message in &messages {
            assert!(message.units() <= MESSAGE_UNITS_MAX, "{}", message.units());
        }
        let again: Vec<String> = messages.iter().map(Body::as_plain).collect();
        assert_eq!(
            again.join("\n"),
            format!("head\n{}", lines.join("\n")),
            "nothing is lost"
        );
    }

    #[test]
    fn a_text_without_an_end_is_cut_anywhere_and_at_last() {
        let messages = Body::plain("📎".repeat(5 * MESSAGE_UNITS_MAX)).messages();
        assert_eq!(messages.len(), MESSAGES_MAX);
        assert_eq!(
            messages[0].units(),
            MESSAGE_UNITS_MAX - 2,
            "a pair is never halved"
        );
        assert_eq!(messages[MESSAGES_MAX - 1].as_plain(), CUT);
    }

    #[test]
    fn nothing_to_say_is_no_message() {
        assert!(Body::plain(" \n").messages().is_empty());
    }

    #[test]
    fn the_head_of_a_text() {
        assert_eq!(head("büro", 4), "büro");
        assert_eq!(head("büros", 4), "büro…");
    }
}
