//! What happens between boot and shutdown.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kmem_shell::{Completion, Shell};

use super::input::Input;
use super::prompt::{self, Talk};
use crate::console;
use crate::exit::Exit;
use crate::hosted::{Hosted, Visit};
use crate::mount::{self, Mount, Point};
use crate::signals::{self, After};

/// Where commands come from.
pub enum Commands {
    /// A text, a file, or standard input.
    Given(Input),
    /// A person at a terminal.
    Prompt,
}

/// Runs commands, with the machine's files mounted on a folder or not.
pub struct Session {
    pub commands: Commands,
    pub point: Option<Point>,
}

/// For how long a command that runs when a signal comes may go on to its end.
const GRACE: Duration = Duration::from_millis(500);

/// How often a machine that serves looks whether its files are still mounted.
const LOOK: Duration = Duration::from_millis(200);

/// What is to be ended, by whoever takes it away: the end of the commands, or a signal. It is locked while a
/// command runs.
type Running<const SHIFT: u32, const TRACE: bool> = Mutex<Option<Open<SHIFT, TRACE>>>;

struct Open<const SHIFT: u32, const TRACE: bool> {
    shell: Shell<'static, Hosted<SHIFT, TRACE>>,
    mount: Option<Mount<SHIFT, TRACE>>,
    /// Whether nothing is begun and unfinished between two commands: a person or a program gives them one
    /// by one, or there are no more.
    waits: bool,
}

impl Visit for Session {
    fn visit<const SHIFT: u32, const TRACE: bool>(
        self,
        machine: &Hosted<SHIFT, TRACE>,
    ) -> Result<(), Exit> {
        let Session { commands, point } = self;
        // The threads that serve its files may outlive this call, as far as the compiler can know.
        let machine: &'static Hosted<SHIFT, TRACE> = Box::leak(Box::new(machine.clone()));
        let shell = Shell::new(machine);
        let mount = point.as_ref().map(|point| Mount::start(point, machine, shell.tree()));
        let is_standard = matches!(&commands, Commands::Given(input) if input.is_standard());
        let is_prompt = matches!(commands, Commands::Prompt);
        let open = Open { shell, mount: mount.transpose()?, waits: is_prompt || is_standard };
        let running = Arc::new(Mutex::new(Some(open)));
        let ending = Arc::clone(&running);
        signals::on_signal(Box::new(move || end_by_signal(machine, &ending)));
        greet(machine, &commands, point.as_ref());
        // Nobody may be there to give commands: standard input is `/dev/null`, say.
        let serves = point.is_some() && is_standard;
        let mut lines = Lines { machine, running, is_prompt, has_run: false };
        let result = match commands {
            Commands::Given(input) => input.each(|text| lines.run(text)),
            Commands::Prompt => prompt::talk(&mut lines),
        };
        if result.is_ok() && (serves && !lines.has_run || machine.is_serving()) {
            if let Some(open) = lines.lock().as_mut() {
                open.waits = true;
            }
            if let Some(point) = &point {
                let ends = "Ctrl-C, a signal or `umount` ends that";
                console::machine_message(&format!("serving its files in {point}: {ends}"));
            }
            lines.serve();
            if let Some(point) = &point {
                console::machine_message(&format!(
                    "somebody has unmounted {point}: this is the end"
                ));
            }
        }
        let Some(open) = lines.lock().take() else { wait_for_the_end() };
        result.and(finish(machine, open))
    }
}

/// Says what was booted, where somebody may be there to read it.
fn greet<const SHIFT: u32, const TRACE: bool>(
    machine: &Hosted<SHIFT, TRACE>,
    commands: &Commands,
    point: Option<&Point>,
) {
    let place = point.map_or(String::new(), |point| format!(", its files in {point}"));
    let what = console::printable(&format!("{}{place}", machine.title()));
    match commands {
        Commands::Prompt => {
            eprintln!("{what}: `help` lists the commands, Tab completes, `exit` ends");
        }
        Commands::Given(input) if point.is_some() && input.is_standard() => {
            eprintln!("{what}: Ctrl-C ends");
        }
        Commands::Given(_) => {}
    }
}

/// Runs lines by a shell, as tasks of its machine.
struct Lines<const SHIFT: u32, const TRACE: bool> {
    machine: &'static Hosted<SHIFT, TRACE>,
    running: Arc<Running<SHIFT, TRACE>>,
    /// Whether a person waits for the machine's messages.
    is_prompt: bool,
    /// Whether there was a line with something in it.
    has_run: bool,
}

impl<const SHIFT: u32, const TRACE: bool> Lines<SHIFT, TRACE> {
    fn lock(&self) -> MutexGuard<'_, Option<Open<SHIFT, TRACE>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody unmounts the files. A signal ends the process meanwhile.
    fn serve(&self) {
        loop {
            thread::sleep(LOOK);
            match self.lock().as_ref() {
                Some(Open { mount: Some(mount), .. }) if mount.is_there() => {}
                Some(_) => return,
                None => wait_for_the_end(),
            }
        }
    }

    /// Does something with the shell. Where a signal has taken it away this ends here, with the process.
    fn shell<T>(&self, work: impl FnOnce(&mut Shell<'static, Hosted<SHIFT, TRACE>>) -> T) -> T {
        match self.lock().as_mut() {
            Some(open) => work(&mut open.shell),
            None => wait_for_the_end(),
        }
    }
}

impl<const SHIFT: u32, const TRACE: bool> Talk for Lines<SHIFT, TRACE> {
    fn run(&mut self, text: &str) -> Result<ControlFlow<()>, Exit> {
        self.has_run |= !text.trim().is_empty();
        self.shell(|shell| {
            let result = self.machine.run(|| shell.run(text));
            self.machine.settle();
            if self.is_prompt {
                self.machine.show_log();
            }
            result.map_err(|error| self.machine.exit_of(error))?;
            Ok(if shell.has_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let complete = |shell: &mut Shell<'_, _>| self.machine.run(|| shell.complete(line));
        let Completion { start, words } = self.shell(complete);
        (start, words)
    }

    fn wants(&self, line: &str) -> String {
        self.shell(|shell| shell.wants(line))
    }
}

/// For who sees that a signal has taken the session away, and ends the process.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// Takes the mount away, and gives back what the user still holds, even after a failure: so the check at
/// shutdown finds only what is really lost.
fn finish<const SHIFT: u32, const TRACE: bool>(
    machine: &Hosted<SHIFT, TRACE>,
    open: Open<SHIFT, TRACE>,
) -> Result<(), Exit> {
    drop(open.mount);
    let finished = machine.run(|| open.shell.finish());
    finished.map_err(|error| Exit::Lost(error.to_string()))
}

/// Ends the session where it waits, and with it the process, as `exit` would.
fn end_by_signal<const SHIFT: u32, const TRACE: bool>(
    machine: &'static Hosted<SHIFT, TRACE>,
    running: &Running<SHIFT, TRACE>,
) -> After {
    mount::detach();
    let begun = Instant::now();
    while begun.elapsed() < GRACE {
        if let Ok(mut open) = running.try_lock() {
            match open.take() {
                None => return After::Wait,
                Some(now) if now.waits => {
                    drop(open);
                    let finished = finish(machine, now);
                    Exit::end(machine.clone().close(finished))
                }
                busy => *open = busy,
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    After::Die
}
