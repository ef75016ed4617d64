//! Which rules are in force.

use disk::RulesFile;
use shared::control::Problem;
use shared::ignore::{RULES_FILE, Rules, RulesRefused, agreed_rules};
use shared::path::RelPath;

use super::{Action, Receiver};

impl Receiver {
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.degraded
            .retain(|problem| problem.code != "degraded.ignore");
        if self.notes.ignore == rules.text() {
            return;
        }
        self.notes.ignore = rules.text().to_owned();
        self.actions.push(Action::SetRules(rules));
        self.rules_sweep = Some(self.looks.ask_sweep());
    }

    pub(super) fn rules_refused(&mut self, refused: &RulesRefused) {
        self.degraded
            .retain(|problem| problem.code != "degraded.ignore");
        self.degraded.push(Problem::of_rules(refused));
    }

    pub(super) fn rules_read(&mut self, file: Option<RulesFile>) {
        let (content, text) = match file {
            Some(file) => (Some(file.content), file.text),
            None => (None, Ok(String::new())),
        };
        let agreed = RelPath::parse(RULES_FILE)
            .ok()
            .and_then(|path| self.trees.agreed(&path));
        match agreed_rules(content.as_ref(), &text, agreed) {
            Some(Ok(rules)) => {
                self.set_rules(rules);
                self.commit(self.notes.last_batch, Vec::new(), false);
            }
            Some(Err(refused)) => self.rules_refused(&refused),
            None => self.rules_differ = true,
        }
    }
}
