//! The figures as text: a table for people, JSON for scripts.

use std::error::Error;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::limits::Limit;
use crate::measure::{HostCpus, Samples};
use crate::object_subjects::{LEFT_OUT, WITH_ALL};
use crate::rows::{Counts, Row};
use crate::{mappings, objects, rows};

/// A run and its figures.
pub struct Report {
    /// The processor, as it calls itself.
    pub processor: String,
    /// The CPUs of the host that all ran on.
    pub cpus: HostCpus,
    /// What random orders and sizes were made from.
    pub seed: u64,
    /// Whether it was a quick run.
    pub quick: bool,
    /// The host's load average when the run began.
    pub load: String,
    /// The rows of pages.
    pub pages: Table<rows::Work, 4>,
    /// The rows of objects.
    pub objects: Table<objects::Work, 6>,
    /// The rows of mappings.
    pub mappings: Table<mappings::Work, 2>,
    /// Each limit with its samples.
    pub limits: Vec<(&'static Limit, Samples)>,
}

/// Rows, with the samples of each subject. The first two subjects are kmem's.
pub struct Table<W: 'static, const SUBJECTS: usize> {
    names: [&'static str; SUBJECTS],
    rows: Vec<(&'static Row<W>, [Samples; SUBJECTS])>,
}

const REFERENCE: &str = "Linux 6.12, another machine";
const THERE: &str = "that machine";
const CELL: usize = 19;

impl<W, const SUBJECTS: usize> Table<W, SUBJECTS> {
    /// Without samples yet. Rows are those whose name is wanted.
    pub fn new(
        names: [&'static str; SUBJECTS],
        rows: &'static [Row<W>],
        wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let rows = rows.iter().filter(|row| wanted(row.name));
        Table { names, rows: rows.map(|row| (row, [const { Samples::new() }; SUBJECTS])).collect() }
    }

    /// Whether no row was wanted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a round of every row.
    pub fn extend(
        &mut self,
        mut measure: impl FnMut(&Row<W>) -> Result<[Vec<f64>; SUBJECTS], Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        for (row, samples) in &mut self.rows {
            for (samples, more) in samples.iter_mut().zip(measure(row)?) {
                samples.extend(more);
            }
        }
        Ok(())
    }

    /// The first column is what counts against the goal.
    fn write(&self, out: &mut String, what: &str, colour: bool) -> std::fmt::Result {
        let Some(width) = self.rows.iter().map(|(row, _)| row.name.len()).max() else {
            return Ok(());
        };
        writeln!(
            out,
            "\n{what}: least and median of the repetitions; kmem is {0} and {1}; {0} counts\n",
            self.names[0], self.names[1]
        )?;
        write!(out, "{:width$} {:10}", "row", "unit")?;
        for name in &self.names[..2] {
            write!(out, " {name:>CELL$}")?;
        }
        write!(out, " {:>6} {:>9}", "goal", "of goal")?;
        for name in &self.names[2..] {
            write!(out, " {name:>CELL$}")?;
        }
        writeln!(out, "   {REFERENCE}")?;
        for (row, samples) in &self.rows {
            write!(out, "{:width$} {:10}", row.name, row.unit)?;
            for samples in &samples[..2] {
                write!(out, " {:>CELL$}", cell(samples))?;
            }
            write!(out, " {:>6}", row.goal)?;
            match ratio(row, &samples[0]) {
                Some(ratio) => write!(out, " {}", paint(ratio, colour))?,
                None => write!(out, " {:>9}", "-")?,
            }
            for samples in &samples[2..] {
                write!(out, " {:>CELL$}", cell(samples))?;
            }
            let linux = row.linux.map_or("-".into(), |linux| linux.to_string());
            writeln!(out, "   {linux:>width$}", width = REFERENCE.len())?;
        }
        Ok(())
    }

    fn json(&self) -> Vec<Value> {
        let row = |(row, samples): &(&Row<W>, [Samples; SUBJECTS])| {
            let mut figures = serde_json::Map::new();
            for (name, samples) in self.names.iter().zip(samples) {
                figures.insert((*name).into(), figure(samples));
            }
            json!({
                "name": row.name,
                "unit": row.unit,
                "goal": row.goal,
                "counts": match row.counts { Counts::Least => "min", Counts::Median => "median" },
                "host_to_goal": ratio(row, &samples[0]),
                "figures": figures,
                "linux_6_12_another_machine": row.linux,
            })
        };
        self.rows.iter().map(row).collect()
    }
}

/// Times the goal.
fn ratio<W>(row: &Row<W>, host: &Samples) -> Option<f64> {
    Some(row.counts.figure(host)? / row.goal)
}

impl Report {
    /// Aligned columns. `colour`: the ratio is green at or under the goal, yellow at or under twice
    /// the goal, and red above.
    pub fn text(&self, colour: bool) -> String {
        let mut out = format!(
            "{}, pinned to cpu {}, load {} at the start, {} run, seed {}\n",
            self.processor,
            self.cpus.own,
            self.load,
            if self.quick { "quick" } else { "full" },
            self.seed
        );
        // Writing to a String does not fail.
        let _ = self.pages.write(&mut out, "pages", colour);
        let _ = self.write_objects(&mut out, colour);
        let _ = self.mappings.write(&mut out, "mappings", colour);
        let _ = self.write_limits(&mut out);
        out
    }

    fn write_objects(&self, out: &mut String, colour: bool) -> std::fmt::Result {
        self.objects.write(out, "objects", colour)?;
        if self.objects.is_empty() {
            return Ok(());
        }
        if self.objects.rows.iter().any(|(row, _)| row.counts == Counts::Median) {
            match self.cpus.other {
                Some(other) => writeln!(
                    out,
                    "\nmixed, 2 threads and remote free: the second thread on cpu {other}; of host the \
                     median counts"
                )?,
                None => writeln!(
                    out,
                    "\nmixed, 2 threads and remote free were left out: the program may use one cpu"
                )?,
            }
        }
        if !LEFT_OUT.is_empty() {
            let names = LEFT_OUT.join(" and ");
            writeln!(
                out,
                "\n{names} were left out: they are built from C and C++. With cc, c++ and cmake there:\n    \
                 {WITH_ALL}"
            )?;
        }
        Ok(())
    }

    fn write_limits(&self, out: &mut String) -> std::fmt::Result {
        if self.limits.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\nlimits of this processor, ns, beside the machine of the goals and of Linux's figures\n"
        )?;
        writeln!(out, "{:28} {:>CELL$} {THERE:>14} {:>11}", "limit", "here", "here/there")?;
        for (limit, samples) in &self.limits {
            let (there, ratio) = match (limit.there, samples.min()) {
                (Some(there), Some(least)) => (number(there), format!("{:.2}", least / there)),
                _ => ("-".into(), "-".into()),
            };
            writeln!(out, "{:28} {:>CELL$} {there:>14} {ratio:>11}", limit.name, cell(samples))?;
        }
        Ok(())
    }

    /// One object. A figure is `{"min", "median", "repetitions"}`, or null where there is none.
    pub fn json(&self) -> Value {
        let limits = self.limits.iter().map(|(limit, samples)| {
            json!({
                "name": limit.name,
                "unit": "ns",
                "here": figure(samples),
                "that_machine": limit.there,
            })
        });
        json!({
            "processor": self.processor,
            "cpu": self.cpus.own,
            "second_cpu": self.cpus.other,
            "load": self.load,
            "quick": self.quick,
            "seed": self.seed,
            "rows": self.pages.json(),
            "objects": self.objects.json(),
            "mappings": self.mappings.json(),
            "left_out": LEFT_OUT,
            "limits": limits.collect::<Vec<_>>(),
        })
    }
}

fn figure(samples: &Samples) -> Value {
    match (samples.min(), samples.median()) {
        (Some(min), Some(median)) => {
            json!({ "min": min, "median": median, "repetitions": samples.count() })
        }
        _ => Value::Null,
    }
}

/// The least and the median.
fn cell(samples: &Samples) -> String {
    match (samples.min(), samples.median()) {
        (Some(min), Some(median)) => format!("{:>8} {:>8}", number(min), number(median)),
        _ => "-".into(),
    }
}

/// Three digits, however large.
fn number(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn paint(ratio: f64, colour: bool) -> String {
    let text = format!("{ratio:>9.2}");
    let code = match ratio {
        r if r <= 1.0 => 32,
        r if r <= 2.0 => 33,
        _ => 31,
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::new();
        samples.extend(values.to_vec());
        samples
    }

    fn row(counts: Counts) -> Row<()> {
        Row { name: "row", work: (), unit: "ns", goal: 10.0, linux: None, counts }
    }

    #[test]
    fn the_least_counts_for_one_thread_and_the_median_for_two() {
        let host = samples(&[30.0, 5.0, 20.0]);
        assert_eq!(ratio(&row(Counts::Least), &host), Some(0.5));
        assert_eq!(ratio(&row(Counts::Median), &host), Some(2.0));
        assert_eq!(ratio(&row(Counts::Least), &samples(&[])), None);
    }

    #[test]
    fn a_subject_without_figures_is_a_dash_and_null() {
        static ROWS: [Row<()>; 1] = [Row {
            name: "row",
            work: (),
            unit: "ns",
            goal: 10.0,
            linux: None,
            counts: Counts::Least,
        }];
        let mut table = Table::new(["host", "desk", "peer"], &ROWS, |_| true);
        table.extend(|_| Ok([vec![20.0], vec![2.0], vec![]])).unwrap();
        let mut text = String::new();
        table.write(&mut text, "objects", false).unwrap();
        let words: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words, ["row", "ns", "20.0", "20.0", "2.00", "2.00", "10", "2.00", "-", "-"]);
        let json = &table.json()[0];
        assert_eq!(json["host_to_goal"], 2.0);
        assert_eq!(json["figures"]["peer"], Value::Null);
    }
}
