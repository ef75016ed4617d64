//! What is shipped beside the program: samples of settings, service files, the README's commands.

use std::process::Command;
use std::{fs, io};

use config::settings::Settings;
use shared::control::{NodeSide, exit};

use crate::repository::{expect_none, read, read_toml, root};

const UNIT: &str = "systemd/layer-sync-pusher.service";
const AGENT: &str = "launchd/com.97layer.layer-sync.receiver.plist";

#[test]
fn the_samples_are_settings() {
    for (name, side) in [
        ("config/pusher.toml", NodeSide::Pusher),
        ("config/receiver.toml", NodeSide::Receiver),
    ] {
        let settings =
            Settings::parse(&read(name), name).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(
            settings.link.side(),
            side,
            "{name} is the sample of a {}",
            side.name()
        );
    }
}

#[test]
fn deny_toml_says_what_may_come_in() {
    let deny = read_toml("deny.toml");
    for (section, key) in [
        ("licenses", "allow"),
        ("bans", "deny"),
        ("graph", "targets"),
    ] {
        let list = deny
            .get(section)
            .and_then(|section| section.get(key)?.as_array());
        assert!(
            list.is_some_and(|list| !list.is_empty()),
            "deny.toml: `{key}` in [{section}] is an empty list"
        );
    }
    let sources = &deny["sources"];
    for key in ["unknown-registry", "unknown-git"] {
        assert_eq!(
            sources[key].as_str(),
            Some("deny"),
            "deny.toml: `{key}` in [sources] has to be \"deny\""
        );
    }
}

/// Reads a unit as (section, key, value), each line in its place.
fn unit() -> Vec<(String, String, String)> {
    let (mut section, mut rows) = (String::new(), Vec::new());
    for (number, line) in (1..).zip(read(UNIT).lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            Some(name) => section = name.to_owned(),
            None => {
                let (key, value) = line
                    .split_once('=')
                    .unwrap_or_else(|| panic!("{UNIT}:{number}: not `Key=value`"));
                let plain = key.chars().all(|c| c.is_ascii_alphanumeric());
                assert!(
                    plain && !section.is_empty(),
                    "{UNIT}:{number}: no such key is known outside a section"
                );
                rows.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
    }
    rows
}

#[test]
fn the_unit_starts_the_pusher_and_gives_it_no_more_than_it_needs() {
    let rows = unit();
    let check = |section: &str, key: &str, fits: &dyn Fn(&str) -> bool, to_do: &str| {
        let mut values = rows
            .iter()
            .filter(|(of, name, _)| of == section && name == key)
            .map(|(.., value)| value);
        assert!(
            values.any(|value| fits(value)),
            "{UNIT}: `{key}` in [{section}]: {to_do}"
        );
    };
    check(
        "Service",
        "ExecStart",
        &|value| value.starts_with('/') && value.ends_with(" pusher"),
        "the program, whole path, and `pusher`",
    );
    check(
        "Service",
        "Restart",
        &|value| value == "on-failure",
        "on-failure: a stop that was asked for stays one",
    );
    check("Service", "NoNewPrivileges", &|value| value == "yes", "yes");
    check(
        "Service",
        "CapabilityBoundingSet",
        &str::is_empty,
        "empty: it needs no capability",
    );
    check(
        "Service",
        "User",
        &|value| !value.is_empty() && value != "root",
        "an ordinary user",
    );
    check(
        "Service",
        "ProtectSystem",
        &|value| value != "no",
        "the system is not its business",
    );
    check(
        "Install",
        "WantedBy",
        &|value| !value.is_empty(),
        "without it `enable` does nothing",
    );
    let codes = [
        exit::DAEMON_USAGE,
        exit::DAEMON_PERMISSION,
        exit::DAEMON_CONFIG,
    ]
    .map(|code| code.to_string());
    let lists_all = |value: &str| {
        codes
            .iter()
            .all(|code| value.split_whitespace().any(|listed| listed == code))
    };
    check(
        "Service",
        "RestartPreventExitStatus",
        &lists_all,
        &format!("{codes:?}, after which a restart ends the same way"),
    );
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("layer-sync-pusher.service");
    // Any program that is there: the question is the unit, not whether layer-sync is installed.
    let lines = read(UNIT);
    let lines = lines.lines().map(|line| {
        if line.starts_with("ExecStart=") {
            "ExecStart=/bin/true"
        } else {
            line
        }
    });
    fs::write(&copy, lines.collect::<Vec<_>>().join("\n") + "\n").expect("the copy");
    let asked = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output();
    match asked {
        Ok(said) => {
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            let about_the_unit: Vec<String> = text
                .lines()
                .filter(|line| line.contains("layer-sync-pusher"))
                .map(str::to_owned)
                .collect();
            expect_none(
                &about_the_unit,
                &format!("systemd-analyze does not like {UNIT}:"),
            );
            if !said.status.success() {
                println!(
                    "systemd-analyze cannot work here, so the keys alone were checked: {text}"
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("there is no systemd-analyze here, so the keys alone were checked");
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

/// A value of a property list.
#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Value>),
    Dict(Vec<(String, Value)>),
}

impl Value {
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(pairs) => pairs
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Reads a property list. Tags without attributes are enough: a service file has no others.
struct Plist<'a> {
    rest: &'a str,
}

impl Plist<'_> {
    fn parse(text: &str) -> Result<Value, String> {
        let start = text
            .find("<plist version=\"1.0\">")
            .ok_or("there is no <plist version=\"1.0\">")?;
        let head = &text[..start];
        if !head.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>")
            || !head.contains("<!DOCTYPE plist ")
        {
            return Err("it does not begin as a property list does".to_owned());
        }
        let mut comments = text.split("<!--").skip(1);
        if !comments.all(|from| {
            from.split_once("-->")
                .is_some_and(|(comment, _)| !comment.contains("--"))
        }) {
            return Err("a comment has `--` in it, or no end".to_owned());
        }
        let mut plist = Plist {
            rest: &text[start + "<plist version=\"1.0\">".len()..],
        };
        let tag = plist.open()?;
        let value = plist.value(&tag)?;
        plist.close("plist")?;
        if plist.rest.trim().is_empty() {
            Ok(value)
        } else {
            Err(format!("more behind the end: {}", plist.rest))
        }
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
        while let Some((_, later)) = self
            .rest
            .strip_prefix("<!--")
            .and_then(|rest| rest.split_once("-->"))
        {
            self.rest = later.trim_start();
        }
    }

    /// Takes the next tag, without its brackets.
    fn open(&mut self) -> Result<String, String> {
        self.skip();
        let near = || self.rest.chars().take(40).collect::<String>();
        let (tag, later) = self
            .rest
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .ok_or_else(|| format!("no tag at {:?}", near()))?;
        self.rest = later;
        Ok(tag.to_owned())
    }

    fn close(&mut self, tag: &str) -> Result<(), String> {
        let found = self.open()?;
        if found == format!("/{tag}") {
            Ok(())
        } else {
            Err(format!("<{found}> where </{tag}> belongs"))
        }
    }

    fn text(&mut self, tag: &str) -> Result<String, String> {
        let (text, later) = self
            .rest
            .split_once('<')
            .ok_or_else(|| format!("<{tag}> has no end"))?;
        self.rest = &self.rest[self.rest.len() - later.len() - 1..];
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
        if text
            .match_indices('&')
            .any(|(at, _)| !known.iter().any(|entity| text[at..].starts_with(entity)))
        {
            return Err(format!("a bare `&` in {text:?}"));
        }
        self.close(tag)?;
        Ok(text.to_owned())
    }

    fn value(&mut self, tag: &str) -> Result<Value, String> {
        match tag {
            "string" => Ok(Value::Text(self.text(tag)?)),
            "integer" => self
                .text(tag)?
                .parse()
                .map(Value::Number)
                .map_err(|error| error.to_string()),
            "true/" => Ok(Value::Flag(true)),
            "false/" => Ok(Value::Flag(false)),
            "array" => {
                let mut list = Vec::new();
                loop {
                    match &*self.open()? {
                        "/array" => return Ok(Value::List(list)),
                        tag => list.push(self.value(tag)?),
                    }
                }
            }
            "dict" => {
                let mut pairs: Vec<(String, Value)> = Vec::new();
                loop {
                    match &*self.open()? {
                        "/dict" => return Ok(Value::Dict(pairs)),
                        "key" => {
                            let key = self.text("key")?;
                            if pairs.iter().any(|(name, _)| *name == key) {
                                return Err(format!("{key} twice"));
                            }
                            let tag = self.open()?;
                            pairs.push((key, self.value(&tag)?));
                        }
                        other => return Err(format!("<{other}> where a <key> belongs")),
                    }
                }
            }
            other => Err(format!("<{other}> is no value")),
        }
    }
}

#[test]
fn the_agent_starts_the_receiver() {
    let agent = Plist::parse(&read(AGENT)).unwrap_or_else(|wrong| panic!("{AGENT}: {wrong}"));
    let file = AGENT
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_suffix(".plist"))
        .expect("a file's name");
    let check = |key: &str, expected: &Value, to_do: &str| {
        assert_eq!(agent.get(key), Some(expected), "{AGENT}: {key}: {to_do}");
    };
    check(
        "Label",
        &Value::Text(file.to_owned()),
        "the file's name without .plist",
    );
    check("RunAtLoad", &Value::Flag(true), "it starts at login");
    let after_failure = Value::Dict(vec![("SuccessfulExit".to_owned(), Value::Flag(false))]);
    check(
        "KeepAlive",
        &after_failure,
        "a stop that was asked for stays one",
    );
    check(
        "ProcessType",
        &Value::Text("Standard".to_owned()),
        "others are throttled",
    );
    match agent.get("ProgramArguments") {
        Some(Value::List(words)) => {
            let [Value::Text(program), Value::Text(verb)] = &words[..] else {
                panic!("{AGENT}: {words:?}")
            };
            assert!(
                program.starts_with('/'),
                "launchd looks nothing up: {program} has to be a whole path"
            );
            assert_eq!(verb, "receiver");
        }
        other => panic!("{AGENT}: ProgramArguments is {other:?}, and has to be a list"),
    }
    for key in ["ThrottleInterval", "ExitTimeOut"] {
        assert!(
            matches!(agent.get(key), Some(Value::Number(1..))),
            "{AGENT}: {key} is a number of seconds"
        );
    }
}

#[test]
fn what_service_install_makes_of_the_agent_is_a_property_list() {
    let agent = Plist::parse(&read("cli/src/verbs/service/agent.plist")).expect("a property list");
    for key in [
        "Label",
        "KeepAlive",
        "ThrottleInterval",
        "ExitTimeOut",
        "SoftResourceLimits",
    ] {
        assert!(agent.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(
        agent.get("ProcessType"),
        Some(&Value::Text("Standard".into()))
    );
}

#[test]
fn a_broken_agent_is_found() {
    let whole = read(AGENT);
    let check = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        assert!(
            Plist::parse(&whole.replacen(from, to, 1)).is_err(),
            "{from:?} as {to:?} was not found"
        );
    };
    check("</array>", "");
    check("<true/>", "<true>");
    check("<key>Label</key>", "");
    check("<key>RunAtLoad</key>", "<key>Label</key>");
    check("<string>receiver</string>", "<string>a & b</string>");
    check("</plist>", "</plist><dict>");
    check("<integer>5</integer>", "<integer>five</integer>");
    check("<!-- The file's", "<!-- The -- file's");
    check("</dict>", "</dict></dict>");
}

/// Returns the lines inside the code blocks of a Markdown text.
fn code_lines(markdown: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in markdown.lines().map(str::trim) {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn the_readme_and_the_ci_run_the_same_tests() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    let is_test = |line: &&str| {
        ["cargo test", "cargo nextest"]
            .iter()
            .any(|command| line.starts_with(command))
    };
    let in_readme: Vec<&str> = code_lines(&readme).into_iter().filter(is_test).collect();
    let [command] = &in_readme[..] else {
        panic!(
            "README.md has one code block with one command that runs all tests, not {in_readme:?}"
        );
    };
    let runs = ci.lines().map(str::trim).any(|line| line == *command);
    assert!(
        runs,
        "README.md says `{command}`; .ci/run has to run that very line"
    );

    let shows = code_lines(&readme)
        .into_iter()
        .any(|line| line.starts_with("cargo run "));
    assert!(
        shows,
        "README.md has a command that shows the program at work, `cargo run …`, in a code block"
    );
}

#[test]
fn what_the_readme_points_to_is_there() {
    let readme = read("README.md");
    // What stands in backquotes and looks like a file of ours: a slash inside, or Markdown.
    let names = readme
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| !name.contains(char::is_whitespace));
    let ours = names.filter(|name| {
        let top = name.split('/').next().unwrap_or_default();
        let in_a_folder = name.contains('/') && !top.is_empty() && root().join(top).is_dir();
        (in_a_folder && top != "target") || name.ends_with(".md")
    });
    let missing: Vec<String> = ours
        .filter(|name| !root().join(name).exists())
        .map(str::to_owned)
        .collect();
    expect_none(&missing, "README.md names files that are not there:");
}

#[test]
fn every_fixture_is_used() {
    let tests = read("shared/src/wire/tests.rs");
    let unused = fs::read_dir(root().join("tests/fixtures/frames"))
        .expect("the fixtures")
        .flatten()
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".hex").unwrap_or(&name).to_owned();
            (!tests.contains(&format!("\"{stem}\" => "))).then_some(name)
        });
    expect_none(
        &unused.collect::<Vec<_>>(),
        "No test in shared/src/wire/tests.rs reads these fixtures:",
    );
}
