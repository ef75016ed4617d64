//! Deliberate defects of the simulated disk: each is a way in which a sync tool loses data, and the
//! simulator has to find every one of them.

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The base is recorded although the content that was put in place is not durable.
    BaseBeforeData,
    /// A file is replaced by a plain rename over it: what is there in that moment is gone.
    RenameInsteadOfExchange,
    /// A folder that cannot be listed is taken for an empty one.
    AbsenceFromUnreadable,
    /// A batch is reported as applied before its rows are durable.
    AckBeforeDurable,
    /// What a batch is about to agree on is not written down before its first change.
    NoIntent,
    /// Tombstones are forgotten before both sides have stored them.
    TombstonesEarly,
    /// Content is given and taken without a look at its hash.
    UnverifiedContent,
    /// What was found equal on both sides is not made durable before it is agreed on.
    NoSyncBeforeAgreeing,
    /// What is displaced is removed instead of kept.
    NotKept,
    /// A look believes what it read although an apply changed it meanwhile.
    LookBelievesAll,
    /// After a crash the stage is emptied without a look at what lies in it.
    StageEmptied,
    /// Content is sent without being made durable on the side that gives it.
    GivenBeforeDurable,
    /// Directories are not made durable before a batch is recorded.
    DirectoriesNotSynced,
    /// The guard lets everything pass.
    GuardAsleep,
    /// Marks do not say what stood there before.
    MarksWithoutPast,
    /// Marks do not say that what was written was not agreed on.
    MarksWithoutEdits,
    /// What a round takes away from the mirror lies in no trash.
    RemovedForGood,
    /// What was not looked at since the start counts as deleted.
    AbsenceBeforeSweep,
    /// Nobody notes which copies of the mirror the trees were equal to.
    TrailsNotNoted,
}
