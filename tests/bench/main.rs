//! `make bench`: what stockade costs, beside what it is compared with, in one run of the lab.
//!
//! Every figure is a count of instructions (see `tests/bench/run`), median of several runs after one that is thrown
//! away. The benchmark reports; it asserts nothing.

mod kernel;
mod measure;
mod scenario;
mod stage;

use anyhow::Result;

use crate::measure::median_and_spread;
use crate::scenario::{Scenario, Sizes};

/// Runs that count, after the one that is thrown away.
const RUNS: usize = 5;

fn main() -> Result<()> {
    let scenario = Scenario::prepare()?;

    println!("Millions of instructions, median of {RUNS} runs (spread), from exec to …\n");
    println!("| | container's first instruction | its end, all cleaned up |");
    println!("|---|---:|---:|");
    for (name, size) in
        [("stockade run, 128 MiB", Sizes::Small), ("stockade run, default size", Sizes::Default)]
    {
        row(name, || scenario.stockade(size).map(|run| (run.container, run.end)))?;
    }
    row("crun run", || scenario.host_runtime("crun"))?;
    row("runc run", || scenario.host_runtime("runc"))?;
    row("qemu -M microvm, same kernel, 128 MiB", || scenario.qemu())?;

    println!(
        "\nA container's set-up, millions of instructions, median of {RUNS} runs (spread): the agent's from the request to its \
         answer, both on the host, and a whole `create`:\n"
    );
    println!("| | up to created |\n|---|---:|");
    let agent = repeat(|| scenario.stockade(Sizes::Default).map(|run| run.created - run.create))?;
    println!("| stockade's agent | {} |", column(agent));
    for program in ["crun", "runc"] {
        println!("| {program} create | {} |", column(repeat(|| scenario.host_create(program))?));
    }

    println!(
        "\nStandard output, MB for 1000 M instructions of host and guest together, median of {RUNS} runs (spread):\n"
    );
    println!("| | rate |\n|---|---:|");
    for (name, host_runtime) in [("stockade run", None), ("crun run", Some("crun"))] {
        let runs = repeat(|| scenario.output(host_runtime))?;
        let (rate, spread) =
            median_and_spread(runs.iter().map(|(bytes, ticks)| bytes * 1000 / ticks).collect());
        println!("| {name} | {rate} ({spread}) |");
    }

    for (name, size) in [("128 MiB", Sizes::Small), ("the default size", Sizes::Default)] {
        let runs = repeat(|| scenario.stockade(size))?;
        println!("\nWhere they go at {name}:\n\n| part | M instructions |\n|---|---:|");
        for (part, cost) in [
            ("runtime, to the start of the VMM", median(&runs, |run| run.vmm_start)),
            ("VMM, exec to its main", median(&runs, |run| run.vmm_main - run.vmm_start)),
            (
                "VMM to the first guest instruction, the runtime's preparation beside it",
                median(&runs, |run| run.vmm_run - run.vmm_main),
            ),
            ("guest kernel, to the agent's first instruction", median(&runs, |run| run.agent - run.vmm_run)),
            ("agent and runtime, to the container's first", median(&runs, |run| run.container - run.agent)),
            ("end of the container and cleaning up", median(&runs, |run| run.end - run.container)),
            ("**exec of stockade-vmm to the agent**", median(&runs, |run| run.agent - run.vmm_start)),
        ] {
            println!("| {part} | {} |", millions(cost));
        }
        println!("\nVMM's resident memory without guest RAM: {} KiB", median(&runs, |run| run.vmm_kib));
    }

    println!("\nThe guest kernel's dearest initcalls (with the cost of timing each):\n");
    println!("| initcall | M instructions |\n|---|---:|");
    for (name, cost) in kernel::dearest_initcalls(&scenario)? {
        println!("| {name} | {} |", millions(cost));
    }
    Ok(())
}

fn row(name: &str, mut run: impl FnMut() -> Result<(u64, u64)>) -> Result<()> {
    let runs = repeat(&mut run)?;
    let first = column(runs.iter().map(|run| run.0).collect());
    let end = column(runs.iter().map(|run| run.1).collect());
    println!("| {name} | {first} | {end} |");
    Ok(())
}

fn column(values: Vec<u64>) -> String {
    let (median, spread) = median_and_spread(values);
    format!("{} ({})", millions(median), millions(spread))
}

fn repeat<T>(mut run: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    run()?;
    (0..RUNS).map(|_| run()).collect()
}

fn median<T>(runs: &[T], value: impl Fn(&T) -> u64) -> u64 {
    median_and_spread(runs.iter().map(value).collect()).0
}

fn millions(instructions: u64) -> String {
    format!("{:.1}", instructions as f64 / 1e6)
}
