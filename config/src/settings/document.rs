//! A TOML text with line numbers, and the sentences about what is wrong in it.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{SettingsRefused, VERSION};

/// Names less alike than this (Jaro-Winkler, 0 to 1) are no misspellings of each other.
const ALIKE_MIN: f64 = 0.8;

/// A parsed text.
pub(super) struct Document<'a> {
    source: Source<'a>,
    table: DeTable<'a>,
}

/// One section of it, empty when the text does not have it.
pub(super) struct Section<'a> {
    source: Source<'a>,
    name: &'a str,
    /// Where it begins.
    start: usize,
    table: Option<&'a DeTable<'a>>,
}

#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a str, file: &'a str) -> Result<Self, SettingsRefused> {
        let source = Source { file, text };
        match DeTable::parse(text) {
            Ok(table) => Ok(Self {
                source,
                table: table.into_inner(),
            }),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let said = error.message().trim().replace('\n', "; ");
                Err(source.wrong(start, &format!("this is not TOML: {said}")))
            }
        }
    }

    /// Checks that the text is of the version that this program reads.
    pub(super) fn version(&self) -> Result<(), SettingsRefused> {
        let Some(value) = self.table.get("version") else {
            let text = format!("`version` is missing; the file begins with `version = {VERSION}`");
            return Err(self.source.wrong(0, &text));
        };
        match integer(value.get_ref()) {
            Some(VERSION) => Ok(()),
            _ => Err(self.source.wrong(
                value.span().start,
                &format!(
                    "`version` is {}; this program reads version {VERSION}",
                    found(value.get_ref())
                ),
            )),
        }
    }

    /// Checks that there is no section and no key beyond `sections`.
    pub(super) fn check_names(&self, sections: &[(&str, &[&str])]) -> Result<(), SettingsRefused> {
        let mut unknown: Vec<(Range<usize>, String)> = Vec::new();
        for (name, value) in &self.table {
            let known = sections.iter().find(|(known, _)| known == name.get_ref());
            match (known, value.get_ref()) {
                (Some((_, keys)), DeValue::Table(table)) => {
                    for key in table
                        .keys()
                        .filter(|key| !keys.contains(&key.get_ref().as_ref()))
                    {
                        let text = unknown_key(key.get_ref(), Some(name.get_ref()), sections);
                        unknown.push((key.span(), text));
                    }
                }
                (Some(_), other) => {
                    let text = format!(
                        "`{}` is {}; it is a section, [{0}]",
                        name.get_ref(),
                        found(other)
                    );
                    unknown.push((name.span(), text));
                }
                (None, _) if name.get_ref() == "version" => {}
                (None, DeValue::Table(_)) => {
                    unknown.push((name.span(), unknown_section(name.get_ref(), sections)));
                }
                (None, _) => {
                    unknown.push((name.span(), unknown_key(name.get_ref(), None, sections)));
                }
            }
        }
        // The table is sorted by name; people read from the top.
        match unknown.into_iter().min_by_key(|(span, _)| span.start) {
            Some((span, text)) => Err(self.source.wrong(span.start, &text)),
            None => Ok(()),
        }
    }

    /// Returns a section, which may be absent.
    pub(super) fn section<'b>(&'b self, name: &'b str) -> Section<'b> {
        let entry = self.table.get(name);
        Section {
            source: self.source,
            name,
            start: entry.map_or(self.source.text.len(), |value| value.span().start),
            table: entry.and_then(|value| value.get_ref().as_table()),
        }
    }
}

impl Section<'_> {
    /// Returns a text that `parse` accepts. `allowed` says what it accepts.
    pub(super) fn required<T>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, SettingsRefused> {
        self.optional(key, allowed, parse)?.ok_or_else(|| {
            let text = format!(
                "`{key}` in [{}] is missing; allowed is {allowed}",
                self.name
            );
            self.wrong(key, &text)
        })
    }

    /// Returns a text that `parse` accepts, or `None` when the key is absent.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingsRefused> {
        self.value(key, allowed, |value| parse(value.as_str()?))
    }

    /// Returns an integer from 0 to `most`, or `None` when the key is absent.
    pub(super) fn integer<N>(&self, key: &str, most: N) -> Result<Option<N>, SettingsRefused>
    where
        N: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
    {
        let allowed = format!("an integer from 0 to {most}, without quotes");
        self.value(key, &allowed, |value| {
            N::try_from(integer(value)?)
                .ok()
                .filter(|found| *found <= most)
        })
    }

    /// Returns a list of texts, or `None` when the key is absent.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, SettingsRefused> {
        let allowed = "a list of patterns in quotes, such as [\"*.jsonl\", \"/logs/\"]";
        self.value(key, allowed, |value| {
            let texts = value.as_array()?.iter();
            texts
                .map(|text| text.get_ref().as_str().map(ToOwned::to_owned))
                .collect()
        })
    }

    /// Makes the refusal of `key`; at the head of the section when the key is absent.
    pub(super) fn wrong(&self, key: &str, text: &str) -> SettingsRefused {
        let start = self.get(key).map_or(self.start, |value| value.span().start);
        self.source.wrong(start, text)
    }

    fn value<T>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<T>, SettingsRefused> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        parse(value.get_ref()).map(Some).ok_or_else(|| {
            let found = found(value.get_ref());
            let text = format!(
                "`{key}` in [{}] is {found}; allowed is {allowed}",
                self.name
            );
            self.source.wrong(value.span().start, &text)
        })
    }

    fn get(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        self.table?.get(key)
    }
}

impl Source<'_> {
    fn wrong(self, start: usize, text: &str) -> SettingsRefused {
        let before = self.text.get(..start).unwrap_or(self.text);
        SettingsRefused::Wrong {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            text: text.to_owned(),
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Says what a value is, to a person.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

fn unknown_key(key: &str, section: Option<&str>, sections: &[(&str, &[&str])]) -> String {
    let here = section.map_or("at the top".to_owned(), |name| format!("in [{name}]"));
    let home = sections.iter().find(|(_, keys)| keys.contains(&key));
    let keys = sections
        .iter()
        .find(|(name, _)| Some(*name) == section)
        .map_or(&["version"][..], |(_, keys)| keys);
    let hint = match (home, most_alike(key, keys)) {
        (Some((name, _)), _) => format!("it belongs to [{name}]"),
        (None, Some(alike)) => format!("did you mean `{alike}`?"),
        (None, None) => format!("there is `{}`", keys.join("`, `")),
    };
    format!("there is no key `{key}` {here}; {hint}")
}

fn unknown_section(name: &str, sections: &[(&str, &[&str])]) -> String {
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    let hint = match most_alike(name, &names) {
        Some(alike) => format!("did you mean [{alike}]?"),
        None => format!("there is [{}]", names.join("], [")),
    };
    format!("there is no section [{name}]; {hint}")
}

fn most_alike<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
