//! `make bench`: what stockade costs, beside what it is compared with, in one run of the lab.
//!
//! Every figure is a count of instructions (see `tests/bench/run`), median of several runs after one that is thrown
//! away. The benchmark reports; it asserts nothing. Arguments name the parts to run: `tests/bench/run network`.

mod io;
mod kernel;
mod measure;
mod network;
mod pod;
mod scenario;
mod stage;

use std::process::Command;

use anyhow::{Result, bail};
use stockade_tests::cli::built;
use stockade_tests::engine::BY_RUNCS_SHIM;

use crate::measure::{Between, Run, median_and_spread};
use crate::network::Figures;
use crate::pod::Kubelet;
use crate::scenario::{Scenario, Sizes};

/// Runs that count, after the one that is thrown away.
const RUNS: usize = 5;

/// A part of the benchmark: its name as an argument, and what measures it.
type Part = (&'static str, fn(&Scenario) -> Result<()>);

const PARTS: [Part; 8] = [
    ("start-up", start_up),
    ("set-up", set_up),
    ("output", output),
    ("io", io),
    ("network", network),
    ("pod", pods),
    ("parts", parts),
    ("kernel", dearest_initcalls),
];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        bail!("no part {unknown:?}: there are {}", PARTS.map(|(name, _)| name).join(", "));
    }
    let scenario = Scenario::prepare()?;
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure(&scenario)?;
        }
    }
    Ok(())
}

fn start_up(scenario: &Scenario) -> Result<()> {
    println!(
        "Millions of instructions, median of {RUNS} runs (spread): from exec to the container's first instruction, waiting \
         included; the work until its end, when all is cleaned up; and, in the same unit, what the machine waits meanwhile \
         (it has nothing to do, and its clock runs ahead to the next timer):\n"
    );
    println!("| | first instruction | work in all | waiting in all |");
    println!("|---|---:|---:|---:|");
    for (name, size) in
        [("stockade run, 128 MiB", Sizes::Small), ("stockade run, default size", Sizes::Default)]
    {
        row(name, || start(scenario, size))?;
    }
    let clones = [
        ("stockade run, 128 MiB, from a template", Sizes::SmallClone),
        ("stockade run, default size, from a template", Sizes::DefaultClone),
    ];
    for (name, size) in clones {
        scenario.make_template(size)?;
        row(name, || start(scenario, size))?;
    }
    row("crun run", || scenario.host_runtime("crun"))?;
    row("runc run", || scenario.host_runtime("runc"))?;
    row("qemu -M microvm, same kernel, 128 MiB", || scenario.qemu())?;
    Ok(())
}

/// The container's first instruction, of a run that logs when that was; work and waiting, of one that logs nothing.
fn start(scenario: &Scenario, size: Sizes) -> Result<(u64, Between)> {
    Ok((scenario.stockade(size)?.container, scenario.quiet(size)?))
}

fn set_up(scenario: &Scenario) -> Result<()> {
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
    Ok(())
}

fn output(scenario: &Scenario) -> Result<()> {
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
    Ok(())
}

fn io(scenario: &Scenario) -> Result<()> {
    println!(
        "\nFiles and output, millions of instructions of host and guest together (spread), without those of starting a \
         process:\n"
    );
    let [stockade, crun, runc] = [scenario.io(None)?, scenario.io(Some("crun"))?, scenario.io(Some("runc"))?];
    println!("| | stockade | crun | runc | of crun's rate |\n|---|---:|---:|---:|---:|");
    let cell = |cost: u64, spread: u64| format!("{} ({})", millions(cost), millions(spread));
    let [mine, crun_nothing, runc_nothing] =
        [&stockade, &crun, &runc].map(|costs| cell(costs.nothing.0, costs.nothing.1));
    println!("| a process that does nothing | {mine} | {crun_nothing} | {runc_nothing} | |");
    for ((mine, crun), runc) in stockade.commands.iter().zip(&crun.commands).zip(&runc.commands) {
        let rate = crun.1 as f64 / mine.1.max(1) as f64;
        let [mine_cell, crun_cell, runc_cell] =
            [mine, crun, runc].map(|(_, cost, spread)| cell(*cost, *spread));
        println!("| {} | {mine_cell} | {crun_cell} | {runc_cell} | {rate:.2} |", mine.0);
    }
    println!("\nOne request to the file server: {:.1} thousand instructions.", stockade.request as f64 / 1e3);
    Ok(())
}

fn network(scenario: &Scenario) -> Result<()> {
    println!(
        "\nTCP between the host and a container over a veth pair, median of {RUNS} runs (spread): MB for 1000 M instructions of \
         host and guest together, and thousands of instructions for one byte there and back:\n"
    );
    println!("| | to the container | from it | there and back |\n|---|---:|---:|---:|");
    for (name, host_runtime) in [("stockade", None), ("runc", Some("runc"))] {
        let runs = repeat(|| scenario.network(host_runtime))?;
        let column = |figure: fn(&Figures) -> u64| {
            let (middle, spread) = median_and_spread(runs.iter().map(figure).collect());
            format!("{middle} ({spread})")
        };
        let (to, from) = (column(Figures::rate_to), column(Figures::rate_from));
        println!("| {name} | {to} | {from} | {} |", column(|figures| figures.round_trip / 1000));
    }
    Ok(())
}

fn pods(_: &Scenario) -> Result<()> {
    // Otherwise the first pods boot, and it is made beside those after them.
    Run::of(Command::new(built("release/stockade")).args(["template", "build"]))?;
    println!(
        "\nA pod through containerd's CRI, with CNI's network and one container of busybox, median of {RUNS} runs (spread): \
         millions of instructions of host and guest together; milliseconds in all that pass besides, the machine \
         being idle; and what the idle pod takes, in MiB, with (without) what pods share of files:\n"
    );
    println!(
        "| | RunPodSandbox | container created and started, to its first line | ExecSync of `true` | StopPodSandbox and \
         RemovePodSandbox | waiting | idle |\n|---|---:|---:|---:|---:|---:|---:|"
    );
    let kubelet = Kubelet::new();
    for (name, runtime, limit) in [
        ("stockade, limit 128 MiB", "stockade", Some(128 << 20)),
        ("stockade, default size", "stockade", None),
        ("stockade, default size, by runc's shim", BY_RUNCS_SHIM, None),
        ("runc", "runc", None),
    ] {
        let runs = repeat(|| kubelet.measure(runtime, limit))?;
        let work = |figure: fn(&pod::Figures) -> u64| column(runs.iter().map(figure).collect());
        let (sandbox, container) = (work(|run| run.sandbox), work(|run| run.container));
        let (exec, end) = (work(|run| run.exec), work(|run| run.end));
        let waiting = median(&runs, |run| run.waiting) / 1_000_000;
        let mib = |figure: fn(&pod::Figures) -> u64| median(&runs, figure) as f64 / 1024.0;
        let (all, own) = (mib(|run| run.idle.all_kib), mib(|run| run.idle.own_kib));
        println!("| {name} | {sandbox} | {container} | {exec} | {end} | {waiting} | {all:.1} ({own:.1}) |");
    }
    Ok(())
}

fn parts(scenario: &Scenario) -> Result<()> {
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
            ("**all of it: work**", median(&runs, |run| run.between.work)),
            ("**all of it: waiting**", median(&runs, |run| run.between.waiting)),
        ] {
            println!("| {part} | {} |", millions(cost));
        }
        println!("\nVMM's resident memory without guest RAM: {} KiB", median(&runs, |run| run.vmm_kib));
    }
    Ok(())
}

fn dearest_initcalls(scenario: &Scenario) -> Result<()> {
    println!("\nThe guest kernel's dearest initcalls (with the cost of timing each):\n");
    println!("| initcall | M instructions |\n|---|---:|");
    for (name, cost) in kernel::dearest_initcalls(scenario)? {
        println!("| {name} | {} |", millions(cost));
    }
    Ok(())
}

fn row(name: &str, mut run: impl FnMut() -> Result<(u64, Between)>) -> Result<()> {
    let runs = repeat(&mut run)?;
    let first = column(runs.iter().map(|run| run.0).collect());
    let work = column(runs.iter().map(|run| run.1.work).collect());
    let waiting = column(runs.iter().map(|run| run.1.waiting).collect());
    println!("| {name} | {first} | {work} | {waiting} |");
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
