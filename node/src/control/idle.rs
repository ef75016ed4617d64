//! What a node says of itself while its sync does not run, and of its duties always: the other node hears of those, too.

use std::sync::{Mutex, PoisonError};

use link::Traffic;
use shared::control::{
    DutyState, DutyStatus, Health, LeaseStatus, NodeSide, NodeStatus, PeerState, PeerStatus,
    Problem, Role, SCHEMA, Status, SyncCounts, SyncState, SyncStatus,
};
use shared::hash::SetHash;

use crate::clock;
use crate::dashboard::DASHBOARD;
use crate::measure::Meter;
use crate::open::Opened;
use crate::sync::SYNC;

/// The facts that do not change while the daemon runs.
pub(crate) struct Idle {
    node: NodeStatus,
    peer: String,
    meter: Mutex<Meter>,
}

impl Idle {
    pub(crate) fn of(opened: &Opened) -> Self {
        Self {
            node: NodeStatus {
                id: opened.settings.node.name.clone(),
                side: opened.settings.link.side(),
                role: Role::Standby,
                epoch: 0,
                version: env!("CARGO_PKG_VERSION").into(),
                root: opened.replica.root().display().to_string(),
            },
            peer: opened
                .partner
                .as_ref()
                .map(|partner| partner.name.clone())
                .unwrap_or_default(),
            meter: Mutex::new(Meter::start()),
        }
    }

    /// Returns the status of a node that does not sync. What the trees hold is not known then.
    pub(crate) fn status(&self) -> Status {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            schema: SCHEMA,
            state: Health::Halted,
            now: clock::utc_now(),
            problems: Vec::new(),
            node: self.node.clone(),
            lease: LeaseStatus::default(),
            peer: PeerStatus {
                id: self.peer.clone(),
                state: match self.node.side {
                    NodeSide::Pusher if self.peer.is_empty() => PeerState::Unpaired,
                    _ => PeerState::Unlinked,
                },
                rtt_ms: None,
                last_seen_ago_ms: None,
            },
            sync: SyncStatus {
                state: SyncState::Halted,
                counts: SyncCounts::default(),
                eta_ms: None,
                lag_ms: 0,
                in_sync: false,
                set_hash: SetHash::default(),
                last_change: None,
            },
            duties: Vec::new(),
            mirror: None,
            bot: None,
            process: meter.measure(Traffic::default()),
        }
    }
}

/// Returns what is wrong with a duty.
pub(crate) fn problem(duty: &DutyStatus) -> Option<Problem> {
    let name = &duty.name;
    let why = duty.why.as_deref().unwrap_or("it is not known why");
    let (code, severity, text) = match duty.state {
        DutyState::Running => return None,
        DutyState::Waiting => (
            "degraded.restarting",
            Health::Degraded,
            format!("\"{name}\" has ended and is started again: {why}"),
        ),
        DutyState::Parked => {
            // Without the sync nothing arrives; without another duty the tree is as safe as ever, and without the
            // dashboard so is the role.
            let (code, severity) = match name.as_str() {
                SYNC => ("halted.safe_mode", Health::Halted),
                DASHBOARD => ("degraded.dashboard", Health::Degraded),
                _ => ("degraded.safe_mode", Health::Degraded),
            };
            let text = format!(
                "\"{name}\" has crashed again and again, so it is not started any more; the last time: {why}"
            );
            (code, severity, text)
        }
    };
    Some(Problem {
        code: code.to_owned(),
        severity,
        path: None,
        text,
        fix: format!("layer-sync duty restart {name}"),
    })
}
