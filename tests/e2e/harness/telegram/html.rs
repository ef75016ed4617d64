//! Texts with `parse_mode` HTML: which tags there are, and what is wrong with a text.

use std::cmp::Reverse;

use serde_json::{Value, json};

/// A part of a text with a style. Offset and length count UTF-16 units.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entity {
    kind: &'static str,
    offset: usize,
    length: usize,
    /// The link of a `text_link`, the language of a `pre`.
    more: String,
}

impl Entity {
    /// Returns the `MessageEntity`.
    pub(super) fn object(&self) -> Value {
        let mut object = json!({ "type": self.kind, "offset": self.offset, "length": self.length });
        match self.kind {
            "text_link" => object["url"] = self.more.clone().into(),
            "pre" if !self.more.is_empty() => object["language"] = self.more.clone().into(),
            _ => {}
        }
        object
    }

    /// Ends with the text; returns whether anything is left.
    pub(super) fn clip(&mut self, end: usize) -> bool {
        self.length = self.length.min(end.saturating_sub(self.offset));
        self.length > 0
    }
}

/// Takes the tags out of a text.
/// # Errors
/// What the public server says about the first thing that is wrong.
pub(super) fn parse(html: &str) -> Result<(String, Vec<Entity>), String> {
    let mut parser = Parser {
        html,
        at: 0,
        text: String::new(),
        units: 0,
        open: Vec::new(),
        entities: Vec::new(),
    };
    parser.run()?;
    let mut entities = parser.entities;
    entities.sort_by_key(|entity| (entity.offset, Reverse(entity.length)));
    Ok((parser.text, entities))
}

pub(super) fn utf16_units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Returns what a tag makes of its text.
fn kind(tag: &str) -> Option<&'static str> {
    Some(match tag {
        "b" | "strong" => "bold",
        "i" | "em" => "italic",
        "u" | "ins" => "underline",
        "s" | "strike" | "del" => "strikethrough",
        "code" => "code",
        "pre" => "pre",
        "a" => "text_link",
        "blockquote" => "blockquote",
        "tg-spoiler" => "spoiler",
        _ => return None,
    })
}

struct Open {
    tag: String,
    kind: &'static str,
    offset: usize,
    more: String,
}

struct Parser<'a> {
    html: &'a str,
    at: usize,
    text: String,
    units: usize,
    open: Vec<Open>,
    entities: Vec<Entity>,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(first) = self.peek() {
            if first == '<' {
                if self.html[self.at..].starts_with("</") {
                    self.end_tag()?;
                } else {
                    self.start_tag()?;
                }
            } else {
                let character = self.character(first);
                self.text.push(character);
                self.units += character.len_utf16();
            }
        }
        match self.open.pop() {
            Some(Open { tag, .. }) => Err(format!(
                "Can't find end tag corresponding to start tag \"{tag}\""
            )),
            None => Ok(()),
        }
    }

    fn start_tag(&mut self) -> Result<(), String> {
        let begun = self.at;
        let unclosed = || format!("Unclosed start tag at byte offset {begun}");
        self.at += 1;
        let tag = self.take_name();
        if self.peek().is_none() {
            return Err(unclosed());
        }
        let Some(mut kind) = kind(&tag) else {
            return Err(format!(
                "Unsupported start tag \"{tag}\" at byte offset {begun}"
            ));
        };
        let mut more = String::new();
        loop {
            self.skip_space();
            match self.peek() {
                None => return Err(unclosed()),
                Some('>') => break,
                Some(_) => {}
            }
            let name = self.take_name();
            let value = self.attribute_value().ok_or_else(unclosed)?;
            match (&*tag, &*name) {
                ("a", "href") => more = value,
                ("code", "class") => {
                    more = value
                        .strip_prefix("language-")
                        .unwrap_or_default()
                        .to_owned();
                }
                ("blockquote", "expandable") => kind = "expandable_blockquote",
                _ => {}
            }
        }
        self.at += 1;
        self.open.push(Open {
            tag,
            kind,
            offset: self.units,
            more,
        });
        Ok(())
    }

    /// Reads what follows the name of an attribute: nothing, or `=` and a value. `None` when the text
    /// ends in it.
    fn attribute_value(&mut self) -> Option<String> {
        self.skip_space();
        if self.peek()? != '=' {
            return Some(String::new());
        }
        self.at += 1;
        self.skip_space();
        let quote = self.peek()?;
        if !matches!(quote, '"' | '\'') {
            let value = self.take_until(|next| next.is_whitespace() || next == '>');
            return Some(value.to_owned());
        }
        self.at += 1;
        let mut value = String::new();
        loop {
            let next = self.peek()?;
            if next == quote {
                self.at += 1;
                return Some(value);
            }
            value.push(self.character(next));
        }
    }

    fn end_tag(&mut self) -> Result<(), String> {
        let begun = self.at;
        let Some(open) = self.open.pop() else {
            return Err(format!("Unexpected end tag at byte offset {begun}"));
        };
        self.at += 2;
        let tag = self.take_name();
        self.skip_space();
        if self.peek() != Some('>') {
            return Err(format!("Unclosed end tag at byte offset {begun}"));
        }
        self.at += 1;
        if !tag.is_empty() && tag != open.tag {
            return Err(format!(
                "Unmatched end tag at byte offset {begun}, expected \"</{}>\", found \"</{tag}>\"",
                open.tag
            ));
        }
        self.close(open);
        Ok(())
    }

    fn close(&mut self, mut open: Open) {
        let (offset, length) = (open.offset, self.units - open.offset);
        // A link to nowhere is plain text.
        if length == 0 || (open.kind == "text_link" && open.more.is_empty()) {
            return;
        }
        if open.kind == "pre" {
            // `<pre><code class="language-rust">` is one thing.
            let is_inside = |inner: &mut Entity| {
                inner.kind == "code" && (inner.offset, inner.length) == (offset, length)
            };
            if let Some(inner) = self.entities.pop_if(is_inside) {
                open.more = inner.more;
            }
        }
        self.entities.push(Entity {
            kind: open.kind,
            offset,
            length,
            more: open.more,
        });
    }

    fn peek(&self) -> Option<char> {
        self.html[self.at..].chars().next()
    }

    fn take_until(&mut self, end: impl Fn(char) -> bool) -> &str {
        let rest = &self.html[self.at..];
        let taken = &rest[..rest.find(end).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Takes the name of a tag or of an attribute.
    fn take_name(&mut self) -> String {
        self.take_until(|next| next.is_whitespace() || matches!(next, '=' | '>'))
            .to_lowercase()
    }

    fn skip_space(&mut self) {
        self.at = self.html.len() - self.html[self.at..].trim_start().len();
    }

    /// Takes a character, or what `&…;` stands for.
    fn character(&mut self, first: char) -> char {
        let (character, bytes) = (first == '&')
            .then(|| escaped(&self.html[self.at..]))
            .flatten()
            .unwrap_or((first, first.len_utf8()));
        self.at += bytes;
        character
    }
}

/// Returns the character that `text` begins with in its `&…;` form, and how long that is. Other names
/// stand for themselves, and the `;` may be missing.
fn escaped(text: &str) -> Option<(char, usize)> {
    let name = text.strip_prefix('&')?;
    let end = name.find(|next: char| !next.is_ascii_alphanumeric() && next != '#');
    let name = &name[..end.unwrap_or(name.len())];
    let character = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            code.ok()
                .filter(|code| *code > 0)
                .and_then(char::from_u32)?
        }
        None => match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            _ => return None,
        },
    };
    let bytes = 1 + name.len();
    Some((
        character,
        bytes + usize::from(text[bytes..].starts_with(';')),
    ))
}
