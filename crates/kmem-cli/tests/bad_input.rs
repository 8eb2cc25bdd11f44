//! What makes no sense, and what cannot be done: one clear line, and the right exit status.

mod common;

use common::{Folder, kmem, kmem_with, tiny};

/// A command fails: status 1.
#[test]
fn a_command_that_cannot_be_done_says_why_in_one_line() {
    for (commands, needle) in [
        ("rmmod scullp", "not loaded"),
        ("insmod scullp; insmod scullp", "rmmod scullp"),
        ("fill GFP_ATOMIC; insmod scull devices=256", "ENOMEM"),
        ("fill GFP_ATOMIC; insmod scullc devices=256", "ENOMEM"),
        ("fill GFP_ATOMIC; insmod scullp devices=256", "ENOMEM"),
        ("cat /sys/module/scull/parameters/qset", "there is no /sys/module/scull/"),
        ("cat /sys/kernel/debug/extfrag", "is a directory: give a file"),
        (
            "cat /sys/kernel/debug/extfrag/unusable_index/x",
            "there is no /sys/kernel/debug/extfrag/",
        ),
        ("echo 1 > /sys/kernel/debug/extfrag/unusable_index", "cannot be written"),
        ("insmod scull; cat /sys/module/scull/parameters/order", "there is no /sys/module/scull/"),
        ("insmod scull; cat /sys/module/scull/parameters", "is a directory"),
        ("cat /sys", "/sys is a directory"),
        ("ls /sys/kernels", "there is no /sys/kernels; `ls /sys`"),
        ("insmod scull; echo 1 > /sys/module/scull/parameters/devices", "is loaded, not later"),
        ("insmod scull; echo 1 > /sys/module/scull/parameters/quota", "is loaded, not later"),
        ("insmod scullc; echo 1 > /sys/module/scullc/parameters/quantum", "is loaded, not later"),
        ("insmod scullp; echo 1 > /sys/module/scullp/parameters/order", "is loaded, not later"),
        ("insmod scull; echo 0 > /sys/module/scull/parameters/qset", "give 1 to 65536"),
        ("insmod scull; echo one > /sys/module/scull/parameters/qset", "'one' is out of range"),
        ("insmod scull; cp /dev/null /sys/module/scull/parameters/qset", "'' is out of range"),
        ("insmod scull; cp /dev/zero /sys/module/scull/parameters/qset", "too much for a number"),
        ("cp /dev/zero /dev/scullp0", "insmod scullp"),
        ("insmod scullc; cat /dev/scull0", "needs the module scull: `insmod scull` first"),
        ("insmod scull quota=100000; cp /dev/zero /dev/scull0", "ENOSPC"),
        ("insmod scull quota=1; cp /dev/zero /dev/scull0", "the device's quota of 1 byte: "),
        ("insmod scullp; cat /dev/scullp4", "there is no device 4: the last is 3"),
        ("insmod scullp; cat /dev/scullp00", "there is no device /dev/scullp00"),
        ("insmod scullp; cat /dev/scullp+0", "there is no device /dev/scullp+0"),
        ("insmod scullp; cat /dev/scullp", "there is no device /dev/scullp;"),
        ("insmod scullp; cat /dev/scullp99999999999", "there is no device"),
        ("insmod scullp; cat /dev/scullp0/x", "there is no device /dev/scullp0/x"),
        ("cat /proc/nonsense", "ls /proc"),
        ("cat //proc/nonsense", "there is no /proc/nonsense"),
        ("cat /proc/", "/proc is a directory"),
        ("cat /dev", "/dev is a directory"),
        ("cat /", "/ is a directory"),
        ("cat ''", "the path is empty"),
        ("cp /dev/null /dev", "/dev is a directory"),
        ("cp /dev/null /proc/meminfo", "cannot be written"),
        ("cp /dev/null /no/such/file", "cannot create /no/such/file"),
        ("cp /dev/null //dev/null", "are the same file"),
        ("ls /dev > /proc/x", "cannot be written"),
        ("ls /no/such", "cannot list /no/such"),
        ("head /no/such", "cannot open /no/such"),
        ("cmp /dev/null /dev/zero", "EOF on /dev/null"),
        ("time cat /no/such", "time: cat: cannot open /no/such"),
        ("free 1", "there is no id 1"),
        ("alloc_pages GFP_KERNEL 11", "order 11"),
        ("alloc_pages GFP_KERNEL 0 1", "node 1"),
        ("fill GFP_ATOMIC; alloc_pages GFP_KERNEL 0", "out of memory"),
        ("leak 11", "order 11"),
    ] {
        tiny(commands).complains(1, needle);
    }
}

/// Commands that make no sense: status 2.
#[test]
fn commands_that_make_no_sense_are_refused_in_one_line() {
    let time = "time ".repeat(20_000);
    let digits = format!("sleep 1{}", "0".repeat(3000));
    for (commands, needle) in [
        ("nosuch", "nosuch: no such command"),
        ("''", "no such command"),
        ("rmmo", "one is `rmmod`"),
        ("'cat /proc/meminfo'", "one is `cat`"),
        ("time nosuch", "kmem: nosuch: no such command"),
        ("time", "usage: time COMMAND"),
        ("time time ls /dev", "write `time` once"),
        (&time, "write `time` once"),
        ("help nosuch", "nosuch: no such command"),
        ("cat", "usage: cat FILE"),
        ("cat 'a", "a ' is not closed"),
        ("cat \"a", "a \" is not closed"),
        ("ls /dev >", "> has no file"),
        ("> file", "> has no command"),
        ("ls /dev > a > b", "one output"),
        ("ls /dev | head", "`|`"),
        ("ls /dev && ls /dev", "`&`"),
        ("cat < file", "`<`"),
        ("cp a", "usage: cp FROM TO"),
        ("head -x file", "'x' is no number of lines"),
        ("head -n -1 file", "'-1' is no number of lines"),
        ("insmod", "usage: insmod MODULE"),
        ("lsmod x", "usage: lsmod"),
        ("rmmod nosuch", "there is no module nosuch"),
        (
            "insmod sculk",
            "there is no module sculk (did you mean scull?); there are scull, scullc, scullp",
        ),
        ("insmod scullp order=99", "order=99"),
        ("insmod scullp order=-1", "order=-1 is out of range"),
        ("insmod scullp order=", "order= is out of range"),
        ("insmod scullp order", "order is no parameter of scullp without a value: write order=N"),
        ("insmod scullp bogus=1", "bogus=1 is no parameter"),
        ("insmod scullp devices=0", "give 1 to 256"),
        ("insmod scullp qset=65537", "give 1 to 65536"),
        ("insmod scull order=1", "order=1 is no parameter of scull; give devices=N, quantum=N"),
        ("insmod scullp quantum=1", "quantum=1 is no parameter of scullp; give devices=N, order=N"),
        ("insmod scull quantum=0", "quantum=0 is out of range: give 1 to 4194304"),
        ("insmod scull devices=99999999999", "give 1 to 256"),
        ("insmod scullc quantum=1M", "quantum=1M is out of range: give a number"),
        ("insmod scullc quantum=4000000", "the cache cannot be made"),
        ("insmod scullp scullp_order=abc", "scullp_order=abc is no parameter of scullp"),
        ("insmod scullp order=abc", "order=abc is out of range: give a number"),
        ("alloc_pages GFP_KERNEL", "usage: alloc_pages FLAGS ORDER"),
        ("alloc_pages GFP_KERNAL 0", "GFP_KERNEL"),
        ("alloc_pages '' 0", "no gfp flag"),
        ("alloc_pages GFP_KERNEL x", "'x' is no order"),
        ("alloc_pages GFP_KERNEL -1", "'-1' is no order"),
        ("alloc_pages GFP_KERNEL 4294967296", "is no order"),
        ("alloc_pages GFP_KERNEL 0 4294967295", "there is no node"),
        ("alloc_pages 'GFP_DMA|__GFP_HIGHMEM' 0", "more than one zone"),
        ("fill GFP_ATOMIC; alloc_pages GFP_KERNEL|__GFP_NOFAIL 0", "__GFP_NOFAIL"),
        ("fill GFP_ATOMIC; alloc_pages GFP_KERNEL|__GFP_NOFAIL 0 0", "__GFP_NOFAIL"),
        ("fill GFP_KERNEL|__GFP_NOFAIL", "__GFP_NOFAIL"),
        ("fill GFP_KERNEL 11", "order 11"),
        ("free", "usage: free ID; for example: free 1; `cat /proc/meminfo` shows how much is free"),
        ("free x", "'x' is no ID"),
        ("exit 1", "exit: usage: exit"),
        ("quit now", "quit: usage: quit"),
        ("free 99999999999999999999", "is no ID"),
        ("leak x", "'x' is no order"),
        ("wrong_free twice", "usage: wrong_free double"),
        ("stress x", "'x' is no number of operations"),
        ("stress 1 x", "'x' is no seed"),
        ("sleep", "usage: sleep SECONDS"),
        ("sleep x", "'x' is no number of seconds"),
        ("sleep -1", "out of range: give 0 to 86400 seconds"),
        ("sleep NaN", "out of range"),
        ("sleep 1e300", "out of range"),
        (&digits, "out of range"),
    ] {
        let run = tiny(commands);
        assert!(run.err.len() < 200, "{}", run.err);
        run.complains(2, needle);
    }
}

/// Arguments that make no sense: status 2.
#[test]
fn arguments_that_make_no_sense_are_refused_in_one_line() {
    let folder = Folder::new();
    let (text, key) = (folder.path("text.toml"), folder.path("key.toml"));
    std::fs::write(&text, "x").unwrap();
    std::fs::write(&key, "\"\\u001b[31m\" = 1").unwrap();
    for (arguments, needle) in [
        (&["nosuch"][..], "'nosuch'"),
        (&["boo"], "'boot'; try --help"),
        (&["help", "nosuch"], "'nosuch'"),
        (&["machines", "x"], "'x'"),
        (&["machines", "--jso"], "'--json'; try --help"),
        (&["demo", "--file", "/no/such/file"], "/no/such/file"),
        (&["demo", "--file", "/dev/zero"], "/dev/zero: it is no ordinary file"),
        (&["demo", "--file", "/"], "--file /: it is a directory"),
        (&["conformance", "--machine", "nosuch"], "'nosuch'"),
        (&["conformance", "--machine", "tiny", "--case", "nosuch"], "there is no case 'nosuch'"),
        (&["conformance", "--machine", "tiny", "--case", "A011"], "no case claims A011"),
        (&["machines", "tiny", "--keys"], "--keys"),
        (&["boot", "--nosuch"], "'--nosuch'"),
        (&["boot", "x"], "'x'"),
        (&["boot", "-c"], "'-c <COMMANDS>'"),
        (&["boot", "-c", "ls", "--script", "x"], "'--script <FILE>'; try --help"),
        (&["boot", "--script", "/no/such/script"], "/no/such/script"),
        (&["boot", "--script", "/"], "directory"),
        (&["boot", "--machine", "nosuch"], "'nosuch'"),
        (&["boot", "--machine", ""], "''"),
        (&["boot", "--machine", "/"], "directory"),
        (&["boot", "--machine", "/no/such.toml"], "/no/such.toml"),
        (&["boot", "--machine", &text], "not toml"),
        (&["boot", "--machine", &key], "\\u{1b}[31m"),
        (&["boot", "--mem", "lots"], "'lots'"),
        (&["boot", "--mem", ""], "''"),
        (&["boot", "--mem", "0"], "mem = 0"),
        (&["boot", "--mem", "99999999999G"], "'99999999999G'"),
        (&["boot", "--cpus", "x"], "'x'"),
        (&["boot", "--cpus", "0"], "cpus = 0"),
        (&["boot", "--cpus", "99999999999"], "99999999999"),
        (&["boot", "--nodes", "0"], "nodes = 0"),
        (&["boot", "--set", ""], "key=value"),
        (&["boot", "--set", "nosuch=1"], "'nosuch'"),
        (&["boot", "--set", "nosuch=1"], "`kmem machines --keys` explains them"),
        (&["boot", "--machine", &key], "`kmem machines --keys` explains them"),
        (&["boot", "--set", "cpus=many"], "many"),
        (&["boot", "--set", "page_shift=15"], "page_shift"),
        (&["boot", "--set", "largest_order=99"], "largest_order"),
    ] {
        kmem(arguments).complains(2, needle);
    }
}

/// Help is no error, and keeps its lines.
#[test]
fn help_and_the_version_are_shown_where_they_are_asked_for() {
    for arguments in [&["--help"][..], &["help"], &["boot", "--help"], &["help", "boot"]] {
        assert!(kmem(arguments).well().contains("\nUsage: kmem"), "{arguments:?}");
    }
    assert!(kmem(&["--version"]).well().starts_with("kmem "));
    let run = kmem(&[]);
    assert_eq!(run.status, 2);
    assert!(run.err.contains("\nUsage: kmem"), "{}", run.err);
}

/// A script that has no end is not waited for, and no memory is filled with it.
#[test]
fn commands_that_are_no_text_are_refused_with_their_line() {
    let folder = Folder::new();
    let path = folder.path("script");
    let long = [b"ls /dev\n# ".to_vec(), vec![b'x'; 70_000]].concat();
    for (bytes, needle) in [
        (&b"ls /dev\nls \xff\n"[..], "2: not UTF-8"),
        (b"ls /dev\n\x7fELF\0\n", "2: the control character"),
        (b"ls /dev\nls \x1b[31m\n", "2: the control character '\\u{1b}'"),
        (&long, "2: the line is longer than 65536 bytes"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let script = kmem(&["boot", "--machine", "tiny", "--script", &path]);
        let standard = kmem_with(&["boot", "--machine", "tiny"], bytes);
        for run in [script, standard] {
            assert_eq!(run.out, "null\nzero\n");
            run.complains(2, needle);
        }
    }
    kmem(&["boot", "--machine", "tiny", "--script", "/dev/zero"]).complains(2, "/dev/zero:1: ");
}

/// What people give is shown, and does nothing to their terminal.
#[test]
fn control_characters_are_escaped_in_messages() {
    for (commands, status, needle) in [
        ("insmod scullp order=\x1b[31m1", 2, "order=\\u{1b}[31m1"),
        ("insmod scullp \"a\x07\nb=1\"", 2, "a\\u{7}\\nb=1"),
        ("insmod \u{9b}2J", 2, "\\u{9b}2J"),
        ("cat \"/no/\nsuch\"", 1, "/no/\\nsuch"),
        ("cat /no/\u{202e}such", 1, "/no/\\u{202e}such"),
        ("no\x1bsuch", 2, "no\\u{1b}such"),
        ("cat 'a\rb", 2, "is not closed"),
    ] {
        tiny(commands).complains(status, needle);
    }
    let folder = Folder::new();
    std::fs::write(folder.path("a\x1b[31m\nb"), "").unwrap();
    assert_eq!(tiny(&format!("ls {}", folder.path(""))).well(), "a\\u{1b}[31m\\nb\n");
}

/// Before anything is done.
#[test]
fn the_demo_refuses_a_file_that_its_machine_does_not_hold() {
    let folder = Folder::new();
    let (empty, large) = (folder.path("empty"), folder.path("large"));
    std::fs::write(&empty, "").unwrap();
    // Without anything in it: it takes no room.
    std::fs::File::create(&large).unwrap().set_len(2 << 30).unwrap();
    kmem(&["demo", "--file", &empty]).complains(2, "it is empty");
    let run = kmem(&["demo", "--file", &large]);
    assert_eq!(run.out, "");
    run.complains(
        2,
        "its 2 GiB do not fit the machine's RAM of 1 GiB: give a file of up to 895.7 MiB",
    );
}

/// What cannot be mapped whatever it holds says so; only of what can it is said that there is nothing.
#[test]
fn mmap_of_an_empty_device_says_why_it_is_not_mapped() {
    for (module, needle) in [
        ("scull", "cannot be mapped: load scullp with order=0, or scullv"),
        ("scullp order=2", "cannot be mapped"),
        ("scullv", "/dev/scullv0 holds nothing: write to it first"),
    ] {
        let name = module.split(' ').next().unwrap();
        tiny(&format!("insmod {module}; mmap /dev/{name}0")).complains(1, needle);
    }
}
