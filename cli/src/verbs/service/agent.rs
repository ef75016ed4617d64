//! The launchd agent: the shipped template with the program, the home and the file for what a panic says.

use super::Service;

const TEMPLATE: &str = include_str!("../../../../launchd/com.97layer.layer-sync.receiver.plist");
/// What the template says in their places.
const LABEL: &str = "com.97layer.layer-sync.receiver";
const ARGUMENTS: &str = "        <string>/usr/local/bin/layer-sync</string>
        <string>receiver</string>
";
const STANDARD_ERROR: &str = "<string>/dev/null</string>";

/// Returns the text of the property list.
pub(super) fn render(service: &Service) -> String {
    // What the template explains is for whoever fits it by hand.
    let mut text = without_comments(TEMPLATE).replace(LABEL, &service.label());
    let words = [
        service.program.display().to_string(),
        "--home".to_owned(),
        service.home.display().to_string(),
        service.side.name().to_owned(),
        "--log-to-file".to_owned(),
    ];
    let arguments = words.map(|word| format!("        <string>{}</string>\n", escaped(&word)));
    text = text.replace(ARGUMENTS, &arguments.concat());
    let panics = service.home.join("logs").join("panic.log");
    let panics = escaped(&panics.display().to_string());
    text.replace(STANDARD_ERROR, &format!("<string>{panics}</string>"))
}

/// Returns the label of the agent of a side.
pub(super) fn label(side: shared::control::NodeSide) -> String {
    format!("com.97layer.layer-sync.{}", side.name())
}

fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("<!--") {
        kept += before.trim_end_matches([' ', '\t']);
        rest = comment.split_once("-->").map_or("", |(_, after)| after);
        // The line that it stood on goes with it.
        rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
    kept + rest
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::service::tests::service;

    #[test]
    fn the_agent() {
        let agent = render(&service(
            "/Users/me/layer OS/노드",
            "/Users/me/layer OS/지식",
        ));
        assert_eq!(agent, include_str!("agent.plist"));
    }

    #[test]
    fn a_path_is_text() {
        let agent = render(&service("/Users/me/<a & b>", "/Users/me/tree"));
        assert!(agent.contains("<string>/Users/me/&lt;a &amp; b&gt;</string>"));
    }
}
