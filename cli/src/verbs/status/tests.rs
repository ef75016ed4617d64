use shared::control::{
    BotState, BotStatus, LeaseStatus, NodeSide, NodeStatus, PeerState, PeerStatus, Problem,
    ProcessStatus, Role, SCHEMA, SyncCounts, SyncStatus,
};
use shared::hash::SetHash;
use shared::utc::UtcMs;

use super::*;

/// A pair in which nothing is wrong.
pub(crate) fn healthy() -> Status {
    Status {
        schema: SCHEMA,
        state: Health::Healthy,
        now: UtcMs(1_795_382_045_000),
        problems: Vec::new(),
        node: NodeStatus {
            id: "mac".to_owned(),
            side: NodeSide::Receiver,
            role: Role::Primary,
            epoch: 42,
            version: "0.1.0".to_owned(),
            root: "/Users/me/knowledge".to_owned(),
        },
        lease: LeaseStatus {
            holder: Some(NodeSide::Receiver),
            since: Some(UtcMs(1_795_370_520_000)),
            forced: false,
            remaining_ms: Some(12_000),
            renewed_ago_ms: Some(3_000),
        },
        peer: PeerStatus {
            id: "vm".to_owned(),
            state: PeerState::Linked,
            rtt_ms: Some(38),
            last_seen_ago_ms: Some(1_240),
        },
        sync: SyncStatus {
            state: SyncState::UpToDate,
            counts: SyncCounts {
                files: 8_214,
                bytes: 1_395_864_371,
                ..SyncCounts::default()
            },
            eta_ms: None,
            lag_ms: 0,
            in_sync: true,
            set_hash: SetHash::default(),
            last_change: Some(UtcMs(1_795_382_038_000)),
        },
        duties: Vec::new(),
        mirror: None,
        bot: Some(BotStatus {
            state: BotState::Polling,
            inbox: 0,
            outbox: 0,
            last_update: Some(UtcMs(1_795_382_000_000)),
            rivals: 0,
            doubtful: 0,
            quarantined: 0,
            owner: true,
        }),
        process: ProcessStatus {
            cpu_pct: 0.31,
            rss_bytes: 63_963_136,
            net_bytes_min: 17_408,
            uptime_ms: 11_520_000,
            restarts: 0,
        },
    }
}

fn problem(severity: Health) -> Problem {
    Problem {
        code: "held.open_database".to_owned(),
        severity,
        path: Some("data/journal.sqlite".to_owned()),
        text: "A program has this database open.".to_owned(),
        fix: "close it, then `layer-sync why data/journal.sqlite`".to_owned(),
    }
}

fn troubled() -> Status {
    let mut status = healthy();
    status.state = Health::Held;
    status.problems = vec![problem(Health::Held)];
    status.sync.state = SyncState::Syncing;
    status.sync.in_sync = false;
    status.sync.eta_ms = Some(4_000);
    status.sync.last_change = Some(UtcMs(1_795_295_638_000));
    status.sync.counts.pending_files = 12;
    status.sync.counts.pending_bytes = 3_250_586;
    status.sync.counts.conflicts = 2;
    status.sync.counts.held = 1;
    status.peer.state = PeerState::Unlinked;
    status.peer.last_seen_ago_ms = Some(252_000);
    status.bot = Some(BotStatus {
        state: BotState::Unauthorised,
        inbox: 3,
        outbox: 1,
        last_update: None,
        rivals: 0,
        doubtful: 2,
        quarantined: 0,
        owner: false,
    });
    status.node.role = Role::Standby;
    status.lease = LeaseStatus {
        holder: Some(NodeSide::Pusher),
        ..LeaseStatus::default()
    };
    status
}

const COMMAND: &str = "layer-sync";

fn shown(status: &Status) -> String {
    block(status, shared::words::health_name(status.state), COMMAND)
}

#[test]
fn the_block_of_a_healthy_pair() {
    let expected = "\
97LAYER  healthy                                   mac, receiver (this)   22 Nov 21:14:05 UTC
Role     PRIMARY      epoch 42   since 18:02:00   lease 12 s left, renewed 3.0 s ago
Peer     vm           standby, direct QUIC 38 ms, seen 1.2 s ago
Sync     up to date   8,214 files 1.3 GiB in /Users/me/knowledge   last change 21:13:58
Bot      polling      last update 21:13:20, inbox 0, outbox 0
Self     cpu 0.3 %  rss 61.0 MiB  net 17.0 KiB/min  up 3 h 12 m  restarts 0
";
    assert_eq!(shown(&healthy()), expected);
}

#[test]
fn the_block_of_a_troubled_pair() {
    let expected = "\
97LAYER  held                                      mac, receiver (this)   22 Nov 21:14:05 UTC
Held     \"data/journal.sqlite\": A program has this database open.
         Next: close it, then `layer-sync why data/journal.sqlite`
Role     standby      epoch 42
Peer     vm           primary, not linked, seen 4 m 12 s ago
Sync     syncing      8,214 files 1.3 GiB in /Users/me/knowledge   12 waiting, 3.1 MiB, 4.0 s left   2 conflicts   \
1 held   last change 2026-11-21 21:13:58
Bot      unauthorised no update yet, inbox 3, outbox 1, 2 perhaps twice, no owner yet
Self     cpu 0.3 %  rss 61.0 MiB  net 17.0 KiB/min  up 3 h 12 m  restarts 0
";
    assert_eq!(shown(&troubled()), expected);
}

#[test]
fn only_the_first_problems_stand_in_the_block() {
    let mut status = troubled();
    status.problems = vec![problem(Health::Held); 13];
    let text = shown(&status);
    assert_eq!(text.matches("journal.sqlite\":").count(), 10);
    assert!(text.contains("\n         and 3 more problems: layer-sync status --check\nRole"));
}

#[test]
fn the_peer() {
    let mut status = healthy();
    let mut check = |side, state, seen, line: &str| {
        status.node.side = side;
        status.peer.state = state;
        status.peer.rtt_ms = None;
        status.peer.last_seen_ago_ms = seen;
        let text = shown(&status);
        assert!(text.contains(&format!("\nPeer     {line}\n")), "{text}");
    };
    let (pusher, receiver) = (NodeSide::Pusher, NodeSide::Receiver);
    check(
        pusher,
        PeerState::Unpaired,
        None,
        "none         never paired: layer-sync pair",
    );
    check(
        receiver,
        PeerState::Unpaired,
        None,
        "none         never paired: layer-sync join CODE --root DIR",
    );
    check(
        pusher,
        PeerState::Unlinked,
        None,
        "vm           primary, not linked, not seen yet",
    );
    check(
        receiver,
        PeerState::Greeting,
        Some(100),
        "vm           standby, linking, seen 0.1 s ago",
    );
    check(
        receiver,
        PeerState::Linked,
        Some(12_000),
        "vm           standby, direct QUIC, seen 12 s ago",
    );
}

#[test]
fn one_line() {
    assert_eq!(
        short_text(&healthy()),
        "healthy: up to date, 8,214 files, 1.3 GiB, vm linked\n"
    );
    assert_eq!(
        short_text(&troubled()),
        "held: syncing, 8,214 files, 1.3 GiB, 12 waiting, 3.1 MiB, 4.0 s left, 2 conflicts, \
         1 held, vm not linked\n"
    );
}

#[test]
fn the_problems_alone() {
    assert_eq!(check_text(&healthy(), COMMAND), short_text(&healthy()));
    assert_eq!(
        check_text(&troubled(), COMMAND),
        "Held     \"data/journal.sqlite\": A program has this database open.\n\
         \x20        Next: close it, then `layer-sync why data/journal.sqlite`\n\
         Conflict 2 conflicts not resolved yet\n\
         \x20        Next: layer-sync conflicts\n"
    );
}

#[test]
fn exit_codes_of_a_check() {
    let check = |state, sync, conflicts, held, code| {
        let mut status = healthy();
        status.state = state;
        status.sync.state = sync;
        status.sync.counts.conflicts = conflicts;
        status.sync.counts.held = held;
        assert_eq!(verdict(&status), code, "{state:?} {sync:?}");
    };
    check(Health::Healthy, SyncState::UpToDate, 0, 0, exit::DONE);
    check(Health::Healthy, SyncState::Syncing, 0, 0, exit::DONE);
    check(Health::Healthy, SyncState::UpToDate, 1, 0, exit::DEGRADED);
    check(Health::Healthy, SyncState::UpToDate, 0, 1, exit::DEGRADED);
    check(Health::Degraded, SyncState::UpToDate, 0, 0, exit::DEGRADED);
    check(Health::Held, SyncState::Held, 0, 1, exit::DEGRADED);
    check(Health::Halted, SyncState::Halted, 0, 0, exit::HALTED);
    check(Health::Degraded, SyncState::Halted, 0, 0, exit::HALTED);
}

#[test]
fn json_has_the_shape_of_the_schema() {
    let value = serde_json::to_value(healthy()).unwrap();
    for (pointer, expected) in [
        ("/schema", serde_json::json!(1)),
        ("/state", serde_json::json!("healthy")),
        ("/node/side", serde_json::json!("receiver")),
        ("/sync/state", serde_json::json!("up_to_date")),
        ("/sync/files", serde_json::json!(8214)),
        ("/self/restarts", serde_json::json!(0)),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
}
