use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

fn pusher() -> Settings {
    Settings {
        node: NodeSettings {
            name: "vm".to_owned(),
            root: PathBuf::from("/home/me/knowledge"),
        },
        sync: SyncSettings::default(),
        link: Link::Listen {
            listen: LISTEN_DEFAULT.parse().unwrap(),
            advertise: None,
        },
        rate_limit: None,
        prefer: Prefer::default(),
        kept: KeptSettings::default(),
        mirror: MirrorSettings::default(),
        bot_api: BOT_API_DEFAULT.to_owned(),
        dashboard: Some(DASHBOARD_DEFAULT),
    }
}

fn receiver() -> Settings {
    Settings {
        node: NodeSettings {
            name: "mac".to_owned(),
            root: PathBuf::from("/Users/me/knowledge"),
        },
        link: Link::Dial {
            peer: "vm.example.org:9797".parse().unwrap(),
        },
        ..pusher()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sample(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// The value that the comment above a key claims as its default.
fn claimed(text: &str, key: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with(&format!("{key} = ")))
        .unwrap();
    let claim = lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with('#'));
    let claim = claim
        .copied()
        .find_map(|line| line.split_once("Default: "))
        .unwrap()
        .1;
    claim.trim_end_matches('.').to_owned()
}

#[test]
fn samples_are_what_a_new_node_gets() {
    for (name, settings) in [("pusher.toml", pusher()), ("receiver.toml", receiver())] {
        let text = sample(name);
        assert_eq!(Settings::parse(&text, name).unwrap(), settings);
        assert_eq!(settings.render(), text, "{name}");
    }
}

#[test]
fn samples_claim_the_defaults() {
    for name in ["pusher.toml", "receiver.toml"] {
        let text = sample(name);
        for key in [
            "mode",
            "interval",
            "delete_percent",
            "delete_min",
            "rewrite_percent",
            "rewrite_min",
            "age",
            "tree_percent",
            "bytes_min",
            "age_min",
        ] {
            let line = format!("{key} = {}", claimed(&text, key));
            assert!(
                text.lines().any(|it| it == line),
                "{name} does not say: {line}"
            );
            // Without the line the value is the same.
            let without = text.replace(&format!("\n{line}\n"), "\n");
            assert_ne!(without, text);
            let same = Settings::parse(&without, name).unwrap();
            assert_eq!(same, Settings::parse(&text, name).unwrap(), "{name}: {key}");
        }
    }
}

#[test]
fn what_a_sample_has_as_a_comment_can_be_switched_on() {
    let text = sample("pusher.toml")
        .replace("# debounce = ", "debounce = ")
        .replace("# advertise = ", "advertise = ")
        .replace("# rate_limit = ", "rate_limit = ");
    let settings = Settings::parse(&text, "pusher.toml").unwrap();
    assert_eq!(settings.sync.debounce, Some(Duration::from_secs(30)));
    let advertise = Some("vm.example.org:9797".parse().unwrap());
    assert!(matches!(settings.link, Link::Listen { advertise: it, .. } if it == advertise));
    assert_eq!(settings.rate_limit, Some(2 << 20));
    let text = sample("receiver.toml").replace("# rate_limit = ", "rate_limit = ");
    let settings = Settings::parse(&text, "receiver.toml").unwrap();
    assert_eq!(settings.rate_limit, Some(2 << 20));
}

#[test]
fn wrong_samples_say_what_is_wrong() {
    let mut count = 0;
    for entry in fs::read_dir(folder().join("wrong")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# expect: "));
        let refused = Settings::parse(&text, &name).unwrap_err();
        assert_eq!(Some(refused.to_string().as_str()), expected);
        assert_eq!(refused.exit(), exit::DAEMON_CONFIG);
        count += 1;
    }
    assert!(count >= 15);
}

#[test]
fn everything_that_is_rendered_reads_back() {
    let full = Settings {
        node: NodeSettings {
            name: "büro-2.b_c".to_owned(),
            root: PathBuf::from("/a \"quoted\"\\ 'root'\nof\ttwo lines"),
        },
        sync: SyncSettings {
            mode: Mode::OneWayReplica,
            interval: Duration::from_millis(1500),
            debounce: Some(Duration::from_secs(90)),
            conflicts: ConflictSettings {
                copy: vec!["a \"b\"".to_owned()],
                hold: vec!["/vault/".to_owned(), "*.key".to_owned()],
                merge: vec!["*.jsonl".to_owned()],
            },
            guard: Limits {
                delete_percent: 100,
                delete_min: 0,
                rewrite_percent: 1,
                rewrite_min: 7,
            },
        },
        link: Link::Listen {
            listen: "[::1]:0".parse().unwrap(),
            advertise: Some("[2001:db8::7]:9797".parse().unwrap()),
        },
        rate_limit: Some(3 << 19),
        prefer: Prefer::Side(NodeSide::Receiver),
        kept: KeptSettings {
            age: Duration::from_secs(7200),
            tree_percent: 0,
            bytes_min: 0,
            age_min: Duration::ZERO,
        },
        mirror: MirrorSettings {
            target: Some(MirrorTarget::Drive {
                name: "a \"b\"".to_owned(),
                shared_drive: Some("0A_b-c".to_owned()),
            }),
            after: Duration::from_secs(300),
            poll: Duration::from_secs(5),
            budget: 7,
            api: "http://127.0.0.1:8080".to_owned(),
        },
        bot_api: "http://localhost:8081/a path's end".replace(' ', "-"),
        dashboard: None,
    };
    let mut folder = pusher();
    folder.mirror.target = Some(MirrorTarget::Folder("/mnt/a \"b\"".into()));
    for settings in [full, folder, pusher(), receiver()] {
        assert_eq!(
            Settings::parse(&settings.render(), "rendered").unwrap(),
            settings
        );
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = "version = 1\nnode = { name = 'vm', root = '/home/me/knowledge' }\n\
                link.listen = '0.0.0.0:9797'\n";
    assert_eq!(Settings::parse(text, "small").unwrap(), pusher());
    assert_eq!(pusher().link.side(), NodeSide::Pusher);
    assert_eq!(receiver().link.side(), NodeSide::Receiver);
}

#[test]
fn a_short_age_shortens_the_minimum() {
    let text = sample("pusher.toml")
        .replace("age = \"30d\"", "age = \"2h\"")
        .replace("age_min = \"24h\"\n", "");
    let kept = Settings::parse(&text, "pusher.toml").unwrap().kept;
    assert_eq!(
        (kept.age, kept.age_min),
        (Duration::from_secs(7200), Duration::from_secs(7200))
    );
}

#[test]
fn new_settings_never_replace_old_ones() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::new(temp.path().to_owned());
    assert!(matches!(
        Settings::read(&home),
        Err(SettingsRefused::Missing { .. })
    ));

    // A leftover of an interrupted attempt is in nobody's way.
    fs::write(temp.path().join(".config.toml.new"), "half").unwrap();
    pusher().write_new(&home).unwrap();
    assert_eq!(Settings::read(&home).unwrap(), pusher());
    assert_eq!(
        fs::metadata(home.settings_file()).unwrap().mode() & 0o7777,
        0o600
    );

    assert!(matches!(
        receiver().write_new(&home),
        Err(WriteRefused::Exists { .. })
    ));
    assert_eq!(Settings::read(&home).unwrap(), pusher());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn settings_that_could_not_be_read_are_not_written() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let temp = tempfile::tempdir().unwrap();
    let home = Home::new(temp.path().to_owned());
    let check = |name: &str, root: PathBuf| {
        let node = NodeSettings {
            name: name.to_owned(),
            root,
        };
        let refused = Settings { node, ..pusher() }.write_new(&home).unwrap_err();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        refused
    };
    assert!(matches!(
        check("a/b", PathBuf::from("/r")),
        WriteRefused::Wrong(_)
    ));
    assert!(matches!(
        check("", PathBuf::from("/r")),
        WriteRefused::Wrong(_)
    ));
    assert!(matches!(
        check("vm", PathBuf::from("r")),
        WriteRefused::Wrong(_)
    ));
    let bytes = PathBuf::from(OsString::from_vec(b"/r\xff".to_vec()));
    assert!(matches!(check("vm", bytes), WriteRefused::NotText));
}
