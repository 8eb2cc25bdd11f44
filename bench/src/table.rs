//! The figures as text: a table for people, JSON for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::limits::Limit;
use crate::measure::Samples;
use crate::rows::Row;
use crate::subjects;

/// A run and its figures.
pub struct Report {
    /// The processor, as it calls itself.
    pub processor: String,
    /// The CPU of the host that all ran on.
    pub cpu: usize,
    /// What the random order was made from.
    pub seed: u64,
    /// Whether it was a quick run.
    pub quick: bool,
    /// The host's load average when the run began.
    pub load: String,
    /// Each row with the samples of every subject.
    pub rows: Vec<(&'static Row, [Samples; 4])>,
    /// Each limit with its samples.
    pub limits: Vec<(&'static Limit, Samples)>,
}

const REFERENCE: &str = "Linux 6.12, another machine";
const THERE: &str = "that machine";
const CELL: usize = 19;

impl Report {
    /// Aligned columns. `colour`: the ratio is green at or under the goal, yellow at or under twice
    /// the goal, and red above.
    pub fn text(&self, colour: bool) -> String {
        let mut out = format!(
            "{}, pinned to cpu {}, load {} at the start, {} run, seed {}\n",
            self.processor,
            self.cpu,
            self.load,
            if self.quick { "quick" } else { "full" },
            self.seed
        );
        // Writing to a String does not fail.
        let _ = self.write_rows(&mut out, colour);
        let _ = self.write_limits(&mut out);
        out
    }

    fn write_rows(&self, out: &mut String, colour: bool) -> std::fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\nleast and median of the repetitions; kmem is host and desk; host counts\n"
        )?;
        write!(out, "{:17} {:10}", "row", "unit")?;
        for name in &subjects::NAMES[..2] {
            write!(out, " {name:>CELL$}")?;
        }
        write!(out, " {:>6} {:>9}", "goal", "host/goal")?;
        for name in &subjects::NAMES[2..] {
            write!(out, " {name:>CELL$}")?;
        }
        writeln!(out, "   {REFERENCE}")?;
        for (row, samples) in &self.rows {
            write!(out, "{:17} {:10}", row.name, row.unit)?;
            let [host, desk, buddy, bitmap] = samples;
            write!(out, " {:>CELL$} {:>CELL$} {:>6}", cell(host), cell(desk), row.goal)?;
            match host.min().map(|least| least / row.goal) {
                Some(ratio) => write!(out, " {}", paint(ratio, colour))?,
                None => write!(out, " {:>9}", "-")?,
            }
            let reference = REFERENCE.len();
            let linux = row.linux;
            writeln!(out, " {:>CELL$} {:>CELL$}   {linux:>reference$}", cell(buddy), cell(bitmap))?;
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
        let rows = self.rows.iter().map(|(row, samples)| {
            let mut figures = serde_json::Map::new();
            for (name, samples) in subjects::NAMES.iter().zip(samples) {
                figures.insert((*name).into(), figure(samples));
            }
            json!({
                "name": row.name,
                "unit": row.unit,
                "goal": row.goal,
                "host_to_goal": samples[0].min().map(|least| least / row.goal),
                "figures": figures,
                "linux_6_12_another_machine": row.linux,
            })
        });
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
            "cpu": self.cpu,
            "load": self.load,
            "quick": self.quick,
            "seed": self.seed,
            "rows": rows.collect::<Vec<_>>(),
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
