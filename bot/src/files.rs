//! `/files` and `/find`: what is in the tree, read from the tree.
//!
//! What is never synced is never shown either: a secret that lies in the folder does not leave it by this way.

use std::sync::Arc;
use std::time::Duration;

use shared::ignore::{RULES_BYTES_MAX, RULES_FILE, Rules};
use shared::path::RelPath;
use shared::words::{count, plain, size};

use crate::port::{Listed, Port};
use crate::text::{Body, Part, head};

/// Most lines of a listing.
const LISTED_MAX: usize = 60;
/// Most names, and most lines in files, that are found.
const FOUND_MAX: usize = 15;
/// How long is looked.
const FIND_TIME: Duration = Duration::from_secs(4);
/// Longest file that is read, in bytes.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Most bytes that are read for one question.
const READ_BYTES_ALL: u64 = 256 << 20;
/// Characters that are shown of a line.
const LINE_CHARS_MAX: usize = 160;
/// What is read as text.
const TEXTS: [&str; 9] = [
    "md", "txt", "json", "jsonl", "csv", "org", "toml", "yaml", "yml",
];

/// Lists a folder.
pub(crate) async fn list(port: &Arc<dyn Port>, folder: &str) -> Body {
    let (port, folder) = (Arc::clone(port), folder.trim_matches('/').to_owned());
    let listed = tokio::task::spawn_blocking(move || listing(&*port, &folder)).await;
    listed.unwrap_or_else(|_| Body::plain("The folder cannot be read now."))
}

fn listing(port: &dyn Port, folder: &str) -> Body {
    let path = match folder {
        "" => None,
        folder => match RelPath::parse(folder) {
            Ok(path) => Some(path),
            Err(error) => {
                return Body::plain(format!(
                    "\"{}\" is no path in the tree: {error}.",
                    head(&plain(folder), 200)
                ));
            }
        },
    };
    let shown = path.as_ref().map_or("the tree".to_owned(), |path| {
        format!("\"{}\"", plain(path.as_str()))
    });
    let rules = rules(port);
    if path
        .as_ref()
        .is_some_and(|path| rules.ignores_within(path, true))
    {
        return Body::plain(format!("{shown} is not synced, so it is not shown."));
    }
    let mut entries = match port.list(path.as_ref()) {
        Ok(entries) => entries,
        Err(error) => return Body::plain(format!("{shown} cannot be listed: {error}.")),
    };
    entries.retain(|entry| {
        at(path.as_ref(), &entry.name).is_some_and(|path| !rules.ignores(&path, entry.is_dir))
    });
    entries.sort_by(|a, b| b.is_dir.cmp(&a.is_dir).then_with(|| a.name.cmp(&b.name)));
    let mut lines: Vec<String> = entries.iter().take(LISTED_MAX).map(entry_line).collect();
    if entries.len() > LISTED_MAX {
        lines.push(format!("… and {} more", entries.len() - LISTED_MAX));
    }
    let head = format!("{shown}: {}", count(entries.len() as u64, "name"));
    match lines.is_empty() {
        true => Body::plain(head),
        false => Body::plain(head).and(Part::Mono(lines.join("\n"))),
    }
}

fn entry_line(entry: &Listed) -> String {
    match entry.is_dir {
        true => format!("{}/", plain(&entry.name)),
        false => format!("{}  {}", plain(&entry.name), size(entry.len)),
    }
}

/// Finds names and lines that have all the words in them.
pub(crate) async fn find(port: &Arc<dyn Port>, words: &str) -> Body {
    let words: Vec<String> = words
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if words.is_empty() {
        return Body::plain("Say what: /find offer 2026");
    }
    let port = Arc::clone(port);
    let found = tokio::task::spawn_blocking(move || Search::new(&*port, words).run()).await;
    found.unwrap_or_else(|_| Body::plain("The tree cannot be read now."))
}

struct Search<'a> {
    port: &'a dyn Port,
    words: Vec<String>,
    rules: Rules,
    names: Vec<String>,
    lines: Vec<String>,
    looked: u64,
    read: u64,
    cut: bool,
}

impl<'a> Search<'a> {
    fn new(port: &'a dyn Port, words: Vec<String>) -> Self {
        Self {
            port,
            words,
            rules: rules(port),
            names: Vec::new(),
            lines: Vec::new(),
            looked: 0,
            read: 0,
            cut: false,
        }
    }

    fn run(mut self) -> Body {
        let end = self.port.now().after(FIND_TIME);
        let mut folders = vec![None];
        while let Some(folder) = folders.pop() {
            let Ok(mut entries) = self.port.list(folder.as_ref()) else {
                continue;
            };
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                let Some(path) = at(folder.as_ref(), &entry.name) else {
                    continue;
                };
                if self.rules.ignores(&path, entry.is_dir) {
                    continue;
                }
                self.looked += 1;
                if self.has_all(path.name()) {
                    self.names.push(plain(path.as_str()));
                }
                if entry.is_dir {
                    // What the bot itself writes is no answer.
                    if path.name() != ".journal" {
                        folders.push(Some(path));
                    }
                } else if entry.len <= READ_BYTES_MAX
                    && is_text(&entry.name)
                    && self.lines.len() < FOUND_MAX
                {
                    self.read(&path);
                }
                if self.port.now() >= end
                    || self.read > READ_BYTES_ALL
                    || self.names.len() >= FOUND_MAX
                {
                    self.cut = true;
                    return self.words();
                }
            }
        }
        self.words()
    }

    fn read(&mut self, path: &RelPath) {
        let Ok(bytes) = self.port.read(path, 0, READ_BYTES_MAX) else {
            return;
        };
        self.read += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        for (number, line) in (1..).zip(text.lines()) {
            if self.lines.len() < FOUND_MAX && self.has_all(line) {
                let line = head(&plain(line.trim()), LINE_CHARS_MAX);
                self.lines
                    .push(format!("{}:{number}: {line}", plain(path.as_str())));
            }
        }
    }

    fn has_all(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.words.iter().all(|word| text.contains(word))
    }

    fn words(self) -> Body {
        let looked = count(self.looked, "name");
        if self.names.is_empty() && self.lines.is_empty() {
            let so_far = if self.cut {
                " in the time there was"
            } else {
                ""
            };
            return Body::plain(format!("Nothing found{so_far}: {looked} looked at."));
        }
        let mut body = Body::default();
        for (title, found) in [("Names", self.names), ("Lines", self.lines)] {
            if !found.is_empty() {
                body = body
                    .and(Part::Bold(title.to_owned()))
                    .and(Part::Mono(found.join("\n")));
            }
        }
        match self.cut {
            true => body.and(Part::Plain(format!(
                "There may be more: {looked} looked at."
            ))),
            false => body,
        }
    }
}

fn at(folder: Option<&RelPath>, name: &str) -> Option<RelPath> {
    match folder {
        Some(folder) => folder.join(name).ok(),
        None => RelPath::parse(name).ok(),
    }
}

fn is_text(name: &str) -> bool {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| TEXTS.contains(&ending.as_str()))
}

/// Returns the rules of the tree; the built-in ones alone when its own cannot be read.
fn rules(port: &dyn Port) -> Rules {
    let own = RelPath::parse(RULES_FILE).ok().and_then(|path| {
        let bytes = port.read(&path, 0, RULES_BYTES_MAX as u64).ok()?;
        Rules::parse(std::str::from_utf8(&bytes).ok()?).ok()
    });
    own.unwrap_or_default()
}
