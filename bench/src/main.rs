//! kmem beside its peers: `cargo run --release -p bench -- [--quick] [--json] [--filter NAME]`.
//!
//! ```text
//!   rows.rs      the rows, their goals, and the work of each
//!   subjects.rs  who is measured: kmem hosted, kmem on a desk, two peers
//!   peers.rs     all of them behind one trait
//!   limits.rs    what this processor charges for locks and the like
//!   measure.rs   pinning, repeating, the random order
//!   table.rs     the figures as text
//! ```

mod limits;
mod measure;
mod peers;
mod rows;
mod subjects;
mod table;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use limits::LIMITS;
use measure::{Plan, Samples};
use rows::ROWS;
use subjects::{Ram, Subjects};
use table::Report;

#[global_allocator]
static HEAP: peers::CountingHeap = peers::CountingHeap;

const USAGE: &str = "\
usage: bench [--quick] [--json] [--filter NAME] [--seed N]

  --quick        fewer repetitions: under half a minute
  --json         figures for scripts
  --filter NAME  only rows and limits whose name contains NAME
  --seed N       the random order of shuffled rows (default 2463534242)
  --help         this text
";

/// What the command line asks for.
struct Options {
    quick: bool,
    json: bool,
    filter: Option<String>,
    seed: u64,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) if options.json => println!("{:#}", report.json()),
        Ok(report) => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print!("{}", report.text(colour));
        }
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// `None`: only the usage is wanted.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { quick: false, json: false, filter: None, seed: 2_463_534_242 };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value; see --help"));
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--filter" => options.filter = Some(value()?),
            "--seed" => {
                let text = value()?;
                options.seed =
                    text.parse().map_err(|_| format!("--seed {text:?} is not a number"))?;
            }
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{arg:?} is no option; see --help")),
        }
    }
    let names = || ROWS.iter().map(|row| row.name).chain(LIMITS.iter().map(|limit| limit.name));
    if !names().any(|name| options.wants(name)) {
        let filter = options.filter.unwrap_or_default();
        let names: Vec<_> = names().collect();
        return Err(format!("no row's name contains {filter:?}; there are: {}", names.join("; ")));
    }
    Ok(Some(options))
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }
}

fn run(options: &Options) -> Result<Report, Box<dyn Error>> {
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    let mut report = Report {
        processor: processor(),
        cpu: measure::pin()?,
        seed: options.seed,
        quick: options.quick,
        load: load(),
        rows: Vec::new(),
        limits: Vec::new(),
    };
    let wanted = ROWS.iter().filter(|row| options.wants(row.name));
    report.rows = wanted.map(|row| (row, [const { Samples::new() }; 4])).collect();
    let wanted = LIMITS.iter().filter(|limit| options.wants(limit.name));
    report.limits = wanted.map(|limit| (limit, Samples::new())).collect();

    let mut ram = Ram::for_desk();
    let mut subjects = Subjects::boot(&mut ram, options.seed)?;
    for _ in 0..plan.rounds {
        for (limit, samples) in &mut report.limits {
            samples.extend(limit.measure(&plan, options.seed));
        }
        for (row, samples) in &mut report.rows {
            for (samples, more) in samples.iter_mut().zip(subjects.measure(row, &plan)?) {
                samples.extend(more);
            }
        }
    }
    subjects.check()?;
    Ok(report)
}

/// What the processor calls itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown processor".into(), |(_, name)| name.trim().into())
}

/// The load average of the last minute: other work disturbs.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").into()
}
