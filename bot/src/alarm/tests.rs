use shared::control::{
    BotStatus, LeaseStatus, NodeSide, NodeStatus, PeerStatus, Problem, ProcessStatus, Role, SCHEMA,
    SyncCounts, SyncStatus,
};
use shared::hash::SetHash;
use shared::path::RelPath;
use shared::utc::UtcMs;

use super::*;

#[test]
fn a_batch_can_be_confirmed_from_afar_and_a_folder_not() {
    let (about, buttons) = halted(
        "halted.mass_delete",
        "layer-sync confirm 3f9a, or `layer-sync confirm 3f9a --undo`",
    );
    assert_eq!(about, "halted/halted.mass_delete/3f9a");
    let acts: Vec<_> = buttons.into_iter().map(|button| button.act).collect();
    let confirm = |undo| Act::Confirm {
        batch: "3f9a".to_owned(),
        undo,
    };
    assert_eq!(acts, [confirm(false), confirm(true)]);
    let (about, buttons) = halted("halted.root", "bring it back, or `layer-sync confirm root`");
    assert_eq!((about.as_str(), buttons.len()), ("halted/halted.root", 0));
    assert!(halted("halted.disk", "mend the disk").1.is_empty());
}

/// A pair in which nothing is wrong, as the primary sees it.
fn well() -> Status {
    Status {
        schema: SCHEMA,
        state: Health::Healthy,
        now: UtcMs(0),
        problems: Vec::new(),
        node: NodeStatus {
            id: "vm".to_owned(),
            side: NodeSide::Pusher,
            role: Role::Primary,
            epoch: 1,
            version: "1".to_owned(),
            root: "/tree".to_owned(),
        },
        lease: LeaseStatus::default(),
        peer: PeerStatus {
            id: "mac".to_owned(),
            state: PeerState::Linked,
            rtt_ms: None,
            last_seen_ago_ms: Some(0),
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
        bot: Some(BotStatus::default()),
        process: ProcessStatus {
            cpu_pct: 0.0,
            rss_bytes: 0,
            net_bytes_min: 0,
            uptime_ms: 0,
            restarts: 0,
        },
    }
}

fn problem(code: &str, severity: Health) -> Problem {
    Problem {
        code: code.to_owned(),
        severity,
        path: None,
        text: format!("about {code}"),
        fix: format!("mend {code}"),
    }
}

/// Returns what each piece of news is about.
fn about(own: &Status, peer: Option<&Status>) -> Vec<String> {
    let news = news(own, peer, &[], |_| false);
    news.into_iter().flat_map(|news| news.about).collect()
}

#[test]
fn nothing_is_news_while_nothing_is_wrong() {
    assert!(about(&well(), Some(&well())).is_empty());
    let mut held = well();
    held.problems
        .push(problem("held.database_open", Health::Held));
    assert!(
        about(&held, None).is_empty(),
        "what mends itself is told when somebody asks"
    );
}

#[test]
fn a_machine_that_is_away_is_news_after_ten_minutes() {
    let mut status = well();
    status.peer.state = PeerState::Unlinked;
    status.peer.last_seen_ago_ms = Some(AWAY_MS - 1);
    assert!(about(&status, None).is_empty());
    status.peer.last_seen_ago_ms = Some(AWAY_MS);
    assert_eq!(about(&status, None), ["peer"]);
    // Never seen since the start: the start counts.
    status.peer.last_seen_ago_ms = None;
    assert!(about(&status, None).is_empty());
    status.process.uptime_ms = AWAY_MS;
    assert_eq!(about(&status, None), ["peer"]);
    // One that was never paired is not away.
    status.peer.state = PeerState::Unpaired;
    assert!(about(&status, None).is_empty());
}

#[test]
fn safe_mode_of_either_node_is_news_and_says_where() {
    let mut away = well();
    away.node.id = "mac".to_owned();
    away.problems
        .push(problem("degraded.safe_mode", Health::Degraded));
    let news = news(&well(), Some(&away), &[], |_| false);
    assert_eq!(news.len(), 1);
    let text = news[0].body.as_plain();
    assert!(
        text.starts_with("mac is in safe mode: about degraded.safe_mode"),
        "{text}"
    );
    let mut halted = well();
    halted
        .problems
        .push(problem("halted.safe_mode", Health::Halted));
    assert_eq!(
        about(&halted, None),
        ["safe_mode/vm/mend halted.safe_mode"],
        "told once"
    );
}

#[test]
fn a_rival_is_news_when_it_stays() {
    let mut status = well();
    for (rivals, state, news) in [
        (2, BotState::Conflict, 0),
        (3, BotState::Conflict, 1),
        (3, BotState::Polling, 0),
    ] {
        status.bot = Some(BotStatus {
            rivals,
            state,
            ..BotStatus::default()
        });
        assert_eq!(about(&status, None).len(), news, "{rivals} {state:?}");
    }
}

#[test]
fn many_conflicts_are_told_in_one_message_and_each_once() {
    let conflict = |number: u32| ConflictView {
        path: RelPath::parse("a").unwrap(),
        copy: RelPath::parse(&format!("a {number}")).unwrap(),
        held: false,
        lost: "mac".to_owned(),
        since: UtcMs(0),
        fix: String::new(),
    };
    let three: Vec<_> = (0..3).map(conflict).collect();
    let told = news(&well(), None, &three, |_| false);
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|news| news.buttons.len() == 3));
    let four: Vec<_> = (0..4).map(conflict).collect();
    let told = news(&well(), None, &four, |_| false);
    assert_eq!(
        (told.len(), told[0].about.len(), told[0].buttons.len()),
        (1, 4, 0)
    );
    // What was told goes on, with nothing to say.
    let known = news(&well(), None, &four, |about| about != "conflict/a 3");
    let new: Vec<_> = known.iter().filter(|news| news.body.units() > 0).collect();
    assert_eq!(
        (known.len(), new.len(), new[0].about.as_slice()),
        (4, 1, &["conflict/a 3".to_owned()][..])
    );
}

#[test]
fn what_cannot_be_known_is_not_over() {
    let check = |about: &str, own: &Status, peer: Option<&Status>, over: bool| {
        assert_eq!(is_over(about, own, peer), over, "{about}");
    };
    let (well, mut apart, mut early) = (well(), well(), well());
    apart.peer.state = PeerState::Unlinked;
    early.sync.state = SyncState::Starting;
    for about in ["conflict/a b", "halted/halted.mass_delete/1a"] {
        check(about, &well, None, true);
        check(about, &apart, None, false);
        check(about, &early, None, false);
    }
    check("safe_mode/mac/x", &apart, None, false);
    check("safe_mode/mac/x", &well, Some(&well), true);
    check("peer", &well, None, true);
    check("rivals", &apart, None, true);
}
