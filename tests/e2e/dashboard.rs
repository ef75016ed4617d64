//! The dashboard: who is let in, and what they see.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Node, Pair, SOON, wait_until};

/// A browser that knows one address.
struct Browser {
    address: String,
    key: String,
}

/// What a server answered.
struct Seen {
    code: u16,
    head: String,
    body: String,
}

impl Browser {
    #[track_caller]
    fn of(node: &Node) -> Self {
        let printed = node.ask(["web"]).exits(0).stdout;
        let (address, key) = printed
            .trim()
            .strip_prefix("http://")
            .unwrap()
            .split_once("/?key=")
            .unwrap();
        Self {
            address: address.to_owned(),
            key: key.to_owned(),
        }
    }

    fn cookie(&self) -> String {
        format!(
            "cookie: layer_sync_{}={}\r\n",
            self.address.rsplit_once(':').unwrap().1,
            self.key
        )
    }

    fn get(&self, path: &str, cookie: &str) -> Seen {
        self.asks("GET", path, &self.address, cookie)
    }

    fn asks(&self, method: &str, path: &str, host: &str, cookie: &str) -> Seen {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{cookie}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Seen {
            code: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

#[test]
fn it_shows_what_the_status_says() {
    let pair = Pair::running();
    pair.flush();
    for node in pair.nodes() {
        let browser = Browser::of(node);
        let let_in = browser.get(&format!("/?key={}", browser.key), "");
        assert_eq!(let_in.code, 303);
        assert!(let_in.head.contains("location: /\r\n"), "{}", let_in.head);
        assert!(
            let_in.head.contains("httponly; samesite=strict"),
            "{}",
            let_in.head
        );
        for (path, kind, part) in [
            ("/", "text/html", "<title>layer-sync"),
            ("/page.js", "text/javascript", "/api/status"),
            ("/page.css", "text/css", ".state"),
        ] {
            let seen = browser.get(path, &browser.cookie());
            assert_eq!(seen.code, 200, "{path}");
            assert!(
                seen.head.contains(&format!("content-type: {kind}")) && seen.body.contains(part),
                "{path}"
            );
            assert!(
                seen.head
                    .contains("content-security-policy: default-src 'none'; script-src 'self'"),
                "{path}"
            );
        }
        let seen = browser.get("/api/status", &browser.cookie());
        let shown: Value = serde_json::from_str(&seen.body).unwrap();
        let status = node.status();
        for fact in [
            "/schema",
            "/state",
            "/node",
            "/sync/files",
            "/sync/set_hash",
            "/lease/holder",
        ] {
            assert_eq!(
                shown["status"].pointer(fact),
                status.pointer(fact),
                "{fact}"
            );
        }
        let facts = shown["facts"].as_array().unwrap();
        let names: Vec<&str> = facts.iter().map(|fact| fact[0].as_str().unwrap()).collect();
        assert_eq!(names, ["Role", "Peer", "Sync", "Self"]);
        assert!(
            facts[2][1].as_str().unwrap().starts_with("up to date"),
            "{facts:?}"
        );
    }
}

#[test]
fn nobody_else_is_let_in() {
    let pair = Pair::running();
    let browser = Browser::of(&pair.pusher);
    let cookie = browser.cookie();
    let wrong = cookie.replace(&browser.key, &"0".repeat(browser.key.len()));
    for (path, cookie) in [
        ("/", ""),
        ("/api/status", ""),
        ("/api/status", &wrong),
        ("/?key=0", ""),
        ("/?key=", ""),
    ] {
        let seen = browser.get(path, cookie);
        assert_eq!(seen.code, 401, "{path} {cookie}");
        assert!(
            seen.body.contains("layer-sync web") && !seen.body.contains("sync\":"),
            "{}",
            seen.body
        );
    }
    // A name that somebody else's page made lead to this machine.
    let port = browser.address.rsplit_once(':').unwrap().1;
    for host in [
        &format!("evil.example.org:{port}"),
        "127.0.0.1",
        "localhost:1",
    ] {
        assert_eq!(
            browser.asks("GET", "/api/status", host, &cookie).code,
            421,
            "{host}"
        );
    }
    assert_eq!(
        browser
            .asks("GET", "/api/status", &format!("localhost:{port}"), &cookie)
            .code,
        200
    );
    for method in ["POST", "DELETE", "OPTIONS"] {
        assert_eq!(
            browser
                .asks(method, "/api/status", &browser.address, &cookie)
                .code,
            405,
            "{method}"
        );
    }
    assert_eq!(browser.get("/../config.toml", &cookie).code, 404);
    assert_eq!(browser.get("/healthz", "").code, 200);
    // The key of one node is none of the other.
    let other = Browser::of(&pair.receiver);
    let stolen = other.cookie().replace(&other.key, &browser.key);
    assert_eq!(other.get("/", &stolen).code, 401);
}

#[test]
fn it_comes_back_after_a_crash_and_can_be_left_out() {
    let mut pair = Pair::running();
    let before = Browser::of(&pair.pusher);
    pair.pusher.ask(["duty", "crash", "dashboard"]).exits(0);
    wait_until("it is served again", SOON, || {
        pair.pusher.duty("dashboard")["restarts"] == 1
    });
    wait_until("it has another key", SOON, || {
        let answer = pair.pusher.ask(["web"]);
        answer.code == 0 && !answer.stdout.contains(&before.key)
    });
    // The role has nothing to do with it.
    for _ in 0..4 {
        wait_until("it runs", SOON, || {
            pair.pusher.duty("dashboard")["state"] == "running"
        });
        pair.pusher.ask(["duty", "crash", "dashboard"]).exits(0);
        wait_until("it is gone", SOON, || {
            pair.pusher.duty("dashboard")["state"] != "running"
        });
    }
    let problem = pair.pusher.problem("degraded.dashboard");
    assert_eq!(problem["fix"], "layer-sync duty restart dashboard");
    assert_eq!(pair.pusher.status()["node"]["role"], "primary");
    pair.pusher.ask(["web"]).exits(1).says(&["not served"]);

    pair.receiver
        .set("listen = \"127.0.0.1:0\"", "listen = \"off\"");
    pair.receiver.stop();
    pair.receiver.start();
    pair.receiver
        .ask(["web"])
        .exits(1)
        .says(&["not served", "[dashboard]"]);
    assert!(
        !pair
            .receiver
            .ask(["duty", "list"])
            .exits(0)
            .stdout
            .contains("dashboard")
    );
}
