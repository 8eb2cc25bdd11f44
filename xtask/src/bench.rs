//! `cargo xtask bench`: the package `bench`, built as users build it.

use anyhow::Result;

use crate::workspace::{Workspace, run};

pub fn run_bench(ws: &Workspace, args: &[String]) -> Result<()> {
    run(ws.cargo(["run", "--release", "--package", "bench", "--"]).args(args))
}
