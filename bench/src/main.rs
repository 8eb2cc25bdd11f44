//! kmem beside its peers: `cargo run --release -p bench -- [--quick] [--json] [--filter NAME]`.
//!
//! ```text
//!   measure.rs           pinning, repeating, random numbers
//!   table.rs             the figures as text
//!   limits.rs            what this processor charges for locks and the like
//!
//!   pages:
//!   rows.rs              the rows, their goals, and the work of each
//!   subjects.rs          who is measured: kmem hosted, kmem on a desk, two peers
//!   peers.rs             all of them behind one trait
//!
//!   objects:
//!   objects.rs           the rows, their goals, and the work of one thread
//!   threads.rs           the work of two
//!   held.rs              bytes held for the bytes asked for
//!   object_subjects.rs   who is measured: kmem hosted, kmem on a desk, four peers
//!   heaps.rs             all of them behind one trait
//!
//!   mappings.rs          the rows of areas and of booting large machines
//! ```

mod heaps;
mod held;
mod limits;
mod mappings;
mod measure;
mod object_subjects;
mod objects;
mod peers;
mod rows;
mod subjects;
mod table;
mod threads;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use limits::{LIMITS, With};
use mappings::MappingSubjects;
use measure::{HostCpus, Plan, Samples};
use object_subjects::ObjectSubjects;
use subjects::{Ram, Subjects};
use table::{Report, Table};

#[global_allocator]
static HEAP: peers::CountingHeap = peers::CountingHeap;

const USAGE: &str = "\
usage: bench [--quick] [--json] [--filter NAME] [--seed N]

  --quick        fewer repetitions: about a minute
  --json         figures for scripts
  --filter NAME  only rows and limits whose name contains NAME
  --seed N       the random order of shuffled rows (default 2463534242)
  --help         this text

mimalloc and snmalloc are measured where they were built. That takes cc, c++ and cmake, and this command:
";

/// What the command line asks for.
struct Options {
    quick: bool,
    json: bool,
    filter: Option<String>,
    seed: u64,
    /// The bench runs itself so, to see what a peer holds: the filter is the row.
    held_by: Option<String>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}\n    {}", object_subjects::WITH_ALL);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match &options.held_by {
        None => run(&options).map(Some),
        Some(name) => print_held(name, &options).map(|()| None),
    };
    match done {
        Ok(None) => {}
        Ok(Some(report)) if options.json => println!("{:#}", report.json()),
        Ok(Some(report)) => {
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
    let mut options =
        Options { quick: false, json: false, filter: None, seed: 2_463_534_242, held_by: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value; see --help"));
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--filter" => options.filter = Some(value()?),
            "--held-by" => options.held_by = Some(value()?),
            "--seed" => {
                let text = value()?;
                options.seed =
                    text.parse().map_err(|_| format!("--seed {text:?} is not a number"))?;
            }
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{arg:?} is no option; see --help")),
        }
    }
    let names = || {
        let pages = rows::ROWS.iter().map(|row| row.name);
        let objects = objects::ROWS.iter().map(|row| row.name);
        let mappings = mappings::ROWS.iter().map(|row| row.name);
        pages.chain(objects).chain(mappings).chain(LIMITS.iter().map(|limit| limit.name))
    };
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
    let cpus = HostCpus::pin()?;
    let wanted = LIMITS.iter().filter(|limit| options.wants(limit.name));
    let mut report = Report {
        processor: processor(),
        cpus,
        seed: options.seed,
        quick: options.quick,
        load: load(),
        pages: Table::new(subjects::NAMES, &rows::ROWS, |name| options.wants(name)),
        objects: Table::new(object_subjects::NAMES, &objects::ROWS, |name| options.wants(name)),
        mappings: Table::new(mappings::NAMES, &mappings::ROWS, |name| options.wants(name)),
        limits: wanted.map(|limit| (limit, Samples::new())).collect(),
    };

    // Writing a desk's memory takes a second: not for rows that are not wanted.
    let (mut page_ram, mut object_ram, mut mapping_ram) = (None, None, None);
    let mut pages = match report.pages.is_empty() {
        true => None,
        false => Some(Subjects::boot(page_ram.insert(Ram::for_desk()), options.seed)?),
    };
    let objects = match report.objects.is_empty() {
        true => None,
        false => {
            let ram = object_ram.insert(Ram::for_desk());
            Some(ObjectSubjects::boot(ram, cpus, options.seed)?)
        }
    };
    let mappings = match report.mappings.is_empty() {
        true => None,
        false => Some(MappingSubjects::boot(mapping_ram.insert(MappingSubjects::ram()))?),
    };
    for round in 0..plan.rounds {
        for (limit, samples) in &mut report.limits {
            samples.extend(limit.measure(&plan, With { seed: options.seed, cpus }));
        }
        if let Some(pages) = &mut pages {
            report.pages.extend(|row| pages.measure(row, &plan))?;
        }
        if let Some(mappings) = &mappings {
            report.mappings.extend(|row| mappings.measure(row, &plan))?;
        }
        if let Some(objects) = &objects {
            // Bytes are the same every time.
            report.objects.extend(|row| match row.work.is_timed() || round == 0 {
                true => objects.measure(row, &plan),
                false => Ok(Default::default()),
            })?;
        }
    }
    if let Some(mappings) = mappings {
        mappings.check()?;
    }
    if let Some(pages) = pages {
        pages.check()?;
    }
    if let Some(objects) = objects {
        objects.check()?;
    }
    Ok(report)
}

/// What a peer holds, for the process that asks for it.
fn print_held(name: &str, options: &Options) -> Result<(), Box<dyn Error>> {
    let row = options.filter.as_deref().unwrap_or_default();
    println!("{}", held::measure_here(name, row, options.seed)?);
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Option<Options>, String> {
        parse(args.iter().map(|arg| (*arg).to_string()))
    }

    #[test]
    fn a_filter_names_rows_of_pages_objects_and_limits() {
        for filter in ["order-0 pair", "kmalloc 64", "xchg"] {
            let options = parsed(&["--filter", filter]).unwrap().unwrap();
            assert!(options.wants(filter) && !options.wants("boot"));
        }
        let error = parsed(&["--filter", "nothing"]).err().unwrap();
        assert!(error.contains("kmalloc 64 fifo"), "{error}");
    }

    #[test]
    fn what_is_no_option_or_lacks_its_value_is_refused() {
        assert_eq!(parsed(&["--fast"]).err().unwrap(), "\"--fast\" is no option; see --help");
        assert_eq!(parsed(&["--seed"]).err().unwrap(), "--seed needs a value; see --help");
        assert_eq!(parsed(&["--seed", "x"]).err().unwrap(), "--seed \"x\" is not a number");
        assert!(parsed(&["--help"]).unwrap().is_none());
    }
}
