//! What somebody needs memory for.

use clap::ValueEnum;
use kmem_host::description::format_size;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The bytes of one piece, of one CPU's copy for [`Purpose::PerCpu`].
    pub size: u64,
    /// How many pieces of that size there are at a time.
    pub count: u64,
    pub context: Context,
    pub purpose: Purpose,
    pub contiguity: Contiguity,
    pub lifetime: Lifetime,
}

/// Where the code runs that asks for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Context {
    /// A task that may sleep: it holds no spin lock and has not disabled pre-emption
    Task,
    /// A task that must not sleep: under a spin lock, pre-emption disabled, interrupts masked
    Locked,
    /// An interrupt handler, softirq or tasklet
    #[value(aliases = ["softirq", "tasklet"])]
    Interrupt,
    /// A handler of interrupts that cannot be masked
    Nmi,
    /// Block I/O code: it may sleep, but must not start disk I/O
    BlockIo,
    /// Filesystem code: it may sleep, but must not call a filesystem
    Filesystem,
    /// Code of the kernel's image, before boot is over
    Boot,
}

/// What lies side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contiguity {
    /// The addresses of a piece follow one another; where its frames lie does not matter
    Any,
    /// The frames of a piece follow one another, as hardware wants them
    Physical,
    /// Only the addresses follow one another: a large buffer of software
    Virtual,
}

/// How long a piece is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lifetime {
    /// Until the function returns
    Short,
    /// Until somebody frees it
    Long,
    /// From boot until the machine is switched off
    Forever,
}

/// Who uses the memory, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Software, by address.
    Software,
    /// A device with this many address lines. Where it is `coherent`, the CPU uses the memory at the
    /// same time, not before and after a transfer.
    Dma { bits: u32, coherent: bool },
    /// A process: the page may be moved, and lie in high memory.
    User,
    /// Software that maps pages when it uses them, so that they may lie in high memory.
    High,
    /// Each CPU, which has a copy of its own.
    PerCpu,
}

impl Context {
    /// Whether a call may sleep there. Before boot is over there is nothing to wait for.
    pub fn may_sleep(self) -> bool {
        matches!(self, Context::Task | Context::BlockIo | Context::Filesystem)
    }

    /// The context in a sentence about code that runs there.
    pub fn in_words(self) -> &'static str {
        match self {
            Context::Task => "a task that may sleep",
            Context::Locked => "a task that must not sleep",
            Context::Interrupt => "an interrupt handler",
            Context::Nmi => "an NMI handler",
            Context::BlockIo => "block I/O code",
            Context::Filesystem => "filesystem code",
            Context::Boot => "code that runs before boot is over",
        }
    }
}

/// A choice as it is typed.
pub fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Need {
    /// The options that ask for the same.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec!["--size".to_owned(), format_size(self.size)];
        let mut add = |name: &str, value: String| options.extend([name.to_owned(), value]);
        if self.count != 1 {
            add("--count", self.count.to_string());
        }
        if self.context != Context::Task {
            add("--context", word(self.context));
        }
        if self.contiguity != Contiguity::Any {
            add("--contiguity", word(self.contiguity));
        }
        if self.lifetime != Lifetime::Long {
            add("--lifetime", word(self.lifetime));
        }
        match self.purpose {
            Purpose::Software => {}
            Purpose::Dma { bits, coherent } => {
                add("--dma", bits.to_string());
                options.extend(coherent.then(|| "--coherent".to_owned()));
            }
            Purpose::User => options.push("--user".to_owned()),
            Purpose::High => options.push("--high".to_owned()),
            Purpose::PerCpu => options.push("--per-cpu".to_owned()),
        }
        options
    }
}
