//! What the loader's command line says: `KEY=VALUE ... -- COMMANDS`, or commands alone.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use kmem::boot::CommandLine;

use crate::paging::LARGE;

/// What was asked for at boot.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `name=NAME`: what the machine is called in reports.
    pub name: String,
    /// `mem=126M` and `bigphysarea=512`: what the manager leaves alone, and what it sets aside.
    pub memory: CommandLine,
    /// `hole=START-END`, any number of them: memory that is not to be used, as if it were not there.
    pub holes: Vec<Range<u64>>,
    /// `dma=BYTES`: where zone DMA ends.
    pub dma: Option<u64>,
    /// `highmem=BYTES`: where the direct map ends. RAM from there on is high memory.
    pub highmem: Option<u64>,
    /// `ticks=NUMBER`: how many of the timers' interrupts the check of them waits for.
    pub ticks: Option<u64>,
    /// `hz=NUMBER`: how often they come in a second.
    pub hz: Option<u32>,
    /// `typed=no`: lines are sent, and nobody types them.
    pub sent: bool,
    /// What the first task runs; none: a prompt.
    pub commands: String,
}

impl Options {
    /// Reads a command line.
    ///
    /// # Errors
    ///
    /// The first word that is not understood.
    pub fn parse(line: &str) -> Result<Options, String> {
        let marked = format!(" {} ", line.trim());
        let (options, commands) = marked.split_once(" -- ").unwrap_or(("", &marked));
        let memory = CommandLine::parse(options).map_err(|error| String::from(error.word))?;
        let mut parsed = Options { memory, commands: commands.trim().into(), ..Options::default() };
        for word in options.split_whitespace() {
            match word.split_once('=') {
                Some(("name", name)) => parsed.name = name.into(),
                Some(("hole", range)) => parsed.holes.push(hole(range).ok_or(word)?),
                Some(("dma", text)) => {
                    let limit = bytes(text).filter(|limit| DMA_LIMITS.contains(limit));
                    parsed.dma = Some(limit.ok_or(word)?);
                }
                Some(("highmem", text)) => {
                    let limit = bytes(text).filter(|limit| limit.is_multiple_of(LARGE));
                    parsed.highmem = Some(limit.ok_or(word)?);
                }
                Some(("ticks", text)) => {
                    parsed.ticks = Some(number(text, 1..=u64::MAX).ok_or(word)?)
                }
                // A timer that is faster leaves no time for anything else.
                Some(("hz", text)) => {
                    parsed.hz = Some(number(text, 1..=1_000_000).ok_or(word)? as u32)
                }
                Some(("typed", "no")) => parsed.sent = true,
                Some(("mem" | "bigphysarea", _)) => {}
                _ => return Err(word.into()),
            }
        }
        Ok(parsed)
    }
}

/// Where zone DMA may end: it has some blocks of the largest order, and zone DMA32 ends behind it.
const DMA_LIMITS: RangeInclusive<u64> = 16 << 20..=2 << 30;

/// Reads a number within bounds.
fn number(text: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|number| bounds.contains(number))
}

/// Reads `64M-72M`.
fn hole(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once('-')?;
    let (start, end) = (bytes(start)?, bytes(end)?);
    (start < end).then_some(start..end)
}

/// Reads a number with `K`, `M` or `G` behind it, or none of them.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
