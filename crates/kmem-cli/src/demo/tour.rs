//! The stops of the tour.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use kmem_shell::{Count, FreeLists, Shell, System};

use super::sample::Sample;
use crate::console::{COMMAND, GOOD, REMARK, printable, seconds};
use crate::exit::Exit;
use crate::hosted::{Hosted, Visit};

/// The tour over a file.
pub struct Tour<'s> {
    sample: &'s Sample,
    begun: Instant,
}

impl<'s> Tour<'s> {
    pub fn new(sample: &'s Sample) -> Self {
        Tour { sample, begun: Instant::now() }
    }
}

impl Visit for Tour<'_> {
    fn visit<const SHIFT: u32>(self, machine: &Hosted<SHIFT>) -> Result<(), Exit> {
        let mut guide = Guide { machine, shell: Shell::new(machine), held: 0 };
        let walked = self.walk(&mut guide);
        let Guide { shell, held, .. } = guide;
        let finished = machine.run(|| shell.finish());
        walked?;
        finished.map_err(|error| Exit::Lost(error.to_string()))?;
        let time = seconds(self.begun.elapsed());
        say(format_args!("\n{GOOD}All {held} checks held{GOOD:#}, in {time}. Your turn: kmem boot"))
    }
}

impl Tour<'_> {
    fn walk<const SHIFT: u32>(&self, guide: &mut Guide<'_, SHIFT>) -> Result<(), Exit> {
        let file = quoted(&self.sample.file);
        let copy = quoted(&self.sample.copy());
        let page = 1u64 << SHIFT;
        let file_pages = self.sample.bytes.div_ceil(page);

        guide.remark(
            "A machine inside this process: its RAM is real memory, its CPUs are threads, and its \
             memory\nmanager is the one that a kernel links.",
        )?;
        say(format_args!("{COMMAND}$ kmem boot --machine default{COMMAND:#}"))?;
        say(format_args!("{}", guide.machine.title()))?;
        guide.remark(
            "How many blocks of 1, 2, 4 ... 1024 free pages each zone has. Each CPU keeps some more \
             on lists\nof its own; `drain` empties them, and then free pages lie in the largest \
             blocks that they can form.",
        )?;
        guide.command("drain")?;
        guide.command("cat /proc/buddyinfo")?;
        let before = guide.lists();

        guide.remark(
            "A driver of Linux Device Drivers: /dev/scullp0 to 3 keep in whole pages what is \
             written to them.",
        )?;
        guide.command("insmod scullp")?;
        guide.command("ls /dev")?;

        guide.remark(format_args!(
            "Into the device and back again: {}, one page allocated for each {page}.",
            Count(self.sample.bytes, "byte")
        ))?;
        guide.command(&format!("time cp {file} /dev/scullp0"))?;
        guide.command(&format!("cp /dev/scullp0 {copy}"))?;
        guide.command(&format!("cmp {file} {copy}"))?;
        guide.held("what came back is what went in")?;

        guide.remark("Where the driver keeps it: its lists, and the addresses of its pages.")?;
        let sets = file_pages.div_ceil(500);
        guide.command(&format!("head -{} /proc/scullpmem", sets + 5))?;

        guide.remark("The same table as above, now that the file lies in the machine's memory.")?;
        guide.command("drain")?;
        guide.command("cat /proc/buddyinfo")?;
        let taken = before.pages().saturating_sub(guide.lists().pages());
        let tables = 1 + 2 * sets;
        guide.remark(format_args!(
            "{} fewer are free. Of them {file_pages} for the file, {} and {} that point\nto them, \
             and one for the table of devices. Larger blocks were split to get single pages.",
            Count(taken, "page"),
            Count(sets, "quantum set"),
            Count(sets, "list item"),
        ))?;
        guide.check("every page is accounted for", taken == file_pages + tables)?;

        guide.remark(
            "A bug, on purpose: a page is freed twice. It is caught at the call, and memory stays \
             as it is.",
        )?;
        let reports = guide.machine.misuses();
        guide.command("wrong_free double")?;
        guide.check("the double free was reported", guide.machine.misuses() == reports + 1)?;

        guide.remark(
            "Both CPUs and interrupt handlers allocate and free at random; what lies in every block \
             is verified.",
        )?;
        guide.command("stress 50000")?;
        guide.held("nothing was lost, handed out twice or overwritten")?;

        guide.remark("Unloading the driver gives every page back, and the blocks merge again.")?;
        guide.command("rmmod scullp")?;
        guide.command("drain")?;
        guide.command("cat /proc/buddyinfo")?;
        let after = guide.lists();
        guide.check("the free lists are as at the start", before.difference(&after).is_none())
    }
}

/// Shows and runs commands, and counts what held.
struct Guide<'m, const SHIFT: u32> {
    machine: &'m Hosted<SHIFT>,
    shell: Shell<'m, Hosted<SHIFT>>,
    held: u32,
}

impl<const SHIFT: u32> Guide<'_, SHIFT> {
    fn remark(&self, text: impl std::fmt::Display) -> Result<(), Exit> {
        say(format_args!("\n{REMARK}{text}{REMARK:#}"))
    }

    fn command(&mut self, line: &str) -> Result<(), Exit> {
        say(format_args!("{COMMAND}kmem> {}{COMMAND:#}", printable(line)))?;
        let result = self.machine.run(|| self.shell.run(line));
        self.machine.settle();
        result.map_err(|error| self.machine.exit_of(error))
    }

    fn check(&mut self, what: &str, held: bool) -> Result<(), Exit> {
        if held { self.held(what) } else { Err(Exit::Failed(format!("this did not hold: {what}"))) }
    }

    /// Tells what held: a command that has just gone well would have failed otherwise.
    fn held(&mut self, what: &str) -> Result<(), Exit> {
        self.held += 1;
        say(format_args!("{GOOD}held:{GOOD:#} {what}"))
    }

    fn lists(&self) -> FreeLists {
        self.machine.run(|| FreeLists::take(self.machine.mm()))
    }
}

fn say(text: std::fmt::Arguments<'_>) -> Result<(), Exit> {
    writeln!(anstream::stdout(), "{text}").map_err(Exit::not_printed)
}

/// A path as one word of the shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    }
}
