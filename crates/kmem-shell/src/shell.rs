//! The state between commands, and running one.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kmem::spelling::nearest;

use crate::commands::{self, Areas, Command, Fill, Held, Objects};
use crate::files::{self, Tree};
use crate::{Error, Failure, Invocation, Sink, System, parse};

/// A shell: what it runs on, and what its user holds.
pub struct Shell<'m, S: System> {
    pub(crate) system: &'m S,
    pub(crate) tree: Arc<Tree<'m, S>>,
    /// What `alloc_pages` gave out, by ID.
    pub(crate) held: Vec<Held>,
    /// The ID that the next block gets.
    pub(crate) next_id: u64,
    /// What `kmalloc` and `cache` gave out.
    pub(crate) objects: Objects,
    /// What `vmalloc` gave out.
    pub(crate) areas: Areas,
    /// What `fill` took.
    pub(crate) fill: Fill,
    /// Whether `exit` was run.
    pub(crate) ended: bool,
}

impl<'m, S: System> Shell<'m, S> {
    /// A shell whose user holds nothing.
    pub fn new(system: &'m S) -> Self {
        Shell {
            system,
            tree: Arc::new(Tree::new(system)),
            held: Vec::new(),
            next_id: 1,
            objects: Objects::new(),
            areas: Areas::new(),
            fill: Fill::new(),
            ended: false,
        }
    }

    /// What it runs on.
    pub fn system(&self) -> &'m S {
        self.system
    }

    /// The machine's files, which others may use while commands run.
    pub fn tree(&self) -> Arc<Tree<'m, S>> {
        Arc::clone(&self.tree)
    }

    /// Runs the commands of a text one after the other, up to the first that fails or ends the run.
    /// All are looked up before the first is run.
    ///
    /// # Errors
    ///
    /// The first command that failed, and why.
    pub fn run(&mut self, text: &str) -> Result<(), Error> {
        let invocations = parse(text)?;
        for Invocation { words, .. } in &invocations {
            let command = find::<S>(words)?;
            if command.name == "time" && words.len() > 1 {
                find::<S>(&words[1..])?;
            }
        }
        for invocation in &invocations {
            self.run_one(invocation)?;
            if self.ended {
                break;
            }
        }
        Ok(())
    }

    /// Ends the run, as `exit` does.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether a command has ended the run: nothing more is to be run then.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Runs one command.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub fn run_one(&mut self, invocation: &Invocation) -> Result<(), Error> {
        let command = find::<S>(&invocation.words)?;
        let system = self.system;
        let arguments = &invocation.words[1..];
        let result = match &invocation.output {
            // It would be emptied, and then be read for as long as it grows.
            Some(path) if arguments.iter().any(|word| files::same(self, word, path)) => Err(
                Failure::Failed(format!("{path} is read and written: send the output elsewhere")),
            ),
            Some(path) => files::create(self, path)
                .map_err(Failure::Failed)
                .and_then(|mut sink| self.run_into(command, arguments, &mut *sink)),
            None => self.run_into(command, arguments, &mut Console(system)),
        };
        system.end_progress();
        result.map_err(|failure| Error { command: command.name.into(), failure })
    }

    pub(crate) fn run_into(
        &mut self,
        command: &Command<S>,
        arguments: &[String],
        out: &mut dyn Sink,
    ) -> Result<(), Failure> {
        (command.run)(self, arguments, out)?;
        Ok(out.finish()?)
    }

    /// Gives back all that the user still holds: loaded modules, blocks, objects and caches, what `fill`
    /// took.
    ///
    /// # Errors
    ///
    /// What `fill` took no longer has the contents that it was given, or a cache cannot be destroyed.
    pub fn finish(mut self) -> Result<(), Error> {
        self.tree.modules.unload_all();
        for held in core::mem::take(&mut self.held) {
            held.free(self.system.mm());
        }
        self.areas.free_all(self.system.mm());
        let freed = self.objects.free_all(self.system.mm());
        let drained = self.fill.drain(self.system.mm(), &|_| {});
        let failed = |command: &str, message| Error {
            command: command.into(),
            failure: Failure::Failed(message),
        };
        drained.map_err(|message| failed("drain", message))?;
        freed.map_err(|message| failed("cache", message))
    }
}

/// The command that the first word names.
pub(crate) fn find<S: System>(words: &[String]) -> Result<&'static Command<S>, Error> {
    let name = words.first().map_or("", String::as_str);
    commands::all::<S>().find(|command| command.name == name).ok_or_else(|| Error {
        command: name.into(),
        failure: Failure::Usage(format!("no such command; `help` lists them{}", guess::<S>(name))),
    })
}

/// The command that a wrong name may have meant: the only one that it is the beginning of, one that it is a
/// slip of, or the only one that it begins with.
fn guess<S: System>(name: &str) -> String {
    let names = || commands::all::<S>().map(|command| command.name);
    let only = |is_it: &dyn Fn(&str) -> bool| {
        let mut found = names().filter(|known| !name.is_empty() && is_it(known));
        found.next().filter(|_| found.next().is_none())
    };
    let meant = only(&|known| known.starts_with(name))
        .or_else(|| nearest(name, names()))
        .or_else(|| only(&|known| name.starts_with(known)));
    match meant {
        Some(known) => format!(", and one is `{known}`"),
        None => String::new(),
    }
}

/// The console as a place for output.
struct Console<'m, S>(&'m S);

impl<S: System> Sink for Console<'_, S> {
    fn write(&mut self, data: &[u8]) -> Result<(), String> {
        self.0.print(data)
    }
}
