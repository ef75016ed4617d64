//! The text of a settings file.

use config::settings::{Settings, SettingsRefused};

const FILE: &str = "config.toml";

/// Parses settings: what is accepted renders into a text that means the same; what is not is refused
/// with a line of the text and one sentence.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Settings::parse(text, FILE) {
        Ok(settings) => {
            let rendered = settings.render();
            match Settings::parse(&rendered, FILE) {
                Ok(again) => assert_eq!(again, settings, "{rendered}"),
                Err(refused) => {
                    panic!("what was accepted is refused after rendering: {refused}\n{rendered}")
                }
            }
        }
        Err(SettingsRefused::Wrong {
            file,
            line,
            text: said,
        }) => {
            assert_eq!(file, FILE);
            assert!(
                (1..=text.matches('\n').count() + 1).contains(&line),
                "line {line} of {text:?}"
            );
            assert!(!said.is_empty() && !said.contains('\n'), "{said:?}");
        }
        Err(other) => panic!("a text was not refused as a text: {other}"),
    }
}
