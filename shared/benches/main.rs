//! What the contract costs: `cargo bench -p shared`. Each module says against which limit to read its
//! figures; where that can be measured, it stands beside them as `limit_…`, from the same run.

mod content;
mod frame;
mod plan;

fn main() {
    divan::main();
}
