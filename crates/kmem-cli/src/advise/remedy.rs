//! What to do where there is no advice. Every remedy is tried before it is told: whoever follows one gets
//! an answer.

use std::fmt;

use kmem_host::description::format_size;

use super::advice::Advice;
use super::decide::answer;
use super::limits::Limits;
use super::need::{Context, Contiguity, Lifetime, Need, Purpose, word};

/// How many remedies are told: more are no help.
const TOLD: usize = 2;

/// How many changes at once are tried: one for each thing that a question is about.
const AT_ONCE: usize = 4;

/// Why there is no advice, and what is worth a try, best first.
#[derive(Clone, Debug)]
pub struct Refused {
    why: String,
    tries: Vec<Change>,
}

impl Refused {
    pub fn because(why: impl Into<String>) -> Self {
        Refused { why: why.into(), tries: Vec::new() }
    }

    pub fn or(mut self, change: Change) -> Self {
        self.tries.push(change);
        self
    }

    /// With those remedies that lead to an answer: of what was worth a try one change alone, and where
    /// none is enough the fewest of all that there are.
    pub fn with_remedies(self, need: &Need, machine: &Limits) -> Refusal {
        let works = |changes: &[Change]| {
            let remedy = Remedy::new(changes, need);
            remedy.follow(machine).is_some().then_some(remedy)
        };
        let mut remedies: Vec<Remedy> =
            self.tries.iter().filter_map(|change| works(std::slice::from_ref(change))).collect();
        remedies.truncate(TOLD);
        if remedies.is_empty() {
            let all: Vec<Change> = self.tries.into_iter().chain(changes(need, machine)).collect();
            remedies.extend((1..=AT_ONCE).find_map(|count| {
                let mut found = None;
                each_choice(&all, count, &mut Vec::new(), &mut |chosen| {
                    found = works(chosen);
                    found.is_some()
                });
                found
            }));
        }
        Refusal { why: self.why, remedies }
    }
}

/// Calls `look` with choices of `count` changes in order, of which no two are about one thing, until it
/// answers `true`.
fn each_choice(
    from: &[Change],
    count: usize,
    chosen: &mut Vec<Change>,
    look: &mut impl FnMut(&[Change]) -> bool,
) -> bool {
    if count == 0 {
        return look(chosen);
    }
    (0..from.len()).any(|index| {
        if chosen.iter().any(|change| change.is_about_as(&from[index])) {
            return false;
        }
        chosen.push(from[index].clone());
        let found = each_choice(&from[index + 1..], count - 1, chosen, look);
        chosen.pop();
        found
    })
}

/// Why there is no advice, in one line: what was asked, what stands against it, what to do.
#[derive(Clone, Debug)]
pub struct Refusal {
    why: String,
    /// Each leads to an answer.
    pub remedies: Vec<Remedy>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        for (index, remedy) in self.remedies.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "; give " } else { ", or " }, remedy.text)?;
        }
        Ok(())
    }
}

/// Another question, or another machine.
#[derive(Clone, Debug)]
pub struct Remedy {
    need: Need,
    /// `--mem` and what `--set` takes.
    mem: Option<u64>,
    settings: Vec<String>,
    /// The options that are other ones.
    text: String,
}

impl Remedy {
    fn new(changes: &[Change], need: &Need) -> Self {
        let text = changes.iter().map(Change::to_string).collect::<Vec<_>>().join(" ");
        let mut remedy = Remedy { need: need.clone(), mem: None, settings: Vec::new(), text };
        for change in changes {
            match change.clone() {
                Change::Size(size) => remedy.need.size = size,
                Change::Count(count) => remedy.need.count = count,
                Change::Context(context) => remedy.need.context = context,
                Change::Contiguity(contiguity) => remedy.need.contiguity = contiguity,
                Change::Lifetime(lifetime) => remedy.need.lifetime = lifetime,
                Change::Purpose(purpose) => remedy.need.purpose = purpose,
                Change::Mem(bytes) => remedy.mem = Some(bytes),
                Change::Set(setting) => remedy.settings.push(setting),
            }
        }
        remedy
    }

    /// The answer to whoever follows it.
    pub fn follow(&self, machine: &Limits) -> Option<Advice> {
        if self.mem.is_none() && self.settings.is_empty() {
            return answer(&self.need, machine).ok();
        }
        answer(&self.need, &machine.changed(self.mem, &self.settings)?).ok()
    }
}

/// Something else to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Size(u64),
    Count(u64),
    Context(Context),
    Contiguity(Contiguity),
    Lifetime(Lifetime),
    Purpose(Purpose),
    /// Another amount of RAM, in bytes.
    Mem(u64),
    /// Another setting of the machine.
    Set(String),
}

impl Change {
    fn is_about_as(&self, other: &Change) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Size(size) => write!(f, "--size {}", format_size(*size)),
            Change::Count(count) => write!(f, "--count {count}"),
            Change::Context(context) => write!(f, "--context {}", word(*context)),
            Change::Contiguity(contiguity) => write!(f, "--contiguity {}", word(*contiguity)),
            Change::Lifetime(lifetime) => write!(f, "--lifetime {}", word(*lifetime)),
            Change::Purpose(Purpose::Dma { bits, coherent: false }) => {
                write!(f, "--dma {bits} alone")
            }
            Change::Purpose(Purpose::Dma { bits, coherent: true }) => write!(f, "--dma {bits}"),
            Change::Purpose(Purpose::Software) => f.write_str("no --user, --high or --per-cpu"),
            Change::Purpose(Purpose::User) => f.write_str("--user"),
            Change::Purpose(Purpose::High) => f.write_str("--high"),
            Change::Purpose(Purpose::PerCpu) => f.write_str("--per-cpu"),
            Change::Mem(bytes) => write!(f, "--mem {}", format_size(*bytes)),
            Change::Set(setting) => write!(f, "--set {setting}"),
        }
    }
}

/// What can be changed about a question, what costs least first.
fn changes(need: &Need, machine: &Limits) -> Vec<Change> {
    let mut all = vec![
        Change::Context(Context::Task),
        Change::Contiguity(Contiguity::Any),
        Change::Contiguity(Contiguity::Physical),
        Change::Lifetime(Lifetime::Long),
    ];
    let sizes = [machine.block, machine.page, 1];
    all.extend(sizes.into_iter().filter(|size| *size < need.size).map(Change::Size));
    all.push(Change::Count(1));
    if let Purpose::Dma { bits, coherent } = need.purpose {
        if coherent {
            all.push(Change::Purpose(Purpose::Dma { bits, coherent: false }));
        }
        for bits in [24, 32, 64] {
            all.push(Change::Purpose(Purpose::Dma { bits, coherent }));
        }
    } else if need.purpose != Purpose::Software {
        all.push(Change::Purpose(Purpose::Software));
    }
    all
}
