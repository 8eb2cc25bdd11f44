//! The PCs that the acceptance cases run on.
//!
//! Four things are varied: CPUs, nodes, where the memory lies, and whether there is a hole in it. Not
//! each combination is tried, but each pair of values is. Some more PCs are told where zones end, and what
//! the manager is to leave alone.

use super::Pc;

/// Where memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// On both sides of 16 MB, and not up to 4 GB: DMA and DMA32.
    Low,
    /// Up to 16 MB, and from 4 GB on: DMA and Normal.
    Apart,
    /// On both sides of 16 MB and of 4 GB: DMA, DMA32 and Normal.
    High,
    /// The same, as a PC has it with so much memory: a hole from 3 to 4 GB.
    Large,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    cpus: u32,
    nodes: u32,
    memory: Memory,
    hole: bool,
}

const fn row(cpus: u32, nodes: u32, memory: Memory, hole: bool) -> Row {
    Row { cpus, nodes, memory, hole }
}

const ROWS: [Row; 9] = [
    row(1, 1, Memory::Low, true),
    row(1, 1, Memory::Apart, false),
    row(1, 1, Memory::Large, true),
    row(2, 1, Memory::Apart, true),
    row(2, 2, Memory::Low, false),
    row(2, 2, Memory::High, false),
    row(4, 1, Memory::High, false),
    row(4, 2, Memory::Low, true),
    row(4, 2, Memory::Apart, false),
];

/// A PC that is told something of its memory.
struct Told {
    /// What is special about it, for its name.
    name: &'static str,
    row: Row,
    /// How much memory it has, in MiB, if not as much as others.
    memory: Option<u64>,
    options: &'static [&'static str],
}

const TOLD: [Told; 4] = [
    // All that the mask of QEMU's device edu has, 28 bits.
    Told {
        name: "dma28",
        row: row(2, 1, Memory::Low, false),
        memory: None,
        options: &["dma=256M"],
    },
    // Both nodes have RAM below the limit, and bigphysarea= is on one of them.
    Told {
        name: "mem",
        row: row(2, 2, Memory::Low, false),
        memory: None,
        options: &["mem=440M", "bigphysarea=2000"],
    },
    // The zones of a 32-bit PC.
    Told {
        name: "highmem",
        row: row(2, 1, Memory::Low, false),
        memory: Some(1280),
        options: &["highmem=896M"],
    },
    // Behind what `edu` reaches.
    Told {
        name: "highmem",
        row: row(4, 1, Memory::Low, true),
        memory: None,
        options: &["highmem=320M"],
    },
];

/// The seconds after which a machine is given up. On a quiet host the slowest takes less than a minute.
const SECONDS: u64 = 300;

/// How many of the timers' interrupts one machine handles, and how often they come in a second of its
/// own time.
const TICKS: (u64, u32) = (2_000_000, 300_000);

impl Row {
    fn name(&self) -> String {
        let Row { cpus, nodes, memory, hole } = self;
        let memory = format!("{memory:?}").to_lowercase();
        format!("pc/{cpus}-{nodes}-{memory}{}", if *hole { "-hole" } else { "" })
    }

    fn pc(&self) -> Pc {
        let (memory, below_4g, hole) = match self.memory {
            Memory::Low => (512, None, "96M-104M"),
            Memory::Apart => (192, Some(16), "4136M-4144M"),
            Memory::High => (512, Some(128), "80M-88M"),
            Memory::Large => (4352, None, "1000M-1100M"),
        };
        Pc {
            commands: Some(ALL.into()),
            cpus: self.cpus,
            nodes: self.nodes,
            memory,
            below_4g,
            holes: self.hole.then(|| hole.into()).into_iter().collect(),
            options: vec![format!("name={}", self.name())],
            instruction_clock: false,
            seconds: SECONDS,
        }
    }
}

impl Told {
    fn pc(&self) -> Pc {
        let mut pc = self.row.pc();
        pc.memory = self.memory.unwrap_or(pc.memory);
        let named = format!("name={}-{}", self.row.name(), self.name);
        let told = self.options.iter().map(|option| (*option).into());
        pc.options = [named].into_iter().chain(told).collect();
        pc
    }
}

/// Whether a machine runs all cases there are.
pub fn runs_all(pc: &Pc) -> bool {
    pc.commands.as_deref() == Some(ALL)
}

/// The command that runs all cases.
const ALL: &str = "conformance";

/// All of them, each with what it runs; the last has millions of interrupts.
pub fn machines() -> Vec<Pc> {
    let (ticks, hz) = TICKS;
    let ticking = Row { cpus: 4, nodes: 2, memory: Memory::Low, hole: false };
    let ticking = Pc {
        commands: Some("conformance timers".into()),
        options: vec!["name=pc/4-2-low-ticks".into(), format!("ticks={ticks}"), format!("hz={hz}")],
        instruction_clock: true,
        ..ticking.pc()
    };
    ROWS.iter().map(Row::pc).chain(TOLD.iter().map(Told::pc)).chain([ticking]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The values of a row, as words that no two of the four have in common.
    fn values(row: &Row) -> [String; 4] {
        let Row { cpus, nodes, memory, hole } = row;
        // A large machine is a high one for this.
        let memory = if *memory == Memory::Large { &Memory::High } else { memory };
        [
            format!("{cpus} CPUs"),
            format!("{nodes} nodes"),
            format!("{memory:?}"),
            format!("hole {hole}"),
        ]
    }

    #[test]
    fn each_pair_of_values_is_on_a_machine() {
        let mut missing = BTreeSet::new();
        let all: Vec<[String; 4]> = ROWS.iter().map(values).collect();
        let value = |place: usize| -> BTreeSet<&String> { all.iter().map(|v| &v[place]).collect() };
        for (first, second) in (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b))) {
            for (one, other) in value(first)
                .into_iter()
                .flat_map(|a| value(second).into_iter().map(move |b| (a, b)))
            {
                if !all.iter().any(|row| row[first] == *one && row[second] == *other) {
                    missing.insert((one, other));
                }
            }
        }
        // A node has a CPU.
        let impossible = (&"1 CPUs".to_owned(), &"2 nodes".to_owned());
        assert!(missing.remove(&impossible));
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(
            value(0).len() + value(1).len() + value(2).len() + value(3).len(),
            3 + 2 + 3 + 2
        );
    }

    #[test]
    fn machines_have_names_of_their_own() {
        let machines = machines();
        let names: BTreeSet<_> = machines.iter().map(|pc| &pc.options[0]).collect();
        assert_eq!(names.len(), machines.len());
    }
}
