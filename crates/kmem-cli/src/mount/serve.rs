//! The command that only a machine with mounted files has.

use kmem_shell::{Command, Failure, Shell, Sink};

use crate::hosted::Hosted;

/// `serve`.
pub const fn serve<const SHIFT: u32, const TRACE: bool>() -> Command<Hosted<SHIFT, TRACE>> {
    Command {
        name: "serve",
        usage: "serve",
        about: "end the commands here, and serve the files of --mount until Ctrl-C or a signal\n\
                What is loaded stays so. At the end all is given back, and memory is checked.",
        example: "insmod scull; serve",
        run: run_serve,
    }
}

fn run_serve<const SHIFT: u32, const TRACE: bool>(
    shell: &mut Shell<'_, Hosted<SHIFT, TRACE>>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    if !arguments.is_empty() {
        return Err(Failure::Usage("it takes no arguments: write `serve`".into()));
    }
    if !shell.system().serve() {
        return Err(Failure::Failed(
            "nothing is mounted: start with `kmem boot --mount FOLDER`".into(),
        ));
    }
    shell.end();
    Ok(())
}
