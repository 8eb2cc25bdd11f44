//! What a person sees at a terminal, typed into and read from the screen.

mod common;

use common::Folder;
use common::mounted::{can_mount, until};
use common::tmux::Screen;

/// The first minutes of somebody new: completion, an error, a driver, a file, the end.
#[test]
fn a_newcomer_types_and_sees() {
    let screen = Screen::start("kmem boot --machine tiny");
    screen.shows("`help` lists the commands, Tab completes");
    // A word that is begun is finished by Tab, twice in one line.
    screen.shows("kmem>");
    screen.keys(&["ins", "Tab", "scullp", "Tab", "or", "Tab", "1", "Enter"]);
    screen.shows("kmem> insmod scullp order=1");
    let shown = screen.enter("ls /dev");
    assert!(shown.contains("\nnull\nscullp0\nscullp1\nscullp2\nscullp3\nzero\n"), "{shown}");
    let shown = screen.enter("echo to be kept > /dev/scullp2; cat /dev/scullp2");
    assert!(shown.contains("\nto be kept\nkmem>"), "{shown}");
    // What is wrong is told in one line, with a mark of its own, and the prompt goes on.
    screen.enter("clear_everything");
    let shown = screen.shows("no such command");
    let line = shown.lines().find(|line| line.contains("no such command")).unwrap();
    assert!(line.starts_with("kmem: ") && line.contains("help"), "{line}");
    let coloured = screen.with_colours();
    assert!(coloured.contains("\u{1b}["), "no colours at a terminal: {coloured:?}");
    // Help of one command has an example.
    let shown = screen.enter("help alloc_pages");
    assert!(shown.contains("alloc_pages 'GFP_KERNEL|__GFP_ZERO' 3"), "{shown}");
    screen.keys(&["Up", "Enter"]);
    screen.wait("what was typed before", |screen| {
        screen.matches("kmem> help alloc_pages").count() == 2
    });
    screen.enter("rmmod scullp");
    screen.keys(&["exit", "Enter"]);
    screen.shows("ended with 0");
}

/// A command that takes long shows how far it is, and Ctrl-C ends it and not the machine.
#[test]
fn long_work_shows_its_progress_and_ctrl_c_ends_it() {
    let screen = Screen::start("kmem boot --machine tiny");
    screen.enter("insmod scull; echo kept > /dev/scull0");
    screen.keys(&["stress 1000000000", "Enter"]);
    screen.wait("the progress", |screen| screen.contains('%') || screen.contains('/'));
    screen.keys(&["C-c"]);
    let shown = screen.shows("stress: interrupted");
    // The bar is gone with the command.
    assert!(!shown.contains('█'), "{shown}");
    let shown = screen.enter("cat /dev/scull0");
    assert!(shown.contains("\nkept\nkmem>"), "{shown}");
    // Half a line is given up by Ctrl-C.
    screen.keys(&["cat /dev/sc", "C-c"]);
    screen.enter("lsmod");
    screen.keys(&["C-d"]);
    screen.shows("ended with 0");
}

/// A prompt in one terminal, the host's programs in another.
#[test]
fn a_file_that_is_written_elsewhere_is_read_at_the_prompt() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let root = folder.path("root");
    std::fs::create_dir(&root).unwrap();
    let screen = Screen::start(&format!("kmem boot --machine tiny --mount {root}"));
    screen.enter("insmod scull");
    let other = Screen::start(&format!("cd {root}; sh -i"));
    other.keys(&["echo from elsewhere > dev/scull1; head -1 proc/scullmem", "Enter"]);
    let device = format!("{root}/dev/scull1");
    until("the text", || std::fs::read(&device).is_ok_and(|text| text == b"from elsewhere\n"));
    let shown = screen.enter("cat /dev/scull1");
    assert!(shown.contains("\nfrom elsewhere\nkmem>"), "{shown}");
    // The machine ends in order although a shell stands in its folder.
    screen.keys(&["exit", "Enter"]);
    screen.shows("ended with 0");
    other.keys(&["ls", "Enter"]);
    other.wait("an error", |screen| {
        screen.contains("not connected") || screen.contains("No such file")
    });
}
