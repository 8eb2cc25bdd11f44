//! A machine inside this process, as the shell sees it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write, stdout};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kmem::io::Registers;
use kmem::platform::UserMap;
use kmem::{CpuId, KernelStack, Mm, NoReclaim, Pfn};
use kmem_host::trace::TraceFile;
use kmem_host::{Description, Host, HostError, Machine, Storm, Task};
use kmem_shell::{Age, Command, Count, Handler, Interrupts, Sink, Source, System};

use crate::console;
use crate::exit::{Exit, end_on_kernel_panic};
use crate::progress::{self, Progress};
use crate::{interrupt, mount, top};

/// How far apart the interrupts of a stress run are, on average.
const INTERRUPT_PERIOD: Duration = Duration::from_micros(50);

/// What is done with a machine between boot and shutdown, whatever its page size is and whether it can be
/// traced.
pub trait Visit {
    fn visit<const SHIFT: u32, const TRACE: bool>(
        self,
        machine: &Hosted<SHIFT, TRACE>,
    ) -> Result<(), Exit>;
}

/// Boots a machine, has it visited, shuts it down and checks it.
///
/// What is lost at the end counts for more than a command that failed: that line is printed as
/// well, and the status is that of the loss. A kernel panic ends the process.
pub fn boot(
    description: &Description,
    trace: Option<&TraceFile>,
    visit: impl Visit,
) -> Result<(), Exit> {
    // Of the usual pages there are two types of machine, so that one without a trace is as fast as if there
    // were no traces. Of other pages there is one, which can be traced: each type is built by itself, and
    // takes its time.
    match (description.page_shift, trace) {
        (12, None) => run::<12, false>(description, None, |machine| visit.visit(machine)),
        (12, trace) => run::<12, true>(description, trace, |machine| visit.visit(machine)),
        (13, trace) => run::<13, true>(description, trace, |machine| visit.visit(machine)),
        (14, trace) => run::<14, true>(description, trace, |machine| visit.visit(machine)),
        (16, trace) => run::<16, true>(description, trace, |machine| visit.visit(machine)),
        (other, _) => Err(Exit::BadInput(format!(
            "page_shift {other} is not built in: give 12, 13, 14 or 16"
        ))),
    }
}

/// [`boot`] of a machine that is known to have pages of `2^SHIFT` bytes.
pub fn run<const SHIFT: u32, const TRACE: bool>(
    description: &Description,
    trace: Option<&TraceFile>,
    visit: impl FnOnce(&Hosted<SHIFT, TRACE>) -> Result<(), Exit>,
) -> Result<(), Exit> {
    end_on_kernel_panic();
    let hosted = Hosted::boot(description, trace)?;
    let visited = visit(&hosted);
    hosted.close(visited)
}

/// A machine that has booted; a handle that can be copied to its tasks.
#[derive(Clone)]
pub struct Hosted<const SHIFT: u32, const TRACE: bool = false> {
    inner: Arc<Inner<SHIFT, TRACE>>,
}

pub struct Inner<const SHIFT: u32, const TRACE: bool> {
    machine: Arc<Machine<SHIFT, NoReclaim, TRACE>>,
    title: String,
    begun: Instant,
    progress: Progress,
    /// How many reports of misuse people have seen.
    shown: AtomicUsize,
    /// What the machine has logged and nobody has taken, as far as it was looked at; and whether people
    /// are still to see it.
    logged: Mutex<Vec<(String, bool)>>,
    /// Whether nobody reads standard output any more.
    closed: AtomicBool,
    /// Whether the machine's files are mounted.
    mounted: AtomicBool,
    /// Whether they are to be served when the commands have ended.
    serving: AtomicBool,
}

impl<const SHIFT: u32, const TRACE: bool> Deref for Hosted<SHIFT, TRACE> {
    type Target = Inner<SHIFT, TRACE>;

    fn deref(&self) -> &Inner<SHIFT, TRACE> {
        &self.inner
    }
}

impl<const SHIFT: u32, const TRACE: bool> Hosted<SHIFT, TRACE> {
    fn boot(description: &Description, trace: Option<&TraceFile>) -> Result<Self, Exit> {
        let boot = || Machine::boot_traced(description, NoReclaim, trace);
        let metadata = description.footprint().metadata;
        let booted =
            if metadata > BOOTS_SLOWLY { progress::while_writing(metadata, boot) } else { boot() };
        let machine = booted.map_err(|error| match error {
            // The description is good; the host is what lacks something.
            HostError::Resource { .. } => Exit::Failed(error.to_string()),
            HostError::Description(_) => Exit::BadInput(error.to_string()),
            _ => {
                let exit = Exit::BadInput(error.to_string());
                description.file().map_or(exit.clone(), |file| exit.at(file))
            }
        })?;
        let title = format!(
            "{}, {} of RAM, {}, {}",
            description.name,
            console::size(description.ram_bytes()),
            Count(description.cpus.into(), "CPU"),
            Count(description.nodes.len() as u64, "node"),
        );
        let inner = Inner {
            machine,
            title,
            begun: Instant::now(),
            progress: Progress::default(),
            shown: AtomicUsize::new(0),
            logged: Mutex::default(),
            closed: AtomicBool::new(false),
            mounted: AtomicBool::new(false),
            serving: AtomicBool::new(false),
        };
        Ok(Hosted { inner: Arc::new(inner) })
    }

    /// Shuts the machine down after what was done with it, and checks it. Nothing runs on it any more.
    pub fn close(self, visited: Result<(), Exit>) -> Result<(), Exit> {
        self.settle();
        match (self.shut_down(), visited) {
            (Err(lost), Err(failed)) => {
                failed.tell();
                Err(lost)
            }
            (Err(exit), Ok(())) | (Ok(()), Err(exit)) => Err(exit),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Looks whether all memory is there and sound.
    fn shut_down(self) -> Result<(), Exit> {
        let shutdown = self.machine.shutdown();
        if shutdown.is_clean() { Ok(()) } else { Err(Exit::Lost(shutdown.to_string())) }
    }
}

/// What the machine's log puts before an error.
const ERROR: &str = "error: ";

/// Bytes of metadata that take long enough for people to wonder: hosts write 1 GiB of descriptors in
/// about two seconds.
const BOOTS_SLOWLY: u64 = 1 << 30;

impl<const SHIFT: u32, const TRACE: bool> Inner<SHIFT, TRACE> {
    /// Name, memory, CPUs and nodes in one line.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Runs `work` as a task of the machine.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.machine.run_on(CpuId::BOOT, work)
    }

    /// [`Inner::run`] on whichever CPU is free.
    pub fn task<T>(&self, work: impl FnOnce() -> T) -> T {
        self.machine.run(work)
    }

    /// Runs what is none of the machine's business: its CPU is free for others meanwhile.
    pub fn idle<T>(&self, work: impl FnOnce() -> T) -> T {
        self.machine.without_cpu(work)
    }

    /// How many CPUs are running.
    pub fn cpus(&self) -> usize {
        self.machine.online_cpus().count()
    }

    /// Notes that the machine's files are mounted.
    pub fn note_mounted(&self) {
        self.mounted.store(true, Ordering::Relaxed);
    }

    /// Asks that the machine stays after its commands; answers whether there is anything to stay for.
    pub fn serve(&self) -> bool {
        let mounted = self.mounted.load(Ordering::Relaxed);
        self.serving.store(mounted, Ordering::Relaxed);
        mounted
    }

    /// Whether the machine stays after its commands.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// How much RAM there is, in pages.
    pub fn ram_pages(&self) -> u64 {
        self.machine.description().ram_bytes() >> SHIFT
    }

    /// Takes the progress bar away and prints reports of misuse that nobody has seen.
    pub fn settle(&self) {
        self.progress.clear();
        let misuses = self.machine.misuses();
        let shown = self.shown.swap(misuses.len(), Ordering::Relaxed);
        for line in misuses.iter().skip(shown) {
            console::machine_message(line);
        }
    }

    /// Prints what the machine has logged, without reports of misuse: people have seen them, by
    /// [`Inner::settle`] or from the command that provoked them.
    pub fn show_log(&self) {
        let misuses = self.machine.misuses();
        let lines = self.take_logged(|_| true).into_iter();
        let (new, passed_over): (Vec<_>, Vec<_>) = lines.partition(|(_, unseen)| *unseen);
        *self.logged.lock().unwrap_or_else(PoisonError::into_inner) = passed_over;
        for (line, _) in new {
            // The mark before it may have cost a long report its end.
            let report = line.strip_prefix(ERROR);
            let is_misuse = |report: &str| misuses.iter().any(|misuse| misuse.starts_with(report));
            if !report.is_some_and(is_misuse) {
                console::machine_message(&line);
            }
        }
    }

    /// Takes what was logged out of the machine, a line and whether people are still to see it, which
    /// `unseen` says of lines that it has not been said of.
    fn take_logged(&self, unseen: impl Fn(&str) -> bool) -> Vec<(String, bool)> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.machine.take_log().into_iter();
        logged.extend(new.map(|line| {
            let unseen = unseen(&line);
            (line, unseen)
        }));
        std::mem::take(&mut *logged)
    }

    /// Says of what has been logged by now whether people are still to see it.
    fn look_at_log(&self, unseen: impl Fn(&str) -> bool) {
        let lines = self.take_logged(unseen);
        *self.logged.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }

    /// What the end of a command comes to: where it could not print, that is why it failed.
    pub fn exit_of(&self, error: kmem_shell::Error) -> Exit {
        match error.failure {
            _ if self.closed.load(Ordering::Relaxed) => Exit::Closed,
            kmem_shell::Failure::Failed(_) if interrupt::is_asked() => {
                Exit::Interrupted(error.to_string())
            }
            _ => error.into(),
        }
    }
}

impl<const SHIFT: u32, const TRACE: bool> System for Hosted<SHIFT, TRACE> {
    type Platform = Host<SHIFT, TRACE>;
    type Reclaim = NoReclaim;

    fn commands() -> &'static [Command<Self>] {
        const { &[mount::serve(), top::top()] }
    }

    fn mm(&self) -> &Mm<Host<SHIFT, TRACE>, NoReclaim> {
        self.machine.mm()
    }

    fn print(&self, bytes: &[u8]) -> Result<(), String> {
        self.progress.clear();
        let written = self.machine.without_cpu(|| {
            let mut out = stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        });
        written.map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                self.closed.store(true, Ordering::Relaxed);
            }
            console::cannot_print(&error)
        })
    }

    fn nanoseconds(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn block_age(&self, first: Pfn) -> Age {
        let host = self.machine.host();
        match host.block_age(first) {
            Some(time) => Age::Known(time),
            None if host.keeps_ages() => Age::Unknown,
            None => Age::NotKept,
        }
    }

    fn sleep(&self, nanoseconds: u64) {
        self.machine.sleep(Duration::from_nanos(nanoseconds));
    }

    fn on_each_cpu(&self, work: Handler<Self>) -> Result<(), String> {
        let start = |cpu| {
            let (system, work) = (self.clone(), work.clone());
            self.machine.spawn(Some(cpu), format!("cpu {cpu}"), move || work(&system, cpu))
        };
        let tasks: Vec<_> = self.machine.online_cpus().map(start).collect();
        tasks.into_iter().for_each(Task::join);
        Ok(())
    }

    fn run_on_stack(
        &self,
        stack: &KernelStack<'_, Host<SHIFT, TRACE>, NoReclaim>,
        work: &dyn Fn(),
    ) -> bool {
        self.machine.run_on_stack(stack, work).is_ok()
    }

    fn interrupts<'a>(
        &'a self,
        handler: Handler<Self>,
    ) -> Result<Box<dyn Interrupts + 'a>, String> {
        let system = self.clone();
        let storm = self.machine.interrupt_storm(INTERRUPT_PERIOD, move || {
            if let Some(cpu) = system.machine.current() {
                handler(&system, cpu);
            }
        });
        Ok(Box::new(Arriving(storm)))
    }

    fn user(&self) -> &dyn UserMap {
        self.machine.host()
    }

    fn take_log(&self) -> Vec<String> {
        self.take_logged(|_| true).into_iter().map(|(line, _)| line).collect()
    }

    fn expect_misuses(&self, expected: bool) {
        if expected {
            // What comes from now on is of the wrong frees; this is not.
            self.look_at_log(|_| true);
        }
    }

    fn pass_over_reports(&self) {
        self.shown.store(self.machine.misuses().len(), Ordering::Relaxed);
        self.look_at_log(|line| !line.starts_with(ERROR));
    }

    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), String>,
    ) -> Result<(), String> {
        let host = self.machine.host();
        // SAFETY: the window is a model's, whose memory nobody uses otherwise; its driver tells it of what it
        // was given.
        let window = unsafe { self.mm().iomem(host.device_window().start, edu::REGISTERS) };
        work(&host.device(window.map_err(|error| error.to_string())?))
    }

    fn misuses(&self) -> u64 {
        self.machine.misuse_count()
    }

    fn last_misuse(&self) -> Option<String> {
        let mut misuses = self.machine.misuses();
        self.shown.store(misuses.len(), Ordering::Relaxed);
        misuses.pop()
    }

    fn progress(&self, what: &str, done: u64, total: u64) {
        self.progress.show(what, done, Some(total));
    }

    fn end_progress(&self) {
        self.progress.clear();
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_asked()
    }

    fn columns(&self) -> usize {
        console::width()
    }

    fn has_others(&self) -> bool {
        self.mounted.load(Ordering::Relaxed)
    }

    fn give_way(&self) {
        self.machine.give_way();
    }

    // What the host does takes no CPU of the machine's: it may be that it waits for one, where the file is in
    // a folder that this machine serves.

    fn open(&self, path: &str) -> Result<Box<dyn Source>, String> {
        let open = || {
            let file = File::open(path).map_err(|error| cannot("open", path, &error))?;
            // A directory opens, and then cannot be read: say so now.
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(format!("{path} is a directory: give a file"));
            }
            Ok(file)
        };
        let file = self.machine.without_cpu(open)?;
        Ok(Box::new(HostFile { machine: self.clone(), file: Some(file), path: path.to_owned() }))
    }

    fn same_file(&self, one: &str, other: &str) -> bool {
        let identity = |path| {
            let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file())?;
            Some((metadata.dev(), metadata.ino()))
        };
        let same = || identity(one).is_some_and(|one| identity(other) == Some(one));
        one == other || self.machine.without_cpu(same)
    }

    fn create(&self, path: &str) -> Result<Box<dyn Sink>, String> {
        let file = self.machine.without_cpu(|| File::create(path));
        let file = Some(file.map_err(|error| cannot("create", path, &error))?);
        Ok(Box::new(HostFile { machine: self.clone(), file, path: path.to_owned() }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, String> {
        self.machine.without_cpu(|| {
            let failed = |error| cannot("list", path, &error);
            if !std::fs::metadata(path).map_err(failed)?.is_dir() {
                return Ok(vec![console::printable(path)]);
            }
            let mut names = std::fs::read_dir(path)
                .map_err(failed)?
                .map(|entry| Ok(console::printable(&entry?.file_name().to_string_lossy())))
                .collect::<std::io::Result<Vec<_>>>()
                .map_err(failed)?;
            names.sort();
            Ok(names)
        })
    }
}

/// Interrupts that a storm brings.
struct Arriving<'m>(Storm<'m>);

impl Interrupts for Arriving<'_> {
    fn handled(&self) -> u64 {
        self.0.handled()
    }
}

/// A file of the host.
struct HostFile<const SHIFT: u32, const TRACE: bool> {
    machine: Hosted<SHIFT, TRACE>,
    /// There until it is closed.
    file: Option<File>,
    path: String,
}

impl<const SHIFT: u32, const TRACE: bool> HostFile<SHIFT, TRACE> {
    /// Does something with it, without a CPU.
    fn with<T>(
        &self,
        what: &str,
        work: impl FnOnce(&File) -> std::io::Result<T>,
    ) -> Result<T, String> {
        let file = self.file.as_ref().ok_or_else(|| format!("{} is closed", self.path))?;
        let done = self.machine.machine.without_cpu(|| work(file));
        done.map_err(|error| cannot(what, &self.path, &error))
    }
}

impl<const SHIFT: u32, const TRACE: bool> Source for HostFile<SHIFT, TRACE> {
    fn size(&self) -> Option<u64> {
        let status = self.with("look at", File::metadata).ok()?;
        // Others have no end, or none that is known.
        status.is_file().then_some(status.len()).filter(|size| *size > 0)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        self.with("read", |mut file| {
            loop {
                match file.read(out) {
                    // The machine's interrupts are signals.
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => return result,
                }
            }
        })
    }
}

impl<const SHIFT: u32, const TRACE: bool> Sink for HostFile<SHIFT, TRACE> {
    fn write(&mut self, data: &[u8]) -> Result<(), String> {
        self.with("write", |mut file| file.write_all(data))
    }
}

impl<const SHIFT: u32, const TRACE: bool> Drop for HostFile<SHIFT, TRACE> {
    fn drop(&mut self) {
        let file = self.file.take();
        self.machine.machine.without_cpu(|| drop(file));
    }
}

fn cannot(what: &str, path: &str, error: &std::io::Error) -> String {
    format!("cannot {what} {path}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_with_many_descriptors_boot_slowly() {
        let slow = |machine: &Description| machine.footprint().metadata > BOOTS_SLOWLY;
        assert!(!Description::presets().any(|machine| slow(&machine)));
        let mut machine = Description::preset("default").unwrap();
        machine.mem(1 << 40).unwrap();
        assert!(slow(&machine));
        machine.set("page_shift=16").unwrap();
        assert!(!slow(&machine));
    }
}
