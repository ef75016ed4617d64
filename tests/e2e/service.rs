//! The daemon under a service manager: what is installed, and what the manager is told.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::harness::{Node, Pair, SOON, Side, layer_sync, run, wait, wait_until};

/// The worst exposure that `systemd-analyze security` may find, on its scale from 0 to 10.
const EXPOSURE_MAX: f64 = 1.5;

/// Makes a pusher whose home and tree have names that have to be quoted.
fn oddly_named(pair: &Pair, name: &str) -> Node {
    let root = pair.scratch().join(format!("layer OS {name}/지식 50%"));
    fs::create_dir_all(&root).unwrap();
    let node = Node::new(
        Side::Pusher,
        pair.scratch().join(format!("노드 {name}")),
        root,
    );
    let root = node.root.to_str().unwrap().to_owned();
    node.ask([
        "init",
        "pusher",
        "--name",
        "vm",
        "--listen",
        "127.0.0.1:0",
        "--root",
        &root,
    ])
    .exits(0);
    // A daemon is an ordinary user, also where root runs the tests.
    if run("id", ["-u"]).stdout.trim() == "0" {
        let words = [OsStr::new("-R"), OsStr::new("daemon:daemon")];
        let mine = [node.home.as_os_str(), node.root.as_os_str()];
        run("chown", words.into_iter().chain(mine)).exits(0);
    }
    node
}

#[test]
fn a_unit_is_installed_into_a_root_of_its_own() {
    let pair = Pair::strangers();
    let node = oddly_named(&pair, "one");
    let system = pair.scratch().join("scratch root");
    let into = system.to_str().unwrap().to_owned();
    let install = |node: &Node| node.ask(["service", "install", "--into", &into]);
    let said = install(&node).exits(0).stdout;
    println!("{said}");

    let file = listed(&system).pop().expect("a unit");
    let unit = fs::read_to_string(&file).unwrap();
    let home = node.home.to_str().unwrap();
    let root = node.root.to_str().unwrap().replace('%', "%%");
    assert!(
        unit.contains(&format!("Environment=\"LAYER_SYNC_HOME={home}\"\n")),
        "{unit}"
    );
    if unit.contains("User=") {
        assert!(
            unit.contains(&format!("ReadWritePaths=\"{home}\" \"{root}\"\n")),
            "{unit}"
        );
        if run("systemd-analyze", ["--version"]).code == 0 {
            assert!(said.contains("systemd takes the unit"), "{said}");
            let exposure: f64 = said
                .split("exposure level for ")
                .nth(1)
                .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or_else(|| panic!("no score: {said}"));
            assert!(exposure <= EXPOSURE_MAX, "{said}");
        }
    }
    // Again is an update; for another node it is a second installation.
    install(&node).exits(0);
    let other = oddly_named(&pair, "two");
    install(&other)
        .exits(1)
        .says(&["installed on this machine already", "layer-sync-pusher"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), unit);

    let said = node
        .ask(["service", "uninstall", "--into", &into])
        .exits(0)
        .stdout;
    assert!(said.contains("are as they were"), "{said}");
    assert!(listed(&system).is_empty());
    assert!(node.home.join("config.toml").exists() && node.root.exists());
    install(&other).exits(0);
}

fn listed(system: &std::path::Path) -> Vec<std::path::PathBuf> {
    let found = run("find", [system.to_str().unwrap(), "-type", "f"]).exits(0);
    found.stdout.lines().map(Into::into).collect()
}

#[test]
fn a_node_without_a_service_says_how_to_get_one() {
    let pair = Pair::strangers();
    layer_sync(&pair.pusher.home, ["service", "status"]).exits(1);
    pair.init();
    // Whoever develops layer-sync may have one installed.
    if !std::path::Path::new("/etc/systemd/system/layer-sync-pusher.service").exists() {
        for act in ["start", "stop", "restart", "status", "logs"] {
            pair.pusher
                .ask(["service", act])
                .exits(1)
                .says(&["There is no service of this node", "service install"]);
        }
    }
}

#[test]
fn the_manager_is_told_that_it_is_ready_lives_and_stops() {
    let mut pair = Pair::strangers();
    pair.init();
    let socket = pair.scratch().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let hear = || {
        let mut bytes = [0; 4096];
        manager
            .recv(&mut bytes)
            .ok()
            .map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    let address = format!("NOTIFY_SOCKET={}", socket.display());
    pair.pusher
        .launch(&["env", &address, "WATCHDOG_USEC=2000000"]);
    let first = wait("the first word", SOON, hear);
    assert!(first.contains("READY=1"), "{first}");
    pair.pusher.ask(["status"]).exits(0);
    for _ in 0..3 {
        let word = wait("it lives", SOON, hear);
        assert!(word.contains("WATCHDOG=1"), "{word}");
    }
    // One that is stopped says nothing, and the manager would end it.
    kill_process(pair.pusher.pid(), Signal::STOP).unwrap();
    wait_until("silence for a second", SOON, || hear().is_none());
    kill_process(pair.pusher.pid(), Signal::CONT).unwrap();
    let word = wait("it goes on", SOON, hear);
    assert!(word.contains("WATCHDOG=1"), "{word}");
    kill_process(pair.pusher.pid(), Signal::TERM).unwrap();
    wait_until("it stops", SOON, || {
        hear().is_some_and(|word| word.contains("STOPPING=1"))
    });
    assert_eq!(pair.pusher.ended().code, 0);
}

#[test]
fn where_nobody_collects_the_log_it_is_in_the_home() {
    let mut pair = Pair::strangers();
    pair.init();
    let words = ["sh", "-c", "exec \"$@\" --log-to-file", "sh"];
    pair.pusher.launch(&words);
    wait_until("the daemon answers", SOON, || {
        pair.pusher.ask(["status", "--short"]).code == 0
    });
    let log = fs::read_to_string(pair.pusher.home.join("logs/daemon.log")).unwrap();
    assert!(log.contains("started"), "{log}");
    assert_eq!(pair.pusher.log(), "", "nothing goes to standard error");
    pair.pusher.stop();
}
