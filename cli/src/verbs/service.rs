//! `service`: the daemon under the system's service manager.
//!
//! What is installed is a file that the manager reads, rendered from the shipped template. Everything else is
//! the manager's own command, so that what a person does with it by hand is the same.

mod agent;
mod system;
mod unit;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::Settings;
use config::home::shell_word;
use shared::control::{NodeSide, exit};

use super::{Caller, print};
use crate::args::ServiceAct;
use crate::failure::Failure;

/// What the manager is told of a node.
#[derive(Debug, Clone)]
struct Service {
    side: NodeSide,
    home: PathBuf,
    root: PathBuf,
    program: PathBuf,
    owner: Owner,
}

/// Whose the node is, and so who the daemon is.
#[derive(Debug, Clone)]
struct Owner {
    user: String,
    group: String,
}

/// Whose manager it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each system makes some of them")]
enum Scope {
    System,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each system makes some of them")]
enum Manager {
    Systemd(Scope),
    Launchd,
}

impl Service {
    fn unit(&self) -> String {
        unit::name(self.side)
    }

    fn label(&self) -> String {
        agent::label(self.side)
    }
}

/// Does what was asked of the service of this node.
pub(super) fn service(caller: &Caller, act: &ServiceAct) -> Result<u8, Failure> {
    let settings = Settings::read(&caller.home)
        .map_err(|refused| Failure::error(refused.to_string(), refused.fix()))?;
    let side = settings.link.side();
    let manager = system::manager()?;
    match act {
        ServiceAct::Install { into } => {
            install(caller, &settings, manager, into.as_deref())?;
        }
        ServiceAct::Uninstall { into } => uninstall(caller, side, manager, into.as_deref())?,
        act => {
            let file = file(manager, side, Path::new("/"))?;
            if !file.exists() {
                return Err(Failure::error(
                    format!(
                        "There is no service of this node: {} is not there.",
                        file.display()
                    ),
                    format!("{} service install", caller.command),
                ));
            }
            return ask_manager(caller, manager, side, act);
        }
    }
    Ok(exit::DONE)
}

fn install(
    caller: &Caller,
    settings: &Settings,
    manager: Manager,
    into: Option<&Path>,
) -> Result<(), Failure> {
    let service = described(caller, settings)?;
    let system = into.unwrap_or(Path::new("/"));
    let file = file(manager, service.side, system)?;
    refuse_second(&service, system, &file)?;
    let text = match manager {
        Manager::Systemd(scope) => unit::render(&service, scope),
        Manager::Launchd => agent::render(&service),
    };
    fs::create_dir_all(service.home.join("logs"))
        .and_then(|()| write_whole(&file, &text))
        .map_err(|error| {
            Failure::error(
                format!("{} cannot be written: {error}.", file.display()),
                "run it as root for a service of the system, or as the user whose service it is to be",
            )
        })?;
    print(&format!("wrote {}\n", file.display()))?;
    let Manager::Systemd(scope) = manager else {
        return match into {
            Some(_) => Ok(()),
            None => started(caller, run("launchctl", &bootstrap(&file)?)),
        };
    };
    verify(&file)?;
    if into.is_some() {
        return Ok(());
    }
    if !Path::new("/run/systemd/system").exists() {
        return print("systemd does not run here, so nothing was started\n");
    }
    run("systemctl", &systemctl(scope, &["daemon-reload"]))?;
    let unit = service.unit();
    started(
        caller,
        run("systemctl", &systemctl(scope, &["enable", "--now", &unit])),
    )
}

fn started(caller: &Caller, started: Result<(), Failure>) -> Result<(), Failure> {
    started?;
    print(&format!(
        "started, now and whenever the machine starts\nNext: {} status\n",
        caller.command
    ))
}

/// Prints what systemd says about the unit, where it is there to say it.
fn verify(file: &Path) -> Result<(), Failure> {
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager"])
        .arg(file)
        .output();
    let Ok(security) = security else {
        return Ok(());
    };
    let said = String::from_utf8_lossy(&security.stdout);
    let score = said
        .lines()
        .rev()
        .find(|line| line.contains("exposure level"));
    if let Some(score) = score {
        print(&format!("{}\n", score.trim_start_matches(['→', ' '])))?;
    }
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(file)
        .output();
    let Ok(verified) = verified else {
        return Ok(());
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let name = file
        .file_name()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default();
    let about: Vec<&str> = said.lines().filter(|line| line.contains(&*name)).collect();
    match about[..] {
        [] => print("systemd takes the unit\n"),
        _ => Err(Failure::error(
            format!("systemd does not take the unit: {}.", about.join("; ")),
            format!("remove {} again", shell_word(file)),
        )),
    }
}

fn uninstall(
    caller: &Caller,
    side: NodeSide,
    manager: Manager,
    into: Option<&Path>,
) -> Result<(), Failure> {
    let file = file(manager, side, into.unwrap_or(Path::new("/")))?;
    if !file.exists() {
        return print(&format!("{} is not there\n", file.display()));
    }
    if into.is_none() {
        let stopped = match manager {
            Manager::Systemd(scope) => run(
                "systemctl",
                &systemctl(scope, &["disable", "--now", &unit::name(side)]),
            ),
            Manager::Launchd => run("launchctl", &bootout(side)?),
        };
        // One that does not run can be removed all the same.
        if let Err(failure) = stopped {
            eprintln!("{}", failure.text);
        }
    }
    fs::remove_file(&file).map_err(|error| {
        Failure::error(
            format!("{} cannot be removed: {error}.", file.display()),
            "",
        )
    })?;
    print(&format!(
        "removed {}\nThe node in {} and its tree are as they were.\n",
        file.display(),
        caller.home.dir().display()
    ))
}

fn ask_manager(
    caller: &Caller,
    manager: Manager,
    side: NodeSide,
    act: &ServiceAct,
) -> Result<u8, Failure> {
    let unit = unit::name(side);
    let (program, words) = match (manager, act) {
        (Manager::Systemd(scope), ServiceAct::Logs { follow }) => {
            let mut words = vec!["--no-pager".to_owned(), "--unit".to_owned(), unit];
            words.extend((scope == Scope::User).then(|| "--user".to_owned()));
            words.push(if *follow { "--follow" } else { "--lines=200" }.to_owned());
            ("journalctl", words)
        }
        (Manager::Launchd, ServiceAct::Logs { follow }) => {
            let log = caller.home.log_dir().join("daemon.log");
            let how = if *follow { "-F" } else { "-n200" };
            ("tail", vec![how.to_owned(), log.display().to_string()])
        }
        (Manager::Systemd(scope), act) => {
            let words: &[&str] = match act {
                ServiceAct::Start => &["start", &unit],
                ServiceAct::Stop => &["stop", &unit],
                ServiceAct::Restart => &["restart", &unit],
                _ => &["status", "--no-pager", &unit],
            };
            ("systemctl", systemctl(scope, words))
        }
        (Manager::Launchd, act) => {
            let file = file(manager, side, Path::new("/"))?;
            let words = match act {
                ServiceAct::Start => bootstrap(&file)?,
                ServiceAct::Stop => bootout(side)?,
                ServiceAct::Restart => {
                    vec!["kickstart".to_owned(), "-k".to_owned(), domain_label(side)?]
                }
                _ => vec!["print".to_owned(), domain_label(side)?],
            };
            ("launchctl", words)
        }
    };
    let shown = Command::new(program)
        .args(&words)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| not_run(program, &error))?;
    // `systemctl status` says with its code that a service does not run, as `status` does.
    let code = shown.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(exit::ERROR))
}

/// Says what the manager is to know.
fn described(caller: &Caller, settings: &Settings) -> Result<Service, Failure> {
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|error| {
            Failure::error(format!("{} cannot be found: {error}.", path.display()), "")
        })
    };
    let program = std::env::current_exe()
        .map_err(|error| Failure::error(format!("This program cannot be found: {error}."), ""))?;
    let home = real(caller.home.dir())?;
    let owner = system::owner(&home)?;
    Ok(Service {
        side: settings.link.side(),
        root: real(&settings.node.root)?,
        program: real(&program)?,
        home,
        owner,
    })
}

/// Refuses a second installation of layer-sync on this machine: two daemons with one home would fight for it, and
/// two nodes with one name for their files.
fn refuse_second(service: &Service, system: &Path, ours: &Path) -> Result<(), Failure> {
    let user = user_home().unwrap_or_default();
    let below = |dir: &str| system.join(dir.trim_start_matches('/'));
    let dirs = [
        below("/etc/systemd/system"),
        below("/usr/lib/systemd/system"),
        below("/lib/systemd/system"),
        below(&format!("{}/.config/systemd/user", user.display())),
        below(&format!("{}/Library/LaunchAgents", user.display())),
        below("/Library/LaunchAgents"),
        below("/Library/LaunchDaemons"),
    ];
    let home = service.home.display().to_string();
    for dir in dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let file = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_service = name.ends_with(".service") || name.ends_with(".plist");
            if !name.contains("layer-sync") || !is_service {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            let is_ours = same(&file, ours) && text.contains(&home);
            if !is_ours {
                return Err(Failure::error(
                    format!(
                        "layer-sync is installed on this machine already, by {}.",
                        file.display()
                    ),
                    "uninstall that one first, with the home that it names, or remove the file",
                ));
            }
        }
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Returns where the manager looks for the service of a side; `system` is the root of the file system.
fn file(manager: Manager, side: NodeSide, system: &Path) -> Result<PathBuf, Failure> {
    let user = || {
        let home = user_home()?;
        Ok::<_, Failure>(system.join(home.strip_prefix("/").unwrap_or(&home)))
    };
    Ok(match manager {
        Manager::Systemd(Scope::System) => system.join("etc/systemd/system").join(unit::name(side)),
        Manager::Systemd(Scope::User) => {
            user()?.join(".config/systemd/user").join(unit::name(side))
        }
        Manager::Launchd => user()?
            .join("Library/LaunchAgents")
            .join(format!("{}.plist", agent::label(side))),
    })
}

fn user_home() -> Result<PathBuf, Failure> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
        .ok_or_else(|| Failure::error("Nothing says where your home directory is.", "set HOME"))
}

fn user_number() -> Result<String, Failure> {
    let asked = Command::new("id").arg("-u").output();
    let said = asked.map_err(|error| not_run("id", &error))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn systemctl(scope: Scope, words: &[&str]) -> Vec<String> {
    let user = (scope == Scope::User).then_some("--user");
    let words = user.into_iter().chain(words.iter().copied());
    words.map(str::to_owned).collect()
}

fn domain_label(side: NodeSide) -> Result<String, Failure> {
    Ok(format!("gui/{}/{}", user_number()?, agent::label(side)))
}

fn bootstrap(file: &Path) -> Result<Vec<String>, Failure> {
    let domain = format!("gui/{}", user_number()?);
    Ok(vec![
        "bootstrap".to_owned(),
        domain,
        file.display().to_string(),
    ])
}

fn bootout(side: NodeSide) -> Result<Vec<String>, Failure> {
    Ok(vec!["bootout".to_owned(), domain_label(side)?])
}

/// Runs a command of the manager, and says what it said when it fails.
fn run(program: &str, words: &[String]) -> Result<(), Failure> {
    let said = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_run(program, &error))?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr);
    let fix = match (program, words.first().map(String::as_str)) {
        // launchd's "5: Input/output error".
        ("launchctl", Some("bootstrap")) => {
            "log in at the screen of the Mac and run it there; an agent lives in that session"
        }
        ("systemctl", _) => "layer-sync service logs",
        _ => "",
    };
    Err(Failure::error(
        format!("`{program} {}` failed: {}.", words.join(" "), why.trim()),
        fix,
    ))
}

fn not_run(program: &str, error: &io::Error) -> Failure {
    Failure::error(format!("`{program}` cannot be run: {error}."), "")
}

/// Writes a file so that the manager sees the old one or the new one.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let fresh = file.with_extension("new");
    let mut written = File::create(&fresh)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&fresh, file)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::verbs::service) fn service(home: &str, root: &str) -> Service {
        Service {
            side: NodeSide::Receiver,
            home: home.into(),
            root: root.into(),
            program: "/opt/bin/layer-sync".into(),
            owner: Owner {
                user: "me".into(),
                group: "staff".into(),
            },
        }
    }

    #[test]
    fn another_installation_is_found() {
        let system = tempfile::tempdir().expect("a folder");
        let service = service("/srv/one", "/srv/tree");
        let ours = system
            .path()
            .join("etc/systemd/system/layer-sync-receiver.service");
        assert!(refuse_second(&service, system.path(), &ours).is_ok());
        write_whole(&ours, "Environment=LAYER_SYNC_HOME=/srv/one").expect("it is written");
        assert!(refuse_second(&service, system.path(), &ours).is_ok());
        // Under our name, for another home.
        write_whole(&ours, "Environment=LAYER_SYNC_HOME=/srv/two").expect("it is written");
        assert!(refuse_second(&service, system.path(), &ours).is_err());
        fs::remove_file(&ours).expect("it is there");
        // Of a package, under a name of its own.
        let other = system
            .path()
            .join("usr/lib/systemd/system/layer-sync.service");
        write_whole(&other, "").expect("it is written");
        let refused = refuse_second(&service, system.path(), &ours).expect_err("it is found");
        assert!(
            refused.text.contains("layer-sync.service"),
            "{}",
            refused.text
        );
    }
}
