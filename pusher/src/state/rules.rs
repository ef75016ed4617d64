//! Which rules are in force.

use disk::{Durable, RulesFile};
use shared::control::Problem;
use shared::ignore::{Rules, RulesRefused, agreed_rules};

use super::batches::Committing;
use super::{Action, Pusher, rules_path};

impl Pusher {
    pub(super) fn rules_read(&mut self, file: Option<RulesFile>) {
        let (content, text) = match file {
            Some(file) => (Some(file.content), file.text),
            None => (None, Ok(String::new())),
        };
        let agreed = self.trees.agreed(&rules_path());
        let never_agreed = self.notes.base_of.is_none() && agreed.is_none();
        let rules = if never_agreed {
            // There is nobody yet who could have other rules.
            Some(text.and_then(|text| Rules::parse(&text)))
        } else {
            agreed_rules(content.as_ref(), &text, agreed)
        };
        let unagreed = agreed.is_none();
        match rules {
            Some(Ok(rules)) => {
                if unagreed
                    && (self.peer.is_greeting() || self.peer.is_ready())
                    && self.notes.ignore != rules.text()
                {
                    // The receiver has the others from the greeting, and no row will ever tell it.
                    let reason = "the rules changed before both sides had agreed on any";
                    self.actions.push(Action::Unlink(reason.into()));
                }
                self.set_rules(rules);
            }
            Some(Err(refused)) => self.rules_refused(&refused),
            None => self.rules_differ = true,
        }
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.degraded
            .retain(|problem| problem.code != "degraded.ignore");
        if self.notes.ignore == rules.text() {
            return;
        }
        self.notes.ignore = rules.text().to_owned();
        let batch = self.next_batch();
        self.commit(batch, Committing::default(), Durable::Rows);
        self.actions.push(Action::SetRules(rules));
        self.looks.sweep();
    }

    pub(super) fn rules_refused(&mut self, refused: &RulesRefused) {
        self.degraded
            .retain(|problem| problem.code != "degraded.ignore");
        self.degraded.push(Problem::of_rules(refused));
    }
}
