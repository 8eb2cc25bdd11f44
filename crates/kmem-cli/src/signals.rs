//! What ends the process from outside: Ctrl-C, SIGTERM, SIGQUIT, SIGHUP.
//!
//! A thread waits for them; in all others they are blocked. So what has to be done first is ordinary code,
//! and nothing of it runs in the middle of something else.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::{boot, interrupt, mount, top};

/// What is to be done at the first signal. If it comes back, and did not end the process, the answer says
/// what becomes of that.
pub type End = Box<dyn FnOnce() -> After + Send>;

/// What becomes of the process after [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Somebody else is about to end it.
    Wait,
    /// The signal ends it, as if nobody had waited for it.
    Die,
}

static END: Mutex<Option<End>> = Mutex::new(None);

/// Has a thread wait for the signals from now on. The threads that are started later have them blocked.
///
/// A Ctrl-C asks the command that runs to stop. The next one, and the first where no command runs, does what
/// [`on_signal`] was given, and so do the others; one more ends the process at once.
///
/// # Errors
///
/// There is no thread to be had.
pub fn watch() -> std::io::Result<()> {
    let set = set();
    // SAFETY: the set is valid, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut()) };
    let terminal = Terminal::now();
    let body = move || {
        let first = loop {
            let signal = wait(&set);
            if signal != libc::SIGINT || !interrupt::ask() {
                break signal;
            }
        };
        let end = END.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(end) = end else { die(first) };
        // A prompt that waits has it in another mode, and is not asked.
        if let Some(terminal) = &terminal {
            terminal.put_back();
        }
        // In a thread of its own: it may take long, and this one waits for the next signal.
        let ending = thread::Builder::new().name("ending".into()).spawn(move || match end() {
            After::Wait => {}
            After::Die => die(first),
        });
        if ending.is_err() {
            die(first);
        }
        die(wait(&set))
    };
    thread::Builder::new().name("signals".into()).spawn(body).map(drop)
}

/// Says what the first signal does. Before this is called it ends the process.
pub fn on_signal(end: End) {
    *END.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes it a set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        // Ctrl-\ at a terminal: it must not leave a dead mount behind.
        libc::sigaddset(set.as_mut_ptr(), libc::SIGQUIT);
        // `nohup` has it ignored, and means it. A shell has SIGINT ignored for what it runs with `&`: there
        // it is a process that is to be stopped by its number.
        if !is_ignored(libc::SIGHUP) {
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
        }
        set.assume_init()
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the action is only asked for. All bytes zero are one, should there be no answer.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

fn wait(set: &libc::sigset_t) -> i32 {
    loop {
        let mut signal = 0;
        // SAFETY: the set is valid, and the signal has room.
        if unsafe { libc::sigwait(set, &raw mut signal) } == 0 {
            return signal;
        }
    }
}

/// How the terminal is, if standard input is one.
struct Terminal(libc::termios);

impl Terminal {
    fn now() -> Option<Self> {
        let mut mode = MaybeUninit::zeroed();
        // SAFETY: the mode has room; it is there when the answer is 0.
        unsafe {
            (libc::tcgetattr(0, mode.as_mut_ptr()) == 0).then(|| Terminal(mode.assume_init()))
        }
    }

    fn put_back(&self) {
        // SAFETY: the mode is one that the terminal had.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw const self.0) };
    }
}

/// Ends the process by a signal, so that whoever started it sees which.
fn die(signal: i32) -> ! {
    // From now on one more ends it wherever this is.
    let set = set();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: the set is valid; the default action is one.
        unsafe {
            if libc::sigismember(&raw const set, signal) == 1 {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    // SAFETY: the set is valid, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut()) };
    mount::detach();
    top::put_back();
    if let Err(unwritten) = boot::finish_trace_soon() {
        unwritten.tell();
    }
    // SAFETY: it comes to this thread, which lets it in.
    unsafe { libc::raise(signal) };
    // What a shell would make of it.
    std::process::exit(128 + signal)
}
