//! The stops of the tour.

use std::path::Path;
use std::time::Instant;

use kmem_shell::{Count, System};

use super::density::{HEADING, copy};
use super::guide::{Guide, say};
use super::sample::Sample;
use super::{Machine, PAGE_SHIFT};
use super::{mapped, outside};
use crate::console::{COMMAND, GOOD, seconds};
use crate::exit::Exit;

/// What a visitor may do next.
const TRY_NEXT: &str = "

What to try next, after `cargo install --path crates/kmem-cli`:
  kmem boot                  a prompt: Tab completes, `help stress` explains
  kmem boot --mount DIR      its files for cp, dd and tail -f: DIR/dev, DIR/proc
  kmem top DIR               that machine, watched: zones, caches, a map
  kmem boot --machine tiny -c 'fill; cat /proc/zoneinfo'
                             what a machine does that is out of memory
  kmem map --mem 24M --output m.svg -c 'insmod scullp; cp /bin/sh /dev/scullp0'
                             a picture of who has which page
  kmem advise                asks what is needed, and answers with the call
  kmem machines --keys       describe a machine of your own
  less README.md             the same in a kernel of your own, in fifty lines";

/// The tour over a file.
pub struct Tour<'s> {
    sample: &'s Sample,
    begun: Instant,
}

impl<'s> Tour<'s> {
    pub fn new(sample: &'s Sample) -> Self {
        Tour { sample, begun: Instant::now() }
    }

    /// Takes it on a machine.
    pub fn take(self, machine: &Machine) -> Result<(), Exit> {
        let mut guide = Guide::new(machine);
        let walked = self.walk(&mut guide);
        let finished = guide.finish();
        walked?;
        let held = finished?;
        let time = seconds(self.begun.elapsed());
        say(format_args!("\n{GOOD}All {held} checks held{GOOD:#}, in {time}.{TRY_NEXT}"))
    }

    fn walk(&self, guide: &mut Guide<'_>) -> Result<(), Exit> {
        let file = quoted(&self.sample.file);
        let copy = quoted(&self.sample.copy());
        let page = 1u64 << PAGE_SHIFT;
        let file_pages = self.sample.bytes.div_ceil(page);

        guide.remark(
            "A machine inside this process: its RAM is real memory, its CPUs are threads, and its \
             memory\nmanager is the one that a kernel links.",
        )?;
        say(format_args!("{COMMAND}$ kmem boot --machine default{COMMAND:#}"))?;
        say(format_args!("{}", guide.machine.title()))?;
        guide.remark(
            "Caches keep slabs in which no object is in use, and CPUs keep lists of free pages: so the next\n\
             requests are quick. Both are asked to give these back, so that all free pages are counted.",
        )?;
        // What CPUs keep of kmalloc once they have used it would be missing in the later tables.
        guide.warm_up()?;
        guide.give_back()?;
        guide.remark(
            "This is what is free: how many blocks of 1, 2, 4 ... 1024 pages each zone has. Neighbours \
             that are\nfree have merged to the largest blocks that they can form.",
        )?;
        let before = guide.show_lists()?;
        let slabs = guide.slab_pages();

        guide.remark(
            "A driver of the book Linux Device Drivers is loaded: its devices scullp0 to scullp3 keep \
             in whole\npages what is written to them.",
        )?;
        guide.command("insmod scullp")?;
        guide.command("ls /dev")?;

        guide.remark(format_args!(
            "A file of {} is copied into the device and out of it again, and compared.\n\
             The driver allocates a page for each {page} of them.",
            Count(self.sample.bytes, "byte")
        ))?;
        guide.command(&format!("time cp {file} /dev/scullp0"))?;
        guide.command(&format!("cp /dev/scullp0 {copy}"))?;
        guide.command(&format!("cmp {file} {copy}"))?;
        guide.held("what came back is what went in")?;

        guide.remark(
            "The driver shows where it keeps the file: the items of its list, and the addresses of its \
             pages.",
        )?;
        let sets = file_pages.div_ceil(500);
        guide.command(&format!("head -{} /proc/scullpmem", sets + 5))?;

        guide.remark("The same table as above, now that the file lies in the machine's memory.")?;
        guide.give_back()?;
        let taken = before.pages().saturating_sub(guide.show_lists()?.pages());
        let slabs = guide.slab_pages().saturating_sub(slabs);
        guide.remark(format_args!(
            "{} fewer are free: {file_pages} for the file, and {slabs} that kmalloc has cut up for\n\
             {}, {} that point to them, and the table of devices. Larger\n\
             blocks were split to get single pages.",
            Count(taken, "page"),
            Count(sets, "list item"),
            Count(sets, "quantum set"),
        ))?;
        guide.check("every page is accounted for", taken == file_pages + slabs)?;

        guide.remark(
            "A bug, on purpose: a page is freed twice. It is caught at the call, and memory stays \
             as it is.",
        )?;
        let reports = guide.machine.misuses();
        guide.command("wrong_free double")?;
        guide.check("the double free was reported", guide.machine.misuses() == reports + 1)?;
        guide.remark(
            "Another bug: a byte is written behind an object of a cache with red zones. It is found when \
             the\nobject is freed; the report says what was found there, and who had the object.",
        )?;
        guide.command("overrun behind")?;
        guide.check("the overrun was reported", guide.machine.misuses() == reports + 2)?;

        guide.remark(
            "Who has which part of memory, as a picture in text: it is there at a serial console as well.",
        )?;
        guide.command("cat /proc/pagemap-text")?;

        self.compare_devices(guide)?;
        mapped::areas(guide, &file)?;
        mapped::guards(guide)?;
        mapped::device(guide)?;
        mapped::percpu(guide)?;

        guide.remark(
            "Both CPUs and interrupt handlers allocate and free at random; what lies in every block \
             is verified.",
        )?;
        guide.command("stress 50000")?;
        guide.held("nothing was lost, handed out twice or overwritten")?;

        guide.remark(
            "All drivers are unloaded, and the last command had caches and CPUs give back what they keep:\n\
             every page is back, and the blocks have merged again.",
        )?;
        let after = guide.show_lists()?;
        guide.check("the free lists are as at the start", before.difference(&after).is_none())?;

        outside::high_memory(guide)?;
        outside::nodes(guide)?;
        outside::boot_time(guide)?;
        outside::files(guide, self.sample)?;
        outside::trace(guide, self.sample)?;
        outside::advice(guide)
    }

    /// scull, scullc and scullp beside each other.
    fn compare_devices(&self, guide: &mut Guide<'_>) -> Result<(), Exit> {
        let bytes = Sample::FOUR_MEGABYTES;
        let file = quoted(&self.sample.four_megabytes()?);
        guide.remark(
            "The drivers of the book differ in where their memory comes from: scull's from kmalloc, 4000 \
             bytes\na piece, scullc's from a slab cache of its own, scullp's are pages. The book copies \
             4 MB from one\ndevice to another and looks at the clock. Here it is counted how often memory is \
             asked for, how many\npages both devices take, and how much of the file is in each.",
        )?;
        guide.command("rmmod scullp")?;
        let scull = copy(guide, "scull", &file, bytes)?;
        let scullp = copy(guide, "scullp", &file, bytes)?;
        say(format_args!("{HEADING}\n{scull}\n{scullp}"))?;
        guide.check(
            "scullp asks less often, its pages hold nothing but the file, and it takes fewer",
            scullp.calls < scull.calls
                && scullp.whole == 2 * (bytes >> PAGE_SHIFT)
                && scullp.pages < scull.pages,
        )?;

        guide.remark(
            "4000 bytes were chosen to fit kmalloc's sizes. Where a piece does not, a cache of its own \
             has\nmore of them to a page.",
        )?;
        let scull = copy(guide, "scull quantum=2600", &file, bytes)?;
        let scullc = copy(guide, "scullc quantum=2600", &file, bytes)?;
        say(format_args!("{HEADING}\n{scull}\n{scullc}"))?;
        guide.check(
            "scullc has as many pieces as scull in fewer pages",
            scullc.calls == scull.calls && scullc.pages < scull.pages,
        )
    }
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
