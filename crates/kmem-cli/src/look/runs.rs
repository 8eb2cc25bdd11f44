//! `pageruns`: who has which frames.

use std::ops::Range;

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Free,
    Listed,
    Slab,
    Kernel,
    Vmalloc,
    Private,
    PageCache,
    User,
    Image,
    Tables,
    Reserved,
    Late,
    NoRam,
}

impl Owner {
    pub const COUNT: usize = 13;

    /// In the order of a legend: RAM first.
    pub const ALL: [Owner; Self::COUNT] = [
        Owner::Free,
        Owner::Listed,
        Owner::Slab,
        Owner::Kernel,
        Owner::Vmalloc,
        Owner::Private,
        Owner::PageCache,
        Owner::User,
        Owner::Image,
        Owner::Tables,
        Owner::Reserved,
        Owner::Late,
        Owner::NoRam,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Owner::Free => "free",
            Owner::Listed => "on a CPU's list",
            Owner::Slab => "slab",
            Owner::Kernel => "in use: kernel",
            Owner::Vmalloc => "in use: vmalloc",
            Owner::Private => "in use: private",
            Owner::PageCache => "in use: page cache",
            Owner::User => "in use: users",
            Owner::Image => "kernel image",
            Owner::Tables => "manager's tables",
            Owner::Reserved => "reserved",
            Owner::Late => "to be released late",
            Owner::NoRam => "no RAM",
        }
    }

    /// In one character, where there is no colour. Those that `/proc/pagemap-text` has are the same.
    pub const fn sign(self) -> char {
        match self {
            Owner::Free => '.',
            Owner::Listed => 'C',
            Owner::Slab => 'S',
            Owner::Kernel => 'U',
            Owner::Vmalloc => 'V',
            Owner::Private => 'P',
            Owner::PageCache => 'F',
            Owner::User => 'A',
            Owner::Image => 'K',
            Owner::Tables => 'M',
            Owner::Reserved => 'R',
            Owner::Late => 'L',
            Owner::NoRam => '-',
        }
    }

    /// Red, green and blue. They are the eight colours of Okabe and Ito, which people tell apart whatever
    /// colours they see, and greys for what does not change.
    pub const fn colour(self) -> [u8; 3] {
        match self {
            Owner::Free => [0xe6, 0xea, 0xee],
            Owner::Listed => [0x56, 0xb4, 0xe9],
            Owner::Slab => [0xe6, 0x9f, 0x00],
            Owner::Kernel => [0x00, 0x72, 0xb2],
            Owner::Vmalloc => [0x00, 0x9e, 0x73],
            Owner::Private => [0xcc, 0x79, 0xa7],
            Owner::PageCache => [0xf0, 0xe4, 0x42],
            Owner::User => [0x7b, 0x3f, 0x8c],
            Owner::Image => [0x2b, 0x2b, 0x2b],
            Owner::Tables => [0xd5, 0x5e, 0x00],
            Owner::Reserved => [0x8a, 0x8f, 0x96],
            Owner::Late => [0xb9, 0xa5, 0x8a],
            Owner::NoRam => [0xff, 0xff, 0xff],
        }
    }

    fn read(class: &str, more: &str) -> Option<Owner> {
        Some(match (class, more) {
            ("free", _) => Owner::Free,
            ("listed", _) => Owner::Listed,
            ("slab", _) => Owner::Slab,
            ("used", "by=vmalloc") => Owner::Vmalloc,
            ("used", "by=private") => Owner::Private,
            ("used", "by=cache") => Owner::PageCache,
            ("used", "by=user") => Owner::User,
            ("used", _) => Owner::Kernel,
            ("kernel", _) => Owner::Image,
            ("tables", _) => Owner::Tables,
            ("reserved", _) => Owner::Reserved,
            ("late", _) => Owner::Late,
            ("no-ram", _) => Owner::NoRam,
            _ => return None,
        })
    }
}

/// Frames one behind the other that one owner has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub frames: Range<u64>,
    pub owner: Owner,
    /// Which of the zones.
    pub zone: usize,
}

/// A zone, from its first frame to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub node: u32,
    pub name: String,
    pub frames: Range<u64>,
    /// How many of them are RAM.
    pub ram: u64,
}

/// What a machine's frames are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The size of a page, in bytes.
    pub page: u64,
    /// In the order of addresses.
    pub zones: Vec<Zone>,
    /// In the order of addresses.
    pub runs: Vec<Run>,
}

/// The first line, but for the size of a page.
const VERSION: &str = "pageruns - version: 1, page size: ";

impl Memory {
    /// Reads the text.
    ///
    /// # Errors
    ///
    /// It is another one, or of another version.
    pub fn parse(text: &str) -> Result<Memory, String> {
        let mut lines = text.lines();
        let page = lines.next().and_then(|line| line.strip_prefix(VERSION)?.parse::<u64>().ok());
        let page = page.filter(|page| page.is_power_of_two());
        let page = page.ok_or("pageruns has another form than this program knows: version 1")?;
        let mut memory = Memory { page, ..Memory::default() };
        for line in lines.filter(|line| !line.starts_with('#')) {
            memory.add(line).ok_or_else(|| format!("pageruns has a line of no sense: '{line}'"))?;
        }
        Ok(memory)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let (before, more) = line.split_once(" :")?;
        let words: Vec<&str> = before.split(' ').collect();
        let [first, pages, _, class, node, name] = words[..] else { return None };
        let (first, pages): (u64, u64) = (first.parse().ok()?, pages.parse().ok()?);
        let frames = first..first.checked_add(pages).filter(|_| pages > 0)?;
        // So that an address fits its type.
        frames.end.checked_mul(self.page)?;
        if self.runs.last().is_some_and(|last| last.frames.end > first) {
            return None;
        }
        let owner = Owner::read(class, more.trim())?;
        let node: u32 = node.parse().ok()?;
        let known = self.zones.iter().position(|zone| zone.node == node && zone.name == name);
        let zone = known.unwrap_or_else(|| {
            let frames = frames.clone();
            self.zones.push(Zone { node, name: name.into(), frames, ram: 0 });
            self.zones.len() - 1
        });
        self.zones[zone].frames.end = frames.end;
        if owner != Owner::NoRam {
            self.zones[zone].ram += pages;
        }
        self.runs.push(Run { frames, owner, zone });
        Some(())
    }

    /// How many frames each owner has.
    pub fn sums(&self) -> [u64; Owner::COUNT] {
        let mut sums = [0; Owner::COUNT];
        for run in &self.runs {
            sums[run.owner as usize] += run.frames.end - run.frames.start;
        }
        sums
    }

    /// How many frames are RAM.
    pub fn ram(&self) -> u64 {
        self.zones.iter().map(|zone| zone.ram).sum()
    }
}

/// A text of a machine with two zones and a hole.
#[cfg(test)]
pub const SAMPLE: &str = "\
pageruns - version: 1, page size: 4096
# <pfn> <pages> <sign> <class> <node> <zone> : <more>
0 1 R reserved 0 DMA :
1 7 . free 0 DMA : order=0
8 8 K kernel 0 DMA :
16 4 - no-ram 0 DMA :
20 12 U used 0 DMA : by=vmalloc
32 16 . free 1 Normal : order=4
48 8 C listed 1 Normal : cpu=1
56 8 S slab 1 Normal :
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_zones_and_sums_are_read() {
        let memory = Memory::parse(SAMPLE).unwrap();
        let zone = |node, name: &str, frames, ram| Zone { node, name: name.into(), frames, ram };
        assert_eq!(memory.zones, [zone(0, "DMA", 0..32, 28), zone(1, "Normal", 32..64, 32)]);
        assert_eq!((memory.page, memory.ram(), memory.runs.len()), (4096, 60, 8));
        let sums = memory.sums();
        for (owner, pages) in [
            (Owner::Free, 23),
            (Owner::Listed, 8),
            (Owner::Slab, 8),
            (Owner::Vmalloc, 12),
            (Owner::Image, 8),
            (Owner::Reserved, 1),
            (Owner::NoRam, 4),
            (Owner::Kernel, 0),
        ] {
            assert_eq!(sums[owner as usize], pages, "{owner:?}");
        }
    }

    #[test]
    fn what_is_no_such_text_is_refused() {
        let head = SAMPLE.lines().next().unwrap();
        for wrong in [
            "",
            "pageruns - version: 2, page size: 4096",
            "pageruns - version: 1, page size: 0",
            "pageruns - version: 1, page size: 3",
        ] {
            assert!(Memory::parse(wrong).unwrap_err().contains("another form"), "{wrong}");
        }
        for line in [
            "1 7 . free 0 DMA",
            "1 0 . free 0 DMA :",
            "x 7 . free 0 DMA :",
            "1 7 . heap 0 DMA :",
            "1 7 . free zero DMA :",
            "1 7 . free 0 :",
            "18446744073709551615 7 . free 0 DMA :",
            "9223372036854775807 1 . free 0 DMA :",
            "1 7 . free 0 DMA :\n3 1 . free 0 DMA :",
        ] {
            let wrong = Memory::parse(&format!("{head}\n{line}\n")).unwrap_err();
            assert!(wrong.contains("no sense"), "{line}: {wrong}");
        }
    }

    #[test]
    fn owners_are_told_apart_by_sign_colour_and_label() {
        for (at, one) in Owner::ALL.into_iter().enumerate() {
            assert_eq!(one as usize, at);
            for other in &Owner::ALL[at + 1..] {
                assert_ne!(one.sign(), other.sign());
                assert_ne!(one.label(), other.label());
                let apart = one.colour().into_iter().zip(other.colour());
                let apart: u32 = apart.map(|(a, b)| u32::from(a.abs_diff(b))).sum();
                assert!(apart > 40, "{one:?} {other:?}");
            }
        }
    }
}
