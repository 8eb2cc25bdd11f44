//! How a mount ends, and where there can be none.

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::mounted::{Mounted, can_mount, is_mount_point, until};
use common::session::Session;
use common::{Folder, kmem};
use rustix::termios::{LocalModes, tcgetattr};

const SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP];

fn is_root() -> bool {
    // SAFETY: the call only answers a number.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: only root can try this");
    }
    root
}

/// A shell that stands in a folder, until its input is closed.
fn shell_in(folder: &Path) -> Child {
    let mut shell = Command::new("bash");
    shell.args(["-c", "echo there; read line"]).current_dir(folder);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    shell
}

/// Whoever uses it: the folder is free, memory is complete, and what is still asked fails.
#[test]
fn a_signal_ends_a_machine_that_serves_as_exit_does() {
    if !can_mount() {
        return;
    }
    for signal in SIGNALS {
        let machine = Mounted::serving("insmod scull; insmod scullp");
        machine.end_well(signal);

        let machine = Mounted::serving("insmod scull; insmod scullp");
        machine.sh("head -c 100000 /dev/zero > dev/scull1");
        let open = |name| OpenOptions::new().read(true).write(true).open(machine.at(name)).unwrap();
        let mut files = [open("dev/scull0"), open("dev/scullp3"), open("dev/zero")];
        files[0].write_all(b"held").unwrap();
        let text = File::open(machine.at("proc/slabinfo")).unwrap();
        let names = std::fs::read_dir(machine.at("dev")).unwrap();
        let mut shells = [shell_in(&machine.root), shell_in(&machine.at("dev"))];
        machine.end_well(signal);
        for file in files.iter().chain([&text]) {
            let error = file.read_at(&mut [0], 0).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
        }
        let error = files[0].write_at(b"x", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
        drop((files, text, names));
        for shell in &mut shells {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }
}

/// A program in the middle of a long write is told that there is nobody any more.
#[test]
fn a_signal_ends_it_while_programs_read_and_write() {
    if !can_mount() {
        return;
    }
    for signal in SIGNALS {
        let machine =
            Mounted::boot(&["--machine", "tiny", "-c", "insmod scull quota=1000000; serve"]);
        until("the device", || machine.at("dev/scull0").exists());
        let line = "while dd if=/dev/zero of=dev/scull0 bs=100k count=5 2> /dev/null; do :; done";
        let busy = |line: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", line]).current_dir(&machine.root).stderr(Stdio::null());
            bash.stdout(Stdio::null()).spawn().unwrap()
        };
        let mut programs = [
            busy(line),
            busy("while cat dev/scull0 proc/slabinfo; do :; done"),
            busy("cat dev/zero"),
        ];
        std::thread::sleep(Duration::from_millis(100));
        machine.end_well(signal);
        for program in &mut programs {
            program.wait().unwrap();
        }
    }
}

/// What is lost is told where a signal ends the machine, as it is at `exit`.
#[test]
fn memory_is_checked_after_a_signal() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["--machine", "tiny", "-c", "insmod scull; leak 0; serve"]);
    until("the device", || machine.at("dev/scull0").exists());
    machine.signal(libc::SIGTERM);
    assert_eq!(machine.wait().code(), Some(3));
    assert!(machine.said().contains("1 page of 4096 bytes is lost"));
}

/// A command that runs is not finished: the process ends by the signal, and the folder is free.
#[test]
fn a_signal_during_a_command_ends_the_process() {
    if !can_mount() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP] {
        let mut machine = Mounted::boot(&["-c", "insmod scull; sleep 1000"]);
        until("the device", || machine.at("dev/scull0").exists());
        let file = File::open(machine.at("dev/scull0")).unwrap();
        machine.signal(signal);
        assert_eq!(machine.wait().signal(), Some(signal));
        assert!(!is_mount_point(&machine.root));
        assert!(file.read_at(&mut [0], 0).is_err());
    }
    // Between two commands of a script as well: they are one piece of work.
    let folder = Folder::new();
    let script = folder.path("script");
    std::fs::write(&script, "insmod scull\n".to_owned() + &"sleep 0.01\n".repeat(10_000)).unwrap();
    let mut machine = Mounted::boot(&["--script", &script]);
    until("the device", || machine.at("dev/scull0").exists());
    machine.signal(libc::SIGTERM);
    assert_eq!(machine.wait().signal(), Some(libc::SIGTERM));
    assert!(!is_mount_point(&machine.root));
}

/// Ctrl-C ends the command alone: the machine is shut down in order.
#[test]
fn ctrl_c_during_a_command_ends_it_and_then_the_machine() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["-c", "insmod scull; sleep 1000"]);
    until("the device", || machine.at("dev/scull0").exists());
    let file = File::open(machine.at("dev/scull0")).unwrap();
    machine.signal(libc::SIGINT);
    assert_eq!(machine.wait().code(), Some(130), "{}", machine.said());
    assert!(machine.said().contains("sleep: interrupted"));
    assert!(!is_mount_point(&machine.root));
    assert!(file.read_at(&mut [0], 0).is_err());
}

/// The second one does not wait for the command.
#[test]
fn a_second_signal_ends_the_process_at_once() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["-c", "insmod scull; sleep 1000"]);
    until("the device", || machine.at("dev/scull0").exists());
    machine.signal(libc::SIGTERM);
    until("the end of the mount", || !is_mount_point(&machine.root));
    machine.signal(libc::SIGHUP);
    let signal = machine.wait().signal();
    assert!([Some(libc::SIGTERM), Some(libc::SIGHUP)].contains(&signal), "{signal:?}");
}

/// What `nohup` asks for.
#[test]
fn an_ignored_sighup_stays_ignored() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let root = folder.path("root");
    std::fs::create_dir(&root).unwrap();
    let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
    kmem.args(["boot", "--machine", "tiny", "--mount", &root]).stdin(Stdio::null());
    let ignore = || {
        // SAFETY: SIG_IGN is an action.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: between fork and exec it makes one call, which is allowed there.
    let child = unsafe { kmem.pre_exec(ignore) }.stderr(Stdio::null()).spawn().unwrap();
    let mut machine = Mounted { child, folder, root: root.into() };
    until("the mount", || is_mount_point(&machine.root));
    machine.signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(machine.child.try_wait().unwrap(), None);
    assert_eq!(machine.sh("ls"), "dev\nproc\nsys\n");
    machine.end_well(libc::SIGTERM);
}

/// With no commands and no terminal it serves; with commands it ends with them.
#[test]
fn it_serves_until_a_signal_where_nobody_gives_commands() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot_in(Folder::new(), &[], Stdio::null());
    assert_eq!(machine.sh("ls dev"), "null\nzero\n");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(machine.child.try_wait().unwrap(), None);
    machine.signal(libc::SIGTERM);
    assert_eq!(machine.wait().code(), Some(0));
    assert!(
        machine.said().contains(&format!("its files in {}: Ctrl-C ends", machine.root.display()))
    );

    for last in ["insmod scullp", "exit", "serve; exit"] {
        let mut machine = Mounted::boot(&["--machine", "tiny"]);
        machine.enter("insmod scull");
        until("the device", || machine.at("dev/scull0").exists());
        machine.enter(last);
        drop(machine.child.stdin.take());
        if last.starts_with("serve") {
            std::thread::sleep(Duration::from_millis(300));
            machine.end_well(libc::SIGINT);
        } else {
            assert_eq!(machine.wait().code(), Some(0));
            assert!(!is_mount_point(&machine.root));
        }
    }
}

/// One that fails ends as it does without a mount.
#[test]
fn the_status_is_that_of_the_commands() {
    if !can_mount() {
        return;
    }
    let mkdir = || {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("root")).unwrap();
        folder
    };
    for (status, commands, needle) in [
        (0, "insmod scull; cat /proc/modules > /dev/scull0", ""),
        (1, "insmod scull; rmmod scullp", "scullp is not loaded"),
        (2, "insmod scull; nonsense", "no such command"),
        (3, "leak 0", "1 page of 4096 bytes is lost"),
        (4, "cache create x 16M panic", "kernel panic"),
    ] {
        let folder = mkdir();
        let root = folder.path("root");
        let run = kmem(&["boot", "--machine", "tiny", "--mount", &root, "-c", commands]);
        assert_eq!(run.status, status, "{commands}: {}", run.err);
        assert!(run.err.contains(needle), "{commands}: {}", run.err);
        assert!(!is_mount_point(Path::new(&root)), "{commands}");
    }
}

/// A run that was killed leaves a mount that nobody serves. The next one takes it away.
#[test]
fn a_dead_mount_of_a_killed_run_is_replaced() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::serving("insmod scull");
    let mut held = None;
    for round in 0..3 {
        let file = File::open(machine.at("dev/scull0")).unwrap();
        machine.child.kill().unwrap();
        machine.child.wait().unwrap();
        assert!(is_mount_point(&machine.root));
        assert_eq!(
            std::fs::metadata(&machine.root).unwrap_err().raw_os_error(),
            Some(libc::ENOTCONN)
        );
        // With a file open or without, and by a path that is written otherwise.
        held = (round > 0).then_some(file);
        let folder = std::mem::replace(&mut machine.folder, Folder::new());
        // What was mounted goes with the next run.
        let next = Mounted::start_in(folder, &["-c", "insmod scull; serve"], Stdio::null());
        machine.root = Path::new(&machine.folder.path("nothing")).into();
        machine = next;
        until("the device", || machine.at("dev/scull0").exists());
        machine.sh("echo alive > dev/scull0; cat dev/scull0");
    }
    drop(held);
    machine.end_well(libc::SIGTERM);
}

/// What is missing is said in one line, and nothing is left behind.
#[test]
fn a_folder_that_cannot_be_mounted_on_is_refused_in_one_line() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let file = folder.file("file", 10);
    let full = folder.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(folder.path("full/x"), "x").unwrap();
    let used = Mounted::boot(&["--machine", "tiny"]);
    for (status, path, needle) in [
        (2, folder.path("none"), "there is no such folder: make it first"),
        (2, folder.path("none/deeper"), "there is no such folder"),
        (2, String::new(), "a value is required"),
        (2, file.clone(), "it is no folder"),
        (2, format!("{file}/x"), "Not a directory"),
        (2, full, "it is not empty"),
        (2, "/".into(), "it is not empty"),
        (1, used.root.to_str().unwrap().into(), "another machine's files are mounted there"),
        (2, "/proc".into(), "it is not empty"),
        (2, used.text("dev"), "it is not empty"),
        (2, used.text("dev/zero"), "it is no folder"),
    ] {
        let run = kmem(&["boot", "--machine", "tiny", "--mount", &path, "-c", "echo never"]);
        assert_eq!(run.out, "", "{path}");
        run.complains(status, needle);
    }
    // The one that was there has not noticed.
    assert_eq!(used.sh("ls dev"), "null\nzero\n");
    used.end_well(libc::SIGTERM);
}

/// Two that start at one moment: one has the folder.
#[test]
fn one_of_two_gets_a_folder() {
    if !can_mount() {
        return;
    }
    for _ in 0..5 {
        let folder = Folder::new();
        let root = folder.path("root");
        std::fs::create_dir(&root).unwrap();
        let start = || {
            let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
            kmem.args(["boot", "--machine", "tiny", "--mount", &root, "-c", "sleep 0.3"]);
            kmem.stderr(Stdio::piped()).spawn().unwrap()
        };
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let mut status = both.each_ref().map(|output| output.status.code());
        status.sort();
        assert_eq!(status, [Some(0), Some(1)], "{both:?}");
        assert!(!is_mount_point(Path::new(&root)));
    }
}

/// Hosts without FUSE, or where it is not permitted.
#[test]
fn where_fuse_is_not_to_be_had_one_line_says_what_is_missing() {
    if !can_mount() || !is_root() {
        return;
    }
    let folder = Folder::new();
    let root = folder.path("root");
    std::fs::create_dir(&root).unwrap();
    // For a user who may not read the folder that this was built in.
    let program = folder.path("kmem");
    std::fs::copy(env!("CARGO_BIN_EXE_kmem"), &program).unwrap();
    let boot = format!("exec {program} boot --machine tiny --mount {root} -c 'echo never'");
    let run = |what: &str, sh: &mut Command, needle: &str| {
        let output = sh.stdin(Stdio::null()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {err}");
        assert!(output.stdout.is_empty() && err.lines().count() == 1, "{what}: {err}");
        assert!(err.contains(needle), "{what}: {err}");
    };
    let bash = |line: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", line]);
        bash
    };
    // Without pages of its own for devices: a folder of mounts that goes with the program.
    let apart = |line: &str| bash(&format!("exec unshare -m bash -c \"{line}; {boot}\""));
    run(
        "no device",
        &mut apart("mount -t tmpfs none /dev"),
        "there is no /dev/fuse: load the module fuse",
    );
    run("another device", &mut apart("mount --bind /dev/null /dev/fuse"), "cannot mount on");
    run("another user", bash(&boot).uid(65_534), "/dev/fuse cannot be opened: Permission denied");
    // A root that may not mount.
    let bare = format!("exec setpriv --bounding-set -all --inh-caps -all bash -c \"{boot}\"");
    run("no right to mount", &mut bash(&bare), "it is not permitted, and there is no fusermount3");
    // And all else goes on as ever.
    let plain = "mount -t tmpfs none /dev".to_owned();
    let plain = format!("exec unshare -m bash -c \"{plain}; exec {program} boot -c 'echo works'\"");
    let output = bash(&plain).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "works\n");
}

/// Somebody may unmount it by hand; what is mounted there later is theirs.
#[test]
fn what_others_mount_there_later_stays() {
    if !can_mount() || !is_root() {
        return;
    }
    // Commands may still come: one that only serves would end.
    let mut machine = Mounted::boot(&[]);
    let root = machine.root.display().to_string();
    machine.enter("insmod scull");
    until("the device", || machine.at("dev/scull0").exists());
    let done = Command::new("umount").arg(&root).status().unwrap();
    assert!(done.success());
    let done = Command::new("mount").args(["-t", "tmpfs", "mine", &root]).status().unwrap();
    assert!(done.success());
    machine.signal(libc::SIGTERM);
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.said());
    assert!(is_mount_point(&machine.root));
    // The next run leaves it as well, whether it can mount on top of it or not.
    kmem(&["boot", "--machine", "tiny", "--mount", &root, "-c", "echo on top"]).well();
    assert!(is_mount_point(&machine.root));
    std::fs::write(machine.at("mine"), "x").unwrap();
    kmem(&["boot", "--machine", "tiny", "--mount", &root, "-c", "echo"]).complains(2, "not empty");
    assert!(Command::new("umount").arg(&root).status().unwrap().success());
}

/// What somebody mounts over it hides it, and stays; that the mount below is left is said.
#[test]
fn what_others_mount_over_it_stays_and_is_told_of() {
    if !can_mount() || !is_root() {
        return;
    }
    let mut machine = Mounted::serving("insmod scull");
    let root = machine.root.display().to_string();
    let over = Command::new("mount").args(["-t", "tmpfs", "mine", &root]).status().unwrap();
    assert!(over.success());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(machine.child.try_wait().unwrap(), None);
    machine.signal(libc::SIGTERM);
    assert_eq!(machine.wait().code(), Some(0));
    let said = machine.said();
    assert!(said.contains(&format!("something else is mounted over {root}")), "{said}");
    std::fs::write(machine.at("mine"), "x").unwrap();
    for _ in 0..2 {
        assert!(Command::new("umount").arg(&root).status().unwrap().success());
    }
    assert!(!is_mount_point(&machine.root));
}

/// The folder is found whatever it is called by then.
#[test]
fn a_folder_that_was_renamed_is_unmounted() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let outer = folder.path("outer");
    std::fs::create_dir_all(format!("{outer}/inner")).unwrap();
    let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
    kmem.args(["boot", "--machine", "tiny", "--mount", &format!("{outer}/inner")]);
    let child = kmem.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut machine = Mounted { child, folder, root: format!("{outer}/inner").into() };
    until("the mount", || is_mount_point(&machine.root));
    std::fs::rename(&outer, machine.folder.path("renamed")).unwrap();
    machine.root = machine.folder.path("renamed/inner").into();
    assert_eq!(machine.sh("ls"), "dev\nproc\nsys\n");
    machine.end_well(libc::SIGTERM);
}

/// There is nothing left to do for one that serves: it ends as it does by a signal, and says why.
#[test]
fn umount_ends_a_machine_that_serves() {
    if !can_mount() || !is_root() {
        return;
    }
    let umount = |machine: &Mounted, how: &[&str]| {
        let done = Command::new("umount").args(how).arg(&machine.root).status().unwrap();
        assert!(done.success());
    };
    let mut machine = Mounted::serving("insmod scull");
    machine.sh("echo held > dev/scull0");
    umount(&machine, &[]);
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.said());
    assert!(machine.said().contains("somebody has unmounted"));
    // A program that has a file open is served until it closes that.
    let mut machine = Mounted::boot_in(Folder::new(), &["--machine", "tiny"], Stdio::null());
    let file = File::open(machine.at("dev/zero")).unwrap();
    umount(&machine, &["--lazy"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(machine.child.try_wait().unwrap(), None);
    assert_eq!(file.read_at(&mut [1; 10], 0).unwrap(), 10);
    drop(file);
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.said());
    // And what it lost is told.
    let mut machine = Mounted::serving("leak 0");
    umount(&machine, &[]);
    assert_eq!(machine.wait().code(), Some(3), "{}", machine.said());
    assert!(machine.said().contains("1 page of 4096 bytes is lost"));
}

fn a_folder() -> (Folder, String) {
    let folder = Folder::new();
    let root = folder.path("root");
    std::fs::create_dir(&root).unwrap();
    (folder, root)
}

/// The prompt goes on beside the mount.
#[test]
fn a_prompt_and_the_host_use_one_machine() {
    if !can_mount() {
        return;
    }
    let (_folder, root) = a_folder();
    let mut session = Session::boot(&["--mount", &root]);
    session.expect(&format!("its files in {root}: `help` lists the commands"));
    session.enter("insmod scull; echo from the prompt > /dev/scull0");
    let device = format!("{root}/dev/scull0");
    until("the device", || std::fs::read(&device).is_ok_and(|text| text == b"from the prompt\n"));
    std::fs::write(&device, "from the host\n").unwrap();
    session.enter("cat /dev/scull0");
    session.expect("from the host");
    let open = File::open(&device).unwrap();
    session.enter("rmmod scull");
    session.expect("scull is in use");
    drop(open);
    session.enter("rmmod scull; lsmod");
    session.expect("Used by");
    assert!(!Path::new(&device).exists());
    // The key that takes a line back does not end anything.
    session.expect("kmem> ");
    session.terminal.write_all(b"half a line\x03").unwrap();
    session.enter("exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    assert!(!is_mount_point(Path::new(&root)));
}

/// A prompt that waits is ended too, and the terminal is as it was.
#[test]
fn a_signal_ends_a_prompt_and_leaves_the_terminal_in_order() {
    if !can_mount() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let (_folder, root) = a_folder();
        let mut session = Session::boot(&["--mount", &root]);
        let before = LocalModes::ICANON | LocalModes::ECHO;
        session.enter("insmod scull; alloc_pages GFP_KERNEL 0");
        session.expect("id 1: ");
        session.expect("kmem> ");
        until("the editor", || {
            !tcgetattr(&session.terminal).unwrap().local_modes.intersects(before)
        });
        // SAFETY: the process is this test's child.
        unsafe { libc::kill(session.child.id() as i32, signal) };
        until("the terminal's mode", || {
            tcgetattr(&session.terminal).unwrap().local_modes.contains(before)
        });
        let (screen, status) = session.end();
        assert_eq!(status, Some(0), "{screen}");
        assert!(!is_mount_point(Path::new(&root)));
    }
}

/// The machine goes on after Ctrl-C, and its files stay where they are.
#[test]
fn the_interrupt_key_ends_a_command_and_not_the_mount() {
    if !can_mount() {
        return;
    }
    let (_folder, root) = a_folder();
    let mut session = Session::boot(&["--mount", &root]);
    session.enter("echo begun; sleep 1000");
    session.expect("\nbegun");
    session.interrupt();
    session.expect("sleep: interrupted");
    assert!(is_mount_point(Path::new(&root)));
    session.enter("exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    assert!(!is_mount_point(Path::new(&root)));
}
