//! The systemd unit: the shipped template with the few lines that differ from machine to machine.

use std::path::Path;

use shared::control::NodeSide;

use super::{Scope, Service};

const TEMPLATE: &str = include_str!("../../../../systemd/layer-sync-pusher.service");

/// Directories that `ProtectHome=` is about.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Directories that `PrivateTmp=` hides.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// What only the system's service manager can do for a unit: another user, and a view of the file system of its own.
/// A user's manager would need user namespaces for it, which many systems forbid.
const SYSTEM_ONLY: [&str; 21] = [
    "User",
    "Group",
    "StateDirectory",
    "StateDirectoryMode",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "ProtectHome",
    "ProtectSystem",
    "ReadWritePaths",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateUsers",
    "DevicePolicy",
    "ProtectProc",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectClock",
    "ProtectHostname",
];

/// Returns the text of the unit.
pub(super) fn render(service: &Service, scope: Scope) -> String {
    let (_, body) = TEMPLATE.split_once("\n\n[Unit]").unwrap_or(("", TEMPLATE));
    let mut text = format!(
        "# layer-sync: the {}. Written by `layer-sync service install`, which writes it anew; changes of\n\
         # your own belong into `systemctl edit {}`.\n\n[Unit]",
        service.side.name(),
        service.unit()
    );
    for line in body.lines() {
        let key = line.split_once('=').map_or("", |(key, _)| key);
        if scope == Scope::User && (SYSTEM_ONLY.contains(&key) || key == "RequiresMountsFor") {
            continue;
        }
        match own_lines(key, service, scope) {
            Some(own) => {
                for line in own {
                    text += &line;
                    text.push('\n');
                }
            }
            None => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

/// Returns what stands in place of a line of the template; `None`: the line itself.
fn own_lines(key: &str, service: &Service, scope: Scope) -> Option<Vec<String>> {
    let places = format!("{} {}", word(&service.home), word(&service.root));
    let lines = match key {
        "Description" => vec![format!(
            "Description=layer-sync {}: keeps one folder tree equal on two machines",
            service.side.name()
        )],
        "RequiresMountsFor" => vec![format!("RequiresMountsFor={places}")],
        "User" | "Group" => vec![format!("{key}={}", service.owner.for_key(key))],
        // The home exists already, wherever it is.
        "StateDirectory" | "StateDirectoryMode" => Vec::new(),
        "Environment" => vec![format!(
            "Environment={}",
            quoted(&format!("LAYER_SYNC_HOME={}", service.home.display()))
        )],
        // A dollar in the path of the program is one; in arguments there is none.
        "ExecStart" => vec![format!(
            "ExecStart={} {}",
            word(&service.program),
            service.side.name()
        )],
        "ReadWritePaths" => vec![format!("ReadWritePaths={places}")],
        "ProtectHome" => {
            let at_home = is_below(service, &HOMES);
            let value = if at_home { "tmpfs" } else { "yes" };
            let mut lines = vec![format!("ProtectHome={value}")];
            if at_home || is_below(service, &TEMPORARY) {
                lines.push(format!("BindPaths={places}"));
                lines.push(format!("BindReadOnlyPaths={}", word(&service.program)));
            }
            lines
        }
        "WantedBy" if scope == Scope::User => vec!["WantedBy=default.target".to_owned()],
        _ => return None,
    };
    Some(lines)
}

/// Returns whether the unit needs something that is below one of these.
fn is_below(service: &Service, dirs: &[&str]) -> bool {
    let places = [&service.home, &service.root, &service.program];
    places
        .iter()
        .any(|place| dirs.iter().any(|dir| place.starts_with(dir)))
}

fn word(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// Writes a text as one word of a unit: in quotes when it needs them, and with nothing expanded.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    let plain = |c: char| c.is_alphanumeric() || "/._-+,@:=%".contains(c);
    if escaped.chars().all(plain) {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}

impl super::Owner {
    fn for_key(&self, key: &str) -> &str {
        match key {
            "Group" => &self.group,
            _ => &self.user,
        }
    }
}

/// Returns the name of the unit of a side.
pub(super) fn name(side: NodeSide) -> String {
    format!("layer-sync-{}.service", side.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::service::tests::service;

    fn lines<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
        let start = format!("{key}=");
        let lines = unit.lines().filter_map(|line| line.strip_prefix(&start));
        lines.collect()
    }

    #[test]
    fn what_differs_is_rendered_and_the_rest_stays() {
        let unit = render(
            &service("/srv/ls home", "/srv/layer OS/지식"),
            Scope::System,
        );
        assert_eq!(
            lines(&unit, "ReadWritePaths"),
            ["\"/srv/ls home\" \"/srv/layer OS/지식\""]
        );
        assert_eq!(
            lines(&unit, "Environment"),
            ["\"LAYER_SYNC_HOME=/srv/ls home\""]
        );
        assert_eq!(lines(&unit, "ExecStart"), ["/opt/bin/layer-sync receiver"]);
        assert_eq!(
            (lines(&unit, "User"), lines(&unit, "Group")),
            (vec!["me"], vec!["staff"])
        );
        assert_eq!(lines(&unit, "ProtectHome"), ["yes"]);
        assert_eq!(lines(&unit, "WantedBy"), ["multi-user.target"]);
        assert!(lines(&unit, "StateDirectory").is_empty());
        assert_eq!(lines(&unit, "Type"), ["notify"]);
        assert_eq!(lines(&unit, "RestartPreventExitStatus"), ["64 77 78"]);
    }

    #[test]
    fn a_tree_in_a_home_is_all_that_is_seen_of_it() {
        let unit = render(&service("/var/lib/ls", "/home/me/tree"), Scope::System);
        assert_eq!(lines(&unit, "ProtectHome"), ["tmpfs"]);
        assert_eq!(lines(&unit, "BindPaths"), ["/var/lib/ls /home/me/tree"]);
        assert_eq!(lines(&unit, "BindReadOnlyPaths"), ["/opt/bin/layer-sync"]);
        let unit = render(&service("/var/lib/ls", "/var/tmp/tree"), Scope::System);
        assert_eq!(lines(&unit, "ProtectHome"), ["yes"]);
        assert_eq!(lines(&unit, "BindPaths"), ["/var/lib/ls /var/tmp/tree"]);
    }

    #[test]
    fn a_users_unit_asks_for_nothing_that_a_user_cannot_have() {
        let unit = render(
            &service("/home/me/.layer-sync", "/home/me/tree"),
            Scope::User,
        );
        for key in SYSTEM_ONLY.into_iter().chain(["BindPaths"]) {
            assert!(lines(&unit, key).is_empty(), "{key}");
        }
        assert_eq!(lines(&unit, "WantedBy"), ["default.target"]);
        assert_eq!(lines(&unit, "NoNewPrivileges"), ["yes"]);
    }

    #[test]
    fn nothing_in_a_path_is_expanded() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a b", "\"/a b\""),
            ("/50%", "/50%%"),
            ("/a\"b\\", "\"/a\\\"b\\\\\""),
            ("/$HOME", "\"/$HOME\""),
        ] {
            assert_eq!(quoted(path), expected);
        }
    }
}
