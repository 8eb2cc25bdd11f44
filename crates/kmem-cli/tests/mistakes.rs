//! What people type wrongly, as a table: how it ends, and the words that its one line has.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::ptr::null_mut;

use common::{Folder, kmem, kmem_unread, kmem_with, tiny};

/// A line that ends with this status, and says all of this.
#[track_caller]
fn told(run: common::Run, status: i32, words: &[&str]) {
    let line = run.err.clone();
    for word in words {
        assert!(line.contains(word), "'{word}' is not in: {line}");
    }
    assert!(line.starts_with("kmem: "), "{line}");
    assert!(line.chars().count() <= 620, "{line}");
    run.complains(status, "");
}

#[test]
fn wrong_arguments_say_what_to_give() {
    for (arguments, words) in [
        // Commands.
        (&["machine"][..], &["'machine'", "'machines'"][..]),
        (&["mount"], &["'mount'", "try --help"]),
        (&["-c", "ls"], &["'-c'", "try --help"]),
        (&["trace"], &["not provided: <FILE>; try --help"]),
        (&["completions"], &["not provided: <SHELL>"]),
        (&["completions", "tcsh"], &["'tcsh'", "bash", "fish", "zsh"]),
        (&["man", "nosuch"], &["no command 'nosuch'", "boot, machines", "or nothing"]),
        (&["man", "boot", "--dir", "x"], &["'[COMMAND]' cannot be used with '--dir <DIR>'"]),
        (&["demo", "x"], &["'x'", "try --help"]),
        // Options.
        (&["boot", "-x"], &["'-x'", "try --help"]),
        (&["boot", "--machin", "tiny"], &["'--machin'", "'--machine'"]),
        (&["boot", "--qqq"], &["'--qqq' found; try --help"]),
        (&["boot", "--json"], &["'--json'", "try --help"]),
        (&["boot", "-c", "ls", "-c", "ls"], &["'-c <COMMANDS>' cannot be used multiple times"]),
        (&["boot", "--set"], &["a value is required for '--set <KEY=VALUE>'"]),
        (&["boot", "tiny"], &["'tiny'", "write --machine tiny"]),
        (&["boot", "é"], &["'é'", "try --help"]),
        // Numbers and sizes.
        (&["boot", "--mem", "64MB"], &["--mem '64MB' is no size", "up to 16T", "512M"]),
        (&["boot", "--mem", "1.5G"], &["--mem '1.5G' is no size", "512M"]),
        (&["boot", "--mem", "-5M"], &["--mem '-5M' is no size", "512M"]),
        (&["boot", "--mem", "4 G"], &["--mem '4 G' is no size"]),
        (&["boot", "--mem", "12"], &["mem = 12", "a multiple of the page size from 1M to 16T"]),
        (&["boot", "--mem", "17T"], &["mem = 17T", "to 16T"]),
        (&["boot", "--mem", "16T"], &["mem = 16T", "at most 16777215M, which ends with its holes"]),
        (&["boot", "--mem", "99999999999999T"], &["'99999999999999T' is no size", "up to 16T"]),
        (&["boot", "--nodes", "16", "--mem", "4M"], &["nodes = 16", "at most 4, or ram of 16M"]),
        (&["boot", "--cpus", "1000"], &["cpus = 1000", "from 1 to 256"]),
        (&["boot", "--cpus", "-1"], &["'-1'", "a number of CPUs from 1 to 256"]),
        (&["boot", "--cpus", "2.5"], &["'2.5'", "a number of CPUs from 1 to 256"]),
        (&["boot", "--nodes", "two"], &["'two'", "a number of nodes from 1 to 16"]),
        (&["boot", "--nodes", "17"], &["nodes = 17", "from 1 to 16"]),
        // Machines.
        (
            &["boot", "--machine", "tinny"],
            &["'tinny', did you mean 'tiny'? There are tiny, default"],
        ),
        (&["boot", "--machine", "X86-64"], &["'X86-64', did you mean 'x86_64'?", "a machine file"]),
        (&["boot", "--machine", "vax"], &["no machine 'vax': there are tiny", "./my.toml"]),
        (&["boot", "--machine", "./tiny"], &["./tiny", "No such file", "lists the presets"]),
        (&["boot", "--machine", "/bin/sh"], &["/bin/sh", "no text of UTF-8"]),
        (&["machines", "deafult"], &["'deafult', did you mean 'default'?"]),
        (&["conformance", "--machine", "defualt/8k"], &["did you mean 'default/8k'?", "numa2"]),
        // Files and folders.
        (
            &["boot", "--trace", "/no/such/x"],
            &["cannot write the trace /no/such/x", "No such file"],
        ),
        (&["boot", "--trace", "/"], &["cannot write the trace /", "directory"]),
        (&["boot", "--trace", "-"], &["--trace - is not allowed", "such as trace.txt"]),
        (&["map", "/"], &["/ has no proc/pageruns", "Linux's own memory"]),
        (&["map", "/etc"], &["/etc is no machine's folder", "--mount DIR"]),
        (&["boot", "--script", ""], &["a value is required for '--script <FILE>'"]),
        (&["boot", "--mount", "/no/such"], &["/no/such", "make it first"]),
        (&["boot", "--mount", "/etc/passwd"], &["/etc/passwd", "no folder"]),
        // Traces.
        (&["trace", "/etc/passwd"], &["/etc/passwd is no trace", "kfree: ..."]),
        (&["trace", "/dev/null", "--page", "3K"], &["--page '3K'", "such as 4K"]),
        (&["trace", "/dev/null", "--top", "x"], &["'x' for '--top <N>': give a whole number"]),
        (&["trace", "/dev/null", "--top", ""], &["'--top <N>'"]),
        // Advice.
        (&["advise", "--size", "64KB"], &["'64KB' is no size", "64K or 2M"]),
        (&["advise", "--size", "-1"], &["'-1' is no size", "64K or 2M"]),
        (&["advise", "--size", "1", "--count", "-1"], &["'-1'", "give a whole number"]),
        (
            &["advise", "--size", "64K", "--count", "99999999999"],
            &["more than the 1048192K of RAM", "give --count 16"],
        ),
        (&["advise", "--size", "1", "--dma", "4294967296"], &["'--dma <BITS>'"]),
        (&["advise", "--size", "1", "--context", "irq"], &["'irq'", "interrupt", "block-io"]),
        (&["advise", "--size", "1", "--coherent"], &["not provided: --dma <BITS>"]),
        (
            &["advise", "--size", "1", "--user", "--high"],
            &["'--user' cannot be used with '--high'"],
        ),
    ] {
        told(kmem(arguments), 2, words);
    }
    for (arguments, words) in [
        (&["trace", "/no/such"][..], &["cannot read the trace /no/such", "No such file"][..]),
        (&["trace", "/"], &["cannot read the trace /", "directory"]),
        (&["man", "--dir", "/proc/x"], &["cannot write /proc/x/kmem.1", "No such file"]),
    ] {
        told(kmem(arguments), 1, words);
    }
}

#[test]
fn wrong_settings_say_what_to_give() {
    for (setting, words) in [
        ("cpu=2", &["no key 'cpu': did you mean 'cpus'? `kmem machines --keys`"][..]),
        ("page-shift=12", &["'page-shift'", "did you mean 'page_shift'?"]),
        ("CPUS=2", &["'CPUS'", "did you mean 'cpus'?"]),
        ("ćpus=2", &["'ćpus'", "did you mean 'cpus'?"]),
        ("ram=0-64M", &["'ram'", "write node.0.ram; `kmem machines --keys`"]),
        ("node.0.rma=0-1M", &["'node.0.rma'", "did you mean 'node.0.ram'?"]),
        ("node.3.ram=0-1M", &["node = 3", "the machine has 1"]),
        ("cpus", &["'cpus' is not a setting", "key=value"]),
        ("cpus=", &["cpus = ''", "1 to 256"]),
        ("cpus=-1", &["cpus = -1", "1 to 256"]),
        ("cpus=99999999999999999999", &["cpus = 99999999999999999999", "1 to 256"]),
        ("dma_limit=16MB", &["dma_limit = 16MB", "\"16M\""]),
        ("reserved=1M-640K", &["reserved = 1M-640K", "640K-1M"]),
        ("reserved=0-1M,x", &["reserved = x is", "640K-1M"]),
        ("late=1T-2T", &["late = 1T-2T", "lie in ram"]),
        ("reserve_ratio=1,2", &["reserve_ratio = 1,2", "five numbers"]),
        ("name=a\u{1b}[31m", &["name = a\\u{1b}[31m is", "a text of one line"]),
        ("about=two\nlines", &["about = two lines is", "a text of one line"]),
        ("command_line=mem=1Q", &["mem=1Q", "mem=126M"]),
    ] {
        told(kmem(&["boot", "--machine", "tiny", "--set", setting]), 2, words);
    }
}

/// The place of what is wrong comes first.
#[test]
fn wrong_machine_files_say_where_and_what_to_give() {
    let folder = Folder::new();
    let path = folder.path("my.toml");
    for (text, words) in [
        ("cpus = = 2\n", &["1:8: this is not toml", "KEY = VALUE"][..]),
        (
            "\n# a remark\n  pgae_shift = 12",
            &["3:3: ", "did you mean 'page_shift'? `kmem machines"],
        ),
        ("cpus = \"two\"", &["1:8: cpus = \"two\"", "1 to 256"]),
        ("[[node]]\nram = [\n \"0-1M\",\n \"2M\"]", &["4:2: node.0.ram = \"2M\"", "1M-1G"]),
        ("ram = [\"0-1M\"]", &["1:1: ", "'ram'", "write it below [[node]]"]),
        ("[[node]]\ncpus = [0]", &["1:1: node.0.ram = []", "at least one range"]),
        ("[[node]]\nram = [\"0-8M\"]\ncpus = [3]", &["3:9: node.0.cpus = 3", "below 1"]),
        (
            "kernel = [\"1M-3M\"]\nlate = [\"4M-5M\", \"2M-4M\"]\n[[node]]\nram = [\"0-8M\"]",
            &["2:18: late = 2M-4M is", "ranges apart from 1M-3M of kernel"],
        ),
        ("", &[": node.0.ram = []", "at least one range"]),
        ("[node]\nram = [\"0-8M\"]", &["1:1: node = [node] is", "below a line [[node]]"]),
        ("node = 3", &["1:8: node = 3 is", "below a line [[node]]"]),
        ("node = []", &["1:8: node = [] is", "1 to 16 tables"]),
        ("\n[node.0]\nram = [\"0-8M\"]", &["2:", "node = a table is", "below a line [[node]]"]),
        (&"[[node]]\n".repeat(18), &["17:1: node = 18 tables", "1 to 16 tables"]),
        ("\u{feff}cpus = 0", &["cpus = 0", "1 to 256"]),
        ("cpus = 1\0", &["1:", "not toml"]),
    ] {
        fs::write(&path, text).unwrap();
        let run = kmem(&["boot", "--machine", &path]);
        assert!(run.err.starts_with(&format!("kmem: {path}:")), "{}", run.err);
        told(run, 2, words);
    }
    // It can be looked at without being booted.
    told(kmem(&["machines", &path]), 2, &[&format!("kmem: {path}:1:"), "not toml"]);
    fs::write(&path, "[[node]]\nram = [\"0-8M\"]\ncpus = [3]").unwrap();
    told(kmem(&["machines", &path]), 2, &["3:9: node.0.cpus = 3", "below 1"]);
    // One that goes together and does not fit.
    fs::write(&path, "[[node]]\nram = [\"0-1M\"]\ncpus = [0]\n").unwrap();
    let run = kmem(&["boot", "--machine", &path, "--set", "cpus=64"]);
    told(run, 2, &[&format!("kmem: {path}: "), "does not fit", "describe less"]);
    // And one that is no text.
    fs::write(&path, b"cpus = 1\nname = \"\xfc\"\n").unwrap();
    let run = kmem(&["boot", "--machine", &path]);
    told(run, 2, &[&path, "no text of UTF-8 from line 2, column 9 on"]);
    // Another value takes the place of one in the file, and has none.
    fs::write(&path, "[[node]]\nram = [\"0-8M\"]\nmovable = \"1M\"\n").unwrap();
    let run = kmem(&["boot", "--machine", &path, "--set", "node.0.movable=9M"]);
    told(run, 2, &["kmem: node.0.movable = 9M is", "up to 8M"]);
}

#[test]
fn wrong_commands_say_what_to_give() {
    for (commands, status, words) in [
        ("inmsod scull", 2, &["inmsod: no such command", "one is `insmod`"][..]),
        ("lssmod", 2, &["one is `lsmod`"]),
        ("ínsmod scull", 2, &["ínsmod", "one is `insmod`"]),
        ("alloc_page GFP_KERNEL 0", 2, &["one is `alloc_pages`"]),
        ("help catt", 2, &["one is `cat`"]),
        ("insmod scul", 2, &["no module scul (did you mean scull?)", "scullv"]),
        ("insmod ''", 2, &["there is no module ''; there are scull"]),
        ("insmod scullp ordr=1", 2, &["ordr=1 is no parameter", "(did you mean order?)"]),
        ("insmod scullp order", 2, &["without a value: write order=N"]),
        ("insmod scullp order=0x1", 2, &["order=0x1", "give a number such as 0"]),
        ("insmod scull quantum=-1", 2, &["quantum=-1 is out of range: give a number such as 4000"]),
        ("insmod scull quantum=0", 2, &["quantum=0 is out of range: give 1 to 4194304"]),
        (
            "insmod scull; echo x > /sys/module/scull/parameters/qset",
            1,
            &["parameters/qset: 'x' is out of range: give a number such as 1000"],
        ),
        ("rmmod scul", 2, &["(did you mean scull?)"]),
        ("kmalloc 64Kb GFP_KERNEL", 2, &["'64Kb' is no size", "64K, 2M"]),
        ("kmalloc -1 GFP_KERNEL", 2, &["'-1' is no size"]),
        ("kmalloc 99999999999999999999 GFP_KERNEL", 2, &["more than there are addresses"]),
        ("kmalloc 64", 2, &["usage: kmalloc SIZE FLAGS", "for example: kmalloc 100 GFP_KERNEL"]),
        ("kmalloc 64 GFP_KERNAL", 2, &["did you mean GFP_KERNEL?"]),
        ("kmalloc 64 GFP_KERENL", 2, &["did you mean GFP_KERNEL?"]),
        ("kfree 12zz", 2, &["'12zz' is no address", "hexadecimal"]),
        ("kfree 0x1234", 1, &["not this manager's", "0x1234"]),
        ("cache creat x 8", 2, &["usage: cache create|alloc"]),
        ("cache alloc nosuch 3", 1, &["no cache nosuch", "`cache create nosuch SIZE`"]),
        ("cache create a_name_much_too_long_for_any_cache 8", 2, &["1 to 31 bytes"]),
        ("vmalloc 99T", 1, &["pages were asked for, and the machine has"]),
        ("mmap /etc/passwd", 1, &["/etc/passwd is no device", "one of /dev"]),
        ("stress many", 2, &["'many' is no number of operations", "100000"]),
        ("stress -5", 2, &["'-5' is no number of operations"]),
        ("sleep 1d", 2, &["'1d' is no number of seconds", "0.5"]),
        ("head -0x1 /proc/meminfo", 2, &["'0x1' is no number of lines", "-5"]),
        ("cat /proc/budyinfo", 1, &["/proc/budyinfo (did you mean buddyinfo?)", "`ls /proc`"]),
        ("cat /proc/scullmem", 1, &["`insmod scull` first"]),
        ("cat /dev/scul0", 1, &["/dev/scul0", "`ls /dev`"]),
        ("echo 1 > /proc/meminfo", 1, &["/proc/meminfo cannot be written"]),
        ("cp /etc/services", 2, &["usage: cp FROM TO", "for example: cp "]),
        ("cp /nope /dev/null", 1, &["cannot open /nope", "No such file"]),
        ("cp /etc/services ''", 1, &["the path is empty", "give a file"]),
        ("fill GFP_KERNEL|", 2, &["byte 11", "GFP_KERNEL|__GFP_ZERO"]),
        ("wrong_free doubel", 2, &["usage: wrong_free double|order"]),
        ("serve", 1, &["nothing is mounted", "--mount"]),
        ("ls /dev | wc", 2, &["`|`", "there are no pipes", "in quotes"]),
        ("sleep 1 &", 2, &["`&`", "nothing runs in the background", "in quotes"]),
        ("cat < /dev/zero", 2, &["`<`", "commands have no input", "in quotes"]),
        ("insmod scull; echo a >> /dev/scull0", 2, &["`>>` does not append here: write `>` once"]),
        ("echo a > /dev/null > /dev/null", 2, &["a command has one output: write `>` once"]),
        ("frob", 2, &["frob: no such command; `help` lists them"]),
        ("cat 'a", 2, &["is not closed"]),
    ] {
        told(tiny(commands), status, words);
    }
    let run = kmem_with(&["boot", "--machine", "tiny"], b"\n\nlsmodd\n");
    told(run, 2, &["standard input:3: lsmodd", "one is `lsmod`"]);
}

/// What stands before the first command and is not seen.
#[test]
fn a_script_may_begin_with_the_mark_of_utf_8() {
    let folder = Folder::new();
    let path = folder.path("script");
    fs::write(&path, "\u{feff}echo one\necho two\n").unwrap();
    let run = kmem(&["boot", "--machine", "tiny", "--script", &path]);
    assert_eq!((run.status, run.out.as_str(), run.err.as_str()), (0, "one\ntwo\n", ""));
    // Elsewhere it is a part of a name.
    fs::write(&path, "echo one\n\u{feff}echo two\n").unwrap();
    told(
        kmem(&["boot", "--machine", "tiny", "--script", &path]),
        2,
        &[&format!("{path}:2: "), "no such command"],
    );
}

/// A disk that is full, or a limit that is met: the status says so, and what is there is whole.
#[test]
fn a_file_that_takes_a_part_is_told_of_and_is_whole() {
    const LIMIT: u64 = 300_000;
    let folder = Folder::new();
    let (trace, picture) = (folder.path("trace"), folder.path("picture.png"));
    // Without the signal a write takes what still fits, as on a full disk.
    let limited = |limit: &str, arguments: &str| {
        let program = env!("CARGO_BIN_EXE_kmem");
        let line = format!("trap '' XFSZ; {limit} exec {program} {arguments}");
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped());
        bash.stderr(Stdio::piped()).spawn().unwrap()
    };
    let ended = |child: Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // The machine's RAM is a file as well, and is there before the limit is.
    let mut machine = limited("", &format!("boot --machine tiny --trace {trace}"));
    writeln!(machine.stdin.as_ref().unwrap(), "echo booted").unwrap();
    machine.stdout.as_mut().unwrap().read_exact(&mut [0; "booted\n".len()]).unwrap();
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the limit is one, and the old one is not asked for.
    let set = unsafe {
        libc::prlimit(machine.id() as i32, libc::RLIMIT_FSIZE, &raw const limit, null_mut())
    };
    assert_eq!(set, 0);
    writeln!(machine.stdin.as_ref().unwrap(), "stress 20000").unwrap();
    let (status, err) = ended(machine);
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains(&format!("cannot write the trace {trace}: File too large")), "{err}");
    let text = fs::read_to_string(&trace).unwrap();
    assert!(text.ends_with('\n') && text.len() as u64 <= LIMIT);
    let events = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(events > 1000, "{events}");
    let counts =
        text.lines().find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "));
    assert!(counts.unwrap().starts_with(&format!("{events}/")), "{events}: {counts:?}");
    kmem(&["trace", &trace]).well();

    // Of a machine that is elsewhere.
    fs::create_dir(folder.path("proc")).unwrap();
    for name in ["buddyinfo", "pageruns"] {
        let text = tiny(&format!("cat /proc/{name}")).well();
        fs::write(folder.path(&format!("proc/{name}")), text).unwrap();
    }
    fs::write(&picture, "the old one").unwrap();
    let map = format!("map {} --output {picture}", folder.path(""));
    let (status, err) = ended(limited("ulimit -f 4;", &map));
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains(&format!("cannot write {picture}: File too large")), "{err}");
    assert_eq!(fs::read_to_string(&picture).unwrap(), "the old one");
    assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 3, "nothing is left beside it");
}

/// What was asked for and cannot be printed was not done.
#[test]
fn help_that_nobody_can_print_fails() {
    for arguments in [&["--help"][..], &["--version"], &["boot", "--help"], &["help", "map"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut kmem = std::process::Command::new(env!("CARGO_BIN_EXE_kmem"));
        let output = kmem.args(arguments).stdout(full).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}");
        assert!(err.contains("cannot write to standard output: No space left"), "{err}");
    }
}

/// Where somebody is not let in: nobody keeps root out.
#[test]
fn missing_permissions_are_told_with_their_file() {
    let folder = Folder::new();
    let path = folder.file("closed", 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        return;
    }
    for (arguments, status) in [
        (&["boot", "--machine", &path][..], 2),
        (&["boot", "--script", &path], 2),
        (&["boot", "--trace", &path], 2),
        (&["trace", &path], 1),
        (&["boot", "--machine", "tiny", "-c", &format!("cat {path}")], 1),
    ] {
        told(kmem(arguments), status, &[&path, "Permission denied"]);
    }
}

/// With --json too an error is a line on standard error, and nothing is printed.
#[test]
fn errors_of_commands_for_programs_are_lines_too() {
    for (arguments, status) in [
        (&["machines", "--json", "x"][..], 2),
        (&["conformance", "--json", "--machine", "x"], 2),
        (&["conformance", "--json", "--machine", "tiny", "--case", "nosuch"], 2),
        (&["advise", "--json"], 2),
        (&["advise", "--json", "--size", "x"], 2),
        (&["trace", "--json", "/no/such"], 1),
    ] {
        let run = kmem(arguments);
        assert_eq!(run.out, "", "{arguments:?}");
        told(run, status, &[]);
    }
}

#[test]
fn a_closed_pipe_is_no_mistake() {
    for arguments in [&["machines", "--json"][..], &["man"], &["completions", "bash"]] {
        let run = kmem_unread(arguments);
        assert_eq!((run.status, run.err.as_str()), (141, ""), "{arguments:?}");
    }
}
