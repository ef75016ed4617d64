//! Makes a failing script short: takes out lines for as long as it still fails.

use crate::defect::Defect;
use crate::history::{Failure, play};
use crate::script::{Act, Script};

/// Most scripts that are tried.
const TRIES_MAX: usize = 4000;

/// Returns a shorter script that fails in the same way, with its failure.
pub(crate) fn shrink(
    script: &Script,
    failure: Failure,
    defect: Option<Defect>,
) -> (Script, Failure) {
    let mut shrinking = Shrinking {
        kind: kind(&failure).to_owned(),
        best: script.clone(),
        failure,
        defect,
        tries: 0,
    };
    let lines = shrinking.failure.line + 1;
    shrinking.best.lines.truncate(lines);
    let mut size = lines.div_ceil(2);
    loop {
        let before = shrinking.best.lines.len();
        shrinking.without_pieces(size);
        shrinking.with_shorter_runs();
        let is_shorter = shrinking.best.lines.len() < before;
        if size == 1 && !is_shorter || shrinking.tries > TRIES_MAX {
            break;
        }
        size = size.div_ceil(2);
    }
    (shrinking.best, shrinking.failure)
}

struct Shrinking {
    kind: String,
    best: Script,
    failure: Failure,
    defect: Option<Defect>,
    tries: usize,
}

/// The words before the colon say what kind of failure it is.
fn kind(failure: &Failure) -> &str {
    failure.what.split(':').next().unwrap_or_default()
}

impl Shrinking {
    fn fails(&mut self, script: Script) -> bool {
        self.tries += 1;
        match play(&script, self.defect, false) {
            Err(failure) if kind(&failure) == self.kind => {
                (self.best, self.failure) = (script, failure);
                let lines = self.failure.line + 1;
                self.best.lines.truncate(lines);
                true
            }
            _ => false,
        }
    }

    fn without_pieces(&mut self, size: usize) {
        let mut end = self.best.lines.len();
        while end > 0 && self.tries <= TRIES_MAX {
            let start = end.saturating_sub(size);
            let mut shorter = self.best.clone();
            shorter.lines.drain(start..end);
            self.fails(shorter);
            end = start.min(self.best.lines.len());
        }
    }

    fn with_shorter_runs(&mut self) {
        for at in 0..self.best.lines.len() {
            while let Some(line) = self.best.lines.get(at)
                && let Act::Run(steps @ 2..) = line.act
            {
                let mut shorter = self.best.clone();
                shorter.lines[at].act = Act::Run(steps / 2);
                if self.tries > TRIES_MAX || !self.fails(shorter) {
                    break;
                }
            }
        }
    }
}
