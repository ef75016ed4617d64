use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use config::Settings;
use config::settings::{KeptSettings, Link, NodeSettings, SyncSettings};
use shared::control::{
    BotStatus, Health, LeaseStatus, NodeSide, NodeStatus, PeerState, PeerStatus, Problem,
    ProcessStatus, Role, SyncCounts, SyncState, SyncStatus,
};
use shared::hash::SetHash;
use shared::lease::Prefer;

use super::*;

/// Later than anything that these tests write.
const NOW: UtcMs = UtcMs(4_102_444_800_000);

/// A home of a pusher that was just made, and its folder.
struct Made {
    // Removed with it.
    _dir: tempfile::TempDir,
    home: Home,
    root: PathBuf,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("there");
        let (home, root) = (Home::new(top.join("home")), top.join("root"));
        fs::create_dir(&root).expect("made");
        home.create().expect("made");
        let settings = Settings {
            node: NodeSettings {
                name: "vm".into(),
                root: root.clone(),
            },
            sync: SyncSettings::default(),
            link: Link::Listen {
                listen: "127.0.0.1:0".parse().expect("an address"),
                advertise: None,
            },
            rate_limit: None,
            prefer: Prefer::default(),
            kept: KeptSettings::default(),
            mirror: config::settings::MirrorSettings::default(),
            bot_api: config::settings::BOT_API_DEFAULT.to_owned(),
            dashboard: Some(config::settings::DASHBOARD_DEFAULT),
        };
        settings.write_new(&home).expect("written");
        Self {
            _dir: dir,
            home,
            root,
        }
    }

    fn examine(&self, asked: &Asked) -> Vec<Check> {
        examine(&self.home, "layer-sync", asked, NOW)
    }
}

fn find<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {checks:#?}"))
}

fn not_well(checks: &[Check]) -> Vec<&str> {
    let all = checks.iter().filter(|check| check.state != State::Ok);
    all.map(|check| check.name).collect()
}

fn status(side: NodeSide, peer: PeerState, version: &str, problems: &[(&str, Health)]) -> Status {
    let problem = |(code, severity): &(&str, Health)| Problem {
        code: (*code).into(),
        severity: *severity,
        path: None,
        text: format!("about {code}"),
        fix: format!("mend {code}"),
    };
    Status {
        schema: shared::control::SCHEMA,
        state: Health::Healthy,
        now: NOW,
        problems: problems.iter().map(problem).collect(),
        node: NodeStatus {
            id: side.name().into(),
            side,
            role: Role::Standby,
            epoch: 0,
            version: version.into(),
            root: "/r".into(),
        },
        lease: LeaseStatus::default(),
        peer: PeerStatus {
            id: "other".into(),
            state: peer,
            rtt_ms: Some(3),
            last_seen_ago_ms: None,
        },
        sync: SyncStatus {
            state: SyncState::UpToDate,
            counts: SyncCounts::default(),
            eta_ms: None,
            lag_ms: 0,
            in_sync: true,
            set_hash: SetHash::default(),
            last_change: None,
        },
        duties: Vec::new(),
        mirror: None,
        bot: None,
        process: ProcessStatus {
            cpu_pct: 0.0,
            rss_bytes: 0,
            net_bytes_min: 0,
            uptime_ms: 0,
            restarts: 0,
        },
    }
}

fn running(status: Status, peer: Option<Status>) -> Asked {
    Asked::Running {
        status: Box::new(status),
        peer: peer.map(|status| PeerSaid {
            status: Box::new(status),
            at: NOW,
        }),
    }
}

#[test]
fn a_new_home_waits_for_its_first_start() {
    let made = Made::new();
    let checks = made.examine(&Asked::NotRunning);
    assert_eq!(not_well(&checks), ["daemon", "partner"], "{checks:#?}");
    assert_eq!(find(&checks, "daemon").fix, "layer-sync pusher");
    assert!(!made.root.join(".layer-sync").exists(), "it makes nothing");
    assert!(!made.home.identity_dir().exists() && !made.home.state_dir().exists());
    assert!(
        mend(&made.home, &checks).is_empty(),
        "there is nothing to mend"
    );
}

#[test]
fn each_state_has_its_exit_code() {
    let check = |states: &[State], code: u8| {
        let checks = states
            .iter()
            .map(|state| Check::new("root", *state, "It is.", ""))
            .collect();
        let diagnosis = Diagnosis {
            schema: SCHEMA,
            checks,
            mended: Vec::new(),
        };
        assert_eq!(diagnosis.exit(), code, "{states:?}");
    };
    check(&[], 0);
    check(&[State::Ok, State::Ok], 0);
    check(&[State::Warning, State::Ok], 4);
    check(&[State::Wrong, State::Warning, State::Ok], 5);
}

#[test]
fn only_rights_that_are_ours_are_mended() {
    let made = Made::new();
    let secrets = made.home.secrets_file();
    let elsewhere = made.root.join("mine");
    fs::write(&elsewhere, "A=1\n").expect("written");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o644)).expect("set");
    std::os::unix::fs::symlink(&elsewhere, &secrets).expect("made");
    let checks = made.examine(&Asked::NotRunning);
    assert_eq!(find(&checks, "secrets").state, State::Wrong);
    let said = mend(&made.home, &checks);
    assert!(
        matches!(&said[..], [one] if one.starts_with("not mended")),
        "{said:?}"
    );
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&elsewhere), 0o644, "what a link leads to is not ours");

    fs::remove_file(&secrets).expect("removed");
    fs::write(&secrets, "A=1\n").expect("written");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).expect("set");
    let said = mend(&made.home, &made.examine(&Asked::NotRunning));
    assert_eq!(said, [format!("did chmod 600 {}", secrets.display())]);
    assert_eq!(mode(&secrets), 0o600);
}

#[test]
fn a_socket_is_removed_only_when_nobody_is_behind_it() {
    let made = Made::new();
    let socket = made.home.socket();
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let checks = made.examine(&Asked::NotRunning);
    assert!(find(&checks, "daemon").can_be_mended());
    // A daemon that is about to start holds the lock.
    let lock = crate::open::lock(&made.home).expect("locked");
    let said = mend(&made.home, &checks);
    assert!(said[0].starts_with("not mended"), "{said:?}");
    assert!(socket.exists());
    drop(lock);
    assert!(mend(&made.home, &checks)[0].starts_with("removed"));
    assert!(!socket.exists());
}

#[test]
fn what_a_daemon_says_about_the_link() {
    let made = Made::new();
    let check = |side, peer, state: Option<State>| {
        let checks = made.examine(&running(status(side, peer, "1", &[]), None));
        let found = checks.iter().find(|check| check.name == "link");
        assert_eq!(found.map(|check| check.state), state, "{checks:#?}");
    };
    check(NodeSide::Pusher, PeerState::Linked, Some(State::Ok));
    check(NodeSide::Pusher, PeerState::Greeting, Some(State::Ok));
    check(NodeSide::Pusher, PeerState::Unlinked, Some(State::Warning));
    check(NodeSide::Receiver, PeerState::Unlinked, Some(State::Wrong));
    check(NodeSide::Pusher, PeerState::Unpaired, None);
}

#[test]
fn what_the_other_node_says() {
    let made = Made::new();
    let ours = |problems| status(NodeSide::Pusher, PeerState::Linked, "1", problems);
    let theirs = |version, problems| {
        Some(status(
            NodeSide::Receiver,
            PeerState::Linked,
            version,
            problems,
        ))
    };
    let check = |ours: Status, theirs, state, text: &str| {
        let checks = made.examine(&running(ours, theirs));
        let found = find(&checks, "peer");
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.text.contains(text), "{found:?}");
    };
    let halted = [("halted.disk", Health::Halted)];
    check(ours(&[]), theirs("1", &[]), State::Ok, "version 1 as well");
    check(
        ours(&[]),
        theirs("2", &[]),
        State::Warning,
        "version 2, and this node 1",
    );
    check(
        ours(&[]),
        theirs("1", &halted),
        State::Wrong,
        "receiver is halted",
    );
    check(ours(&halted), theirs("1", &halted), State::Ok, "");
    check(ours(&[]), None, State::Warning, "does not say");
}

#[test]
fn one_node_is_primary_and_both_say_so() {
    let made = Made::new();
    let said = |side, role, epoch, holder| {
        let mut status = status(side, PeerState::Linked, "1", &[]);
        (status.node.role, status.node.epoch, status.lease.holder) = (role, epoch, holder);
        status
    };
    let (pusher, receiver) = (NodeSide::Pusher, NodeSide::Receiver);
    let check = |epoch, role, holder, state, text: &str| {
        let ours = said(pusher, Role::Primary, 7, Some(pusher));
        let theirs = said(receiver, role, epoch, holder);
        let checks = made.examine(&running(ours, Some(theirs)));
        let found = find(&checks, "lease");
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.text.contains(text), "{found:?}");
    };
    check(
        7,
        Role::Standby,
        Some(pusher),
        State::Ok,
        "The pusher is primary, epoch 7",
    );
    check(
        6,
        Role::Standby,
        Some(receiver),
        State::Warning,
        "the receiver has epoch 6",
    );
    check(8, Role::Primary, Some(receiver), State::Wrong, "Both nodes");

    let mut forced = said(receiver, Role::Primary, 1007, Some(receiver));
    forced.lease.forced = true;
    let checks = made.examine(&running(forced, None));
    assert_eq!(find(&checks, "lease").state, State::Warning);
}

#[test]
fn what_waits_for_a_person() {
    let made = Made::new();
    let check = |problems: &[(&str, Health)], held, state, fix: &str| {
        let mut status = status(NodeSide::Pusher, PeerState::Linked, "1", problems);
        status.sync.counts.held = held;
        let checks = made.examine(&running(status, None));
        let found = find(&checks, "sync");
        assert_eq!(found.state, state, "{found:?}");
        assert_eq!(found.fix, fix, "{found:?}");
    };
    check(&[], 0, State::Ok, "");
    check(
        &[
            ("held.special", Health::Held),
            ("halted.emptied", Health::Halted),
        ],
        1,
        State::Wrong,
        "mend halted.emptied",
    );
    check(
        &[("held.special", Health::Held)],
        1,
        State::Warning,
        "layer-sync status, layer-sync conflicts",
    );
    check(
        &[("degraded.paused", Health::Degraded)],
        0,
        State::Warning,
        "mend degraded.paused",
    );
    // The check of the watches speaks of it.
    check(&[("degraded.watch", Health::Degraded)], 0, State::Ok, "");
}

#[test]
fn a_daemon_that_gives_no_answer() {
    let made = Made::new();
    let checks = made.examine(&Asked::Deaf("it hung up".into()));
    let daemon = find(&checks, "daemon");
    assert_eq!((daemon.state, &*daemon.text), (State::Wrong, "It hung up."));
    assert!(!daemon.can_be_mended(), "its socket is in use");
}

#[test]
fn json_has_the_shape_of_the_schema() {
    let check = Check::warning("home", "It is.", "chmod 700 /h").mended_by(Mend::DeadSocket);
    let diagnosis = Diagnosis {
        schema: SCHEMA,
        checks: vec![check],
        mended: vec!["did it".into()],
    };
    let json = serde_json::to_string(&diagnosis).expect("plain data");
    let expected = r#"{"schema":1,"checks":[{"name":"home","state":"warning","text":"It is.","fix":"chmod 700 /h"}],"mended":["did it"]}"#;
    assert_eq!(json, expected);
}

#[test]
fn a_bot_is_looked_at_where_there_is_one() {
    let made = Made::new();
    let check = |bot: Option<BotStatus>, problems: &[(&str, Health)]| {
        let mut status = status(NodeSide::Pusher, PeerState::Linked, "1", problems);
        status.bot = bot;
        let checks = made.examine(&running(status, None));
        let found = checks.iter().find(|check| check.name == "bot");
        found.map(|check| (check.state, check.fix.clone()))
    };
    let bot = |owner| {
        Some(BotStatus {
            owner,
            ..BotStatus::default()
        })
    };
    let unreachable = [("degraded.bot_unreachable", Health::Degraded)];
    let warning = |fix: &str| Some((State::Warning, fix.to_owned()));
    assert_eq!(check(None, &[]), None);
    assert_eq!(check(bot(false), &[]), warning("layer-sync bot pair"));
    assert_eq!(
        check(bot(true), &unreachable),
        warning("mend degraded.bot_unreachable")
    );
    assert_eq!(check(bot(true), &[]), Some((State::Ok, String::new())));
}
