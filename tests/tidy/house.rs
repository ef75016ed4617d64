//! The direction of dependencies: a crate names only what stands below it.

use std::collections::BTreeSet;

use crate::repository::{expect_none, members, read_toml};

/// Each crate of ours, from the bottom, with those of ours that it may name.
const HOUSE: [(&str, &[&str]); 12] = [
    ("shared", &[]),
    ("config", &["shared"]),
    ("disk", &["shared", "config"]),
    ("link", &["shared", "config"]),
    ("carry", &["shared", "disk", "link"]),
    ("pusher", &["shared", "disk", "link", "carry"]),
    ("receiver", &["shared", "disk", "link", "carry"]),
    // It is no side of the pair.
    ("mirror", &["shared", "config", "disk"]),
    // It asks; the node answers.
    ("bot", &["shared", "config"]),
    (
        "node",
        &[
            "shared", "config", "disk", "link", "carry", "pusher", "receiver", "mirror", "bot",
        ],
    ),
    ("cli", &["shared", "config", "node"]),
    // Nothing stands on it, and it proves all of them.
    (
        "tests",
        &[
            "shared", "config", "disk", "link", "carry", "pusher", "receiver", "mirror", "bot",
            "node", "cli",
        ],
    ),
];

/// Crates of others that one crate of ours alone may name: the rest asks it.
const OWNED: [(&str, &str); 10] = [
    ("quinn", "link"),
    ("quinn-proto", "link"),
    ("rustls", "link"),
    ("rcgen", "link"),
    ("frankenstein", "bot"),
    ("google-drive3", "mirror"),
    ("yup-oauth2", "mirror"),
    ("notify", "disk"),
    ("redb", "disk"),
    ("clap", "cli"),
];

/// Crates that one of ours must never name, and why.
const NEVER: [(&str, &str, &str); 14] = [
    ("shared", "tokio", "the contract waits for nothing"),
    ("shared", "rand", "chance is an argument"),
    ("shared", "getrandom", "chance is an argument"),
    ("shared", "rustix", "the contract touches no system"),
    ("shared", "libc", "the contract touches no system"),
    ("shared", "tempfile", "files belong to `disk`"),
    ("config", "tokio", "settings are read before anything runs"),
    (
        "disk",
        "tokio",
        "disk is synchronous; who calls it has the threads",
    ),
    ("bot", "rustix", "the node has the files and the clocks"),
    ("bot", "getrandom", "chance comes through the port"),
    ("cli", "disk", "the command asks the daemon, or `node`"),
    ("cli", "link", "the command asks the daemon, or `node`"),
    ("cli", "redb", "the command never opens the index"),
    ("cli", "quinn", "the command speaks the control socket"),
];

/// Returns what a crate names outside its tests, by the crates' own names.
fn named(member: &str) -> BTreeSet<String> {
    let manifest = read_toml(&format!("{member}/Cargo.toml"));
    let for_targets = manifest
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flatten();
    let tables = for_targets
        .filter_map(|(_, target)| target.as_table())
        .chain([&manifest]);
    tables
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|section| table.get(section)))
        .flatten()
        .filter_map(toml::Value::as_table)
        .flatten()
        .map(|(name, what)| {
            what.get("package")
                .and_then(toml::Value::as_str)
                .unwrap_or(name)
                .to_owned()
        })
        .collect()
}

#[test]
fn every_crate_has_its_place() {
    let places: BTreeSet<String> = HOUSE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let members: BTreeSet<String> = members().into_iter().collect();
    assert_eq!(
        members, places,
        "give the crate a line in `HOUSE`, with what it may name"
    );
    for member in members {
        let name = read_toml(&format!("{member}/Cargo.toml"))["package"]["name"].clone();
        assert_eq!(
            name.as_str(),
            Some(&*member),
            "a crate has the name of its folder"
        );
    }
}

#[test]
fn a_crate_names_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    for (member, may) in HOUSE {
        let ours = named(member)
            .into_iter()
            .filter(|name| HOUSE.iter().any(|(ours, _)| ours == name));
        let above = ours.filter(|name| !may.contains(&&**name));
        wrong.extend(above.map(|name| format!("{member} names {name}; it may name {may:?}")));
    }
    expect_none(
        &wrong,
        "Move what is needed down, or hand it in as a value from above:",
    );
}

#[test]
fn the_house_has_no_circle() {
    for (place, (member, may)) in HOUSE.iter().enumerate() {
        let below: Vec<&str> = HOUSE[..place].iter().map(|(name, _)| *name).collect();
        assert!(
            may.iter().all(|name| below.contains(name)),
            "`HOUSE` lets {member} name what stands above it"
        );
    }
}

#[test]
fn each_foreign_thing_has_one_owner() {
    let mut wrong = Vec::new();
    for (member, _) in HOUSE.iter().filter(|(member, _)| *member != "tests") {
        let named = named(member);
        let taken = OWNED
            .iter()
            .filter(|(foreign, owner)| owner != member && named.contains(*foreign));
        wrong.extend(
            taken.map(|(foreign, owner)| {
                format!("{member} names {foreign}, which belongs to {owner}")
            }),
        );
        let never = NEVER
            .iter()
            .filter(|(who, what, _)| who == member && named.contains(*what));
        wrong.extend(never.map(|(who, what, why)| format!("{who} names {what}: {why}")));
    }
    expect_none(
        &wrong,
        "Ask the crate that owns it instead, through a function of that crate:",
    );
}

#[test]
fn nothing_is_pulled_in_by_the_contract_that_it_may_not_name() {
    let lock = read_toml("Cargo.lock");
    let packages = lock["package"].as_array().expect("packages");
    let depends_on = |name: &str| -> Vec<String> {
        let of_name = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name));
        let lists = of_name.filter_map(|package| package.get("dependencies")?.as_array());
        // An entry is the name, and the version behind it when there are several.
        lists
            .flatten()
            .filter_map(|entry| Some(entry.as_str()?.split(' ').next()?.to_owned()))
            .collect()
    };
    // The lock does not tell dependencies of tests apart, so the first step is taken by the manifest.
    // Nor those of build scripts: `getrandom` comes with one, so only the manifest is asked about it.
    let mut waiting: Vec<String> = named("shared").into_iter().collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        waiting.extend(
            depends_on(&name)
                .into_iter()
                .filter(|next| !reached.contains(next)),
        );
        reached.insert(name);
    }
    let never = ["tokio", "rand", "mio", "quinn", "notify", "redb", "socket2"];
    let found: Vec<String> = never
        .iter()
        .filter(|name| reached.contains(**name))
        .map(|name| (*name).to_owned())
        .collect();
    expect_none(
        &found,
        "A dependency of `shared` brings in what the contract must not have; turn the feature off:",
    );
}
