//! What the disk's five things cost: `cargo bench -p disk`. Each module says against which limit to read
//! its figures; where that can be measured, it stands beside them as `limit_…`, from the same run.
//!
//! The trees are in the temporary folder: `TMPDIR` chooses the volume, and a volume in memory has no
//! barriers to wait for. The figures are those of a warm cache.

mod apply;
mod give;
mod look;
mod tree;

fn main() {
    divan::main();
}
