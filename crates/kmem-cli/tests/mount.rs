//! The machine's files as files of the host: what the host's own programs make of them.

mod common;

use std::ffi::CString;
use std::fs::{File, OpenOptions, metadata};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use common::Folder;
use common::mounted::{Mounted, PATIENCE, can_mount, until};

/// A303, A304, A310, A313, A317, A318: 64 MB by the host's cp and cmp, both ways.
#[test]
fn cp_and_cmp_of_64_megabytes() {
    if !can_mount() {
        return;
    }
    let modules = ["scull", "scullc", "scullp", "scullv"];
    let folder = Folder::new();
    let (file, back) = (folder.file("file", 64 << 20), folder.path("back"));
    let commands = modules.map(|name| format!("insmod {name}")).join("; ");
    let machine = Mounted::serving(&commands);
    for name in modules {
        machine.sh(&format!("cp {file} dev/{name}0 && cmp {file} dev/{name}0"));
        machine
            .sh(&format!("cp dev/{name}0 {back} && cmp dev/{name}0 {back} && cmp {file} {back}"));
        // From one device to another, and the memory goes back.
        machine.sh(&format!("cp dev/{name}0 dev/{name}1 && cmp dev/{name}0 dev/{name}1"));
        machine.sh(&format!("> dev/{name}0; > dev/{name}1"));
        assert_eq!(metadata(machine.at(&format!("dev/{name}0"))).unwrap().blocks(), 0);
    }
    machine.end_well(libc::SIGTERM);
}

/// The same program on the same bytes: on a device, and on a file of the host.
#[test]
fn dd_with_odd_blocks_does_what_it_does_on_a_file() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let (from, file) = (folder.file("from", 300_000), folder.path("file"));
    let machine = Mounted::serving("insmod scull quantum=1000 qset=7; insmod scullp");
    for name in ["scull", "scullp"] {
        let device = machine.text(&format!("dev/{name}2"));
        let on_both = |line: &str| {
            let of = |path: &str| line.replace("TO", path).replace("FROM", &from);
            machine.sh(&of(&file));
            machine.sh(&of(&device));
            machine.sh(&format!("cmp {file} {device}"));
            assert_eq!(metadata(&file).unwrap().len(), metadata(&device).unwrap().len(), "{line}");
        };
        for bs in [1, 7, 511, 4001, 65_537, 1_000_000] {
            let count = if bs < 100 { "count=3000" } else { "" };
            on_both(&format!("dd if=FROM of=TO bs={bs} {count} status=none"));
        }
        // Over what is there, over its end, and behind a hole.
        on_both("dd if=FROM of=TO bs=777 seek=13 count=9 conv=notrunc status=none");
        on_both("dd if=FROM of=TO bs=4096 seek=90 skip=3 status=none");
        on_both("dd if=FROM of=TO bs=333 seek=2000 count=1 status=none");
        on_both("dd if=/dev/null of=TO bs=1 seek=12345 status=none");
        on_both("dd if=FROM of=TO bs=999 count=5 oflag=append conv=notrunc status=none");
        // And from there.
        for bs in [3, 1001, 70_000] {
            let read = |path: &str| {
                machine.sh(&format!("dd if={path} bs={bs} skip=2 count=70 status=none | sha1sum"))
            };
            assert_eq!(read(&file), read(&device), "{bs}");
        }
    }
    machine.end_well(libc::SIGTERM);
}

/// A317: who opens a device for writing alone empties it, as the texts' driver does; who appends or
/// reads as well does not.
#[test]
fn how_a_device_is_opened_says_what_becomes_of_its_bytes() {
    if !can_mount() {
        return;
    }
    let machine = Mounted::serving("insmod scull");
    let device = machine.at("dev/scull0");
    let size = || metadata(&device).unwrap().len();
    assert_eq!(
        machine.sh("echo one > dev/scull0; echo two >> dev/scull0; cat dev/scull0"),
        "one\ntwo\n"
    );
    drop(OpenOptions::new().read(true).write(true).open(&device).unwrap());
    drop(OpenOptions::new().append(true).open(&device).unwrap());
    assert_eq!(size(), 8);
    drop(OpenOptions::new().read(true).write(true).truncate(true).open(&device).unwrap());
    assert_eq!(size(), 0);
    machine.sh("echo three > dev/scull0; > dev/scull0");
    assert_eq!(size(), 0);
    machine.sh("echo three > dev/scull0");
    drop(OpenOptions::new().write(true).open(&device).unwrap());
    assert_eq!(size(), 0);
    // Shorter and longer, by a path and by an open file.
    machine.sh("printf 0123456789 > dev/scull0");
    let path = CString::new(machine.text("dev/scull0")).unwrap();
    // SAFETY: the path is a string with its end.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), 4) }, 0);
    assert_eq!(machine.sh("cat dev/scull0"), "0123");
    let mut file = OpenOptions::new().read(true).write(true).open(&device).unwrap();
    file.set_len(6).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"0123\0\0");
    assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 3);
    // What one opener appends goes behind what another wrote meanwhile.
    let mut append = OpenOptions::new().append(true).open(&device).unwrap();
    file.write_all_at(b"abcdef", 4).unwrap();
    append.write_all(b"END").unwrap();
    assert_eq!(machine.sh("cat dev/scull0"), "0123abcdefEND");
    drop((file, append));
    // The program opens it for writing alone.
    machine.sh("truncate -s 4 dev/scull0");
    assert_eq!(machine.sh("cat dev/scull0"), "\0\0\0\0");
    machine.end_well(libc::SIGINT);
}

/// A315, A318, A322, A323: texts are read whole though they have size 0, as in Linux's /proc.
#[test]
fn texts_are_read_by_any_program() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let file = folder.file("file", 1_048_576);
    let machine = Mounted::serving("insmod scullp");
    machine.sh(&format!("cp {file} dev/scullp0"));
    let head = machine.sh("head -5 proc/scullpmem");
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[1], "Device 0: qset 500, order 0, sz 1048576");
    assert!(lines[2].starts_with("  item at ") && lines[3].starts_with("       0:"), "{head}");
    assert_eq!(metadata(machine.at("proc/meminfo")).unwrap().len(), 0);
    // All programs see one text: in pieces of any size, and from its end.
    let whole = machine.sh("cat proc/scullpmem");
    assert_eq!(whole.lines().count(), 4 * 2 + 1 + 256);
    for line in [
        "dd if=proc/scullpmem bs=7 status=none",
        "cp proc/scullpmem /dev/stdout",
        "tac proc/scullpmem | tac",
    ] {
        assert_eq!(machine.sh(line), whole, "{line}");
    }
    assert!(machine.sh("tail -1 proc/meminfo").ends_with(" kB\n"));
    assert!(machine.sh("cat proc/buddyinfo").starts_with("Node 0, zone "));
    assert!(machine.sh("cat proc/modules").starts_with("scullp "));
    assert!(machine.sh("cat proc/slabinfo").contains("kmalloc-"));
    machine.end_well(libc::SIGHUP);
}

/// What is loaded at the prompt is there at once, and goes at once.
#[test]
fn modules_that_come_and_go_bring_and_take_their_files() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&[]);
    assert_eq!(machine.sh("ls; ls dev"), "dev\nproc\nsys\nnull\nzero\n");
    for round in 0..3 {
        machine.enter(&format!("insmod scullc devices={}", round + 1));
        until("its files", || machine.at(&format!("dev/scullc{round}")).exists());
        assert_eq!(machine.sh("ls dev").lines().count(), 2 + round + 1);
        assert_eq!(
            machine.sh("ls sys/module/scullc/parameters"),
            "devices\nqset\nquantum\nquota\n"
        );
        machine.sh("echo x > dev/scullc0; cat proc/scullcmem");
        machine.enter("rmmod scullc");
        until("their end", || !machine.at("dev/scullc0").exists());
        assert!(
            !machine.at("proc/scullcmem").exists() && !machine.at("sys/module/scullc").exists()
        );
    }
    machine.enter("exit");
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.said());
}

/// A module stays while a program of the host's has a file of it open.
#[test]
fn an_open_file_keeps_its_module() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&[]);
    machine.enter("insmod scull");
    until("the device", || machine.at("dev/scull0").exists());
    let mut file =
        OpenOptions::new().read(true).write(true).open(machine.at("dev/scull0")).unwrap();
    file.write_all(b"kept").unwrap();
    assert!(machine.sh("cat proc/modules").contains(" 1 - Live"));
    // It fails, so that it ends the commands; and what is open does not stop the end.
    machine.enter("rmmod scull");
    let status = machine.wait();
    let said = machine.said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("scull is in use: a file is open"), "{said}");
    assert_eq!(file.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
}

/// A file that has just been closed does not keep its module: the kernel says so a moment later.
#[test]
fn a_closed_file_lets_its_module_go() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["--machine", "tiny"]);
    for _ in 0..20 {
        machine.enter("insmod scull");
        until("the device", || machine.at("dev/scull0").exists());
        machine.sh("echo x > dev/scull0; cat dev/scull0; ls -l dev");
        machine.enter("rmmod scull");
        until("its end", || !machine.at("dev/scull0").exists());
    }
    machine.end_well(libc::SIGTERM);
}

/// A165: ENOSPC from a quota and ENOMEM from the machine are those that programs see, and what was written
/// until then is there.
#[test]
fn no_room_and_no_memory_are_told_as_such() {
    if !can_mount() {
        return;
    }
    let machine = Mounted::boot(&[
        "--machine",
        "tiny",
        "-c",
        "insmod scull quota=1000000; insmod scullp; serve",
    ]);
    until("the device", || machine.at("dev/scullp0").exists());
    for (device, number, words) in [
        ("scull0", libc::ENOSPC, "No space left on device"),
        ("scullp0", libc::ENOMEM, "Cannot allocate memory"),
    ] {
        let path = machine.at(&format!("dev/{device}"));
        let (status, _, err) = machine.try_sh(&format!("cp /dev/zero dev/{device}"));
        assert!(status == 1 && err.contains(words), "{err}");
        let size = metadata(&path).unwrap().len();
        assert!(size > 900_000, "{size}");
        // Full to the end of a quantum, and no further.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(file.write(b"more").unwrap_err().raw_os_error(), Some(number));
        assert_eq!(metadata(&path).unwrap().len(), size);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"again", size - 5).unwrap();
        machine.sh(&format!("> dev/{device}; echo x > dev/{device}; cat dev/{device}"));
    }
    machine.end_well(libc::SIGTERM);
}

/// Each has its own records of a device, and readers see whole ones or none.
#[test]
fn many_read_and_write_at_once() {
    if !can_mount() {
        return;
    }
    const RECORD: usize = 1000;
    const RECORDS: u64 = 200;
    const WRITERS: u64 = 4;
    let mut machine = Mounted::boot(&["--machine", "tiny"]);
    // A record is never in two quanta.
    machine.enter("insmod scull quantum=4000; insmod scullp");
    until("the device", || machine.at("dev/scullp0").exists());
    let device = machine.at("dev/scull0");
    let open = || OpenOptions::new().read(true).write(true).open(&device).unwrap();
    let (send, receive) = mpsc::channel::<()>();
    let readers_work = |file: &File| {
        let mut record = [0; RECORD];
        for number in 0..WRITERS * RECORDS {
            let count = file.read_at(&mut record, number * RECORD as u64).unwrap();
            assert!(record[..count].iter().all(|byte| *byte == record[0]), "record {number}");
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let file = open();
            scope.spawn(move || {
                for round in 1..=3 {
                    for record in 0..RECORDS {
                        let at = (record * WRITERS + writer) * RECORD as u64;
                        file.write_all_at(&[round * 10 + writer as u8; RECORD], at).unwrap();
                    }
                }
            });
        }
        for _ in 0..2 {
            let file = open();
            scope.spawn(move || (0..3).for_each(|_| readers_work(&file)));
        }
        let (machine, receive) = (&machine, receive);
        scope.spawn(move || {
            // Names come and go meanwhile.
            while receive.try_recv() == Err(mpsc::TryRecvError::Empty) {
                machine.sh("ls -lR > /dev/null; cat proc/scullmem proc/slabinfo > /dev/null");
            }
        });
        for _ in 0..5 {
            writeln!(machine.child.stdin.as_ref().unwrap(), "insmod scullv; rmmod scullv").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(send);
    });
    let bytes = std::fs::read(&device).unwrap();
    assert_eq!(bytes.len() as u64, WRITERS * RECORDS * RECORD as u64);
    for (number, record) in bytes.chunks(RECORD).enumerate() {
        let wanted = 30 + (number as u64 % WRITERS) as u8;
        assert!(record.iter().all(|byte| *byte == wanted), "record {number}");
    }
    machine.end_well(libc::SIGTERM);
}

/// What is appended comes out of `tail -f` that waits for it: attributes are not kept.
#[test]
fn tail_follows_a_device() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["--machine", "tiny"]);
    machine.enter("insmod scull");
    until("the device", || machine.at("dev/scull1").exists());
    machine.sh("echo first > dev/scull1");
    let mut tail = Command::new("tail")
        .args(["-f", "-s", "0.1"])
        .arg(machine.at("dev/scull1"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = tail.stdout.take().unwrap();
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok(count @ 1..) = out.read(&mut bytes) {
            send.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).unwrap();
        }
    });
    assert_eq!(receive.recv_timeout(PATIENCE).unwrap(), "first\n");
    machine.sh("echo second >> dev/scull1");
    assert_eq!(receive.recv_timeout(PATIENCE).unwrap(), "second\n");
    // What the machine itself writes is seen as well.
    machine.enter("insmod scullp; echo third and longer > /dev/scull1");
    let text = receive.recv_timeout(PATIENCE).unwrap();
    assert!(text.ends_with('\n') && "third and longer\n".contains(&text), "{text}");
    tail.kill().unwrap();
    tail.wait().unwrap();
    reader.join().unwrap();
    machine.end_well(libc::SIGINT);
}

fn ioctl(file: &File, command: u32, argument: &mut i32) -> Result<i32, i32> {
    // SAFETY: the argument is an int, which all of the controls that are tried here have, or none.
    match unsafe { libc::ioctl(file.as_raw_fd(), command.into(), argument as *mut i32) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        answer => Ok(answer),
    }
}

/// A303, A305: the book's controls, as C calls them.
#[test]
fn ioctl_sets_and_gets_quantum_and_qset() {
    if !can_mount() {
        return;
    }
    let machine = Mounted::serving("insmod scull; insmod scullc");
    let file = File::open(machine.at("dev/scull0")).unwrap();
    let mut int = 0;
    assert_eq!((ioctl(&file, 0x8004_6b05, &mut int), int), (Ok(0), 4000));
    assert_eq!((ioctl(&file, 0x8004_6b06, &mut int), int), (Ok(0), 1000));
    int = 6000;
    assert_eq!(ioctl(&file, 0x4004_6b01, &mut int), Ok(0));
    assert_eq!(ioctl(&file, 0x6b07, &mut int), Ok(6000));
    assert_eq!(machine.sh("cat sys/module/scull/parameters/quantum"), "6000\n");
    int = 50;
    assert_eq!((ioctl(&file, 0xc004_6b0a, &mut int), int), (Ok(0), 1000));
    assert_eq!(ioctl(&file, 0x6b08, &mut int), Ok(50));
    int = -1;
    assert_eq!(ioctl(&file, 0x4004_6b02, &mut int), Err(libc::EINVAL));
    assert_eq!(ioctl(&file, 0x6b00, &mut int), Ok(0));
    assert_eq!(ioctl(&file, 0x6b07, &mut int), Ok(4000));
    for unknown in [0x6b03, 0x4004_6b63, 0x5401] {
        assert_eq!(ioctl(&file, unknown, &mut int), Err(libc::ENOTTY), "{unknown:#x}");
    }
    let scullc = File::open(machine.at("dev/scullc0")).unwrap();
    int = 100;
    assert_eq!(ioctl(&scullc, 0x4004_6b01, &mut int), Err(libc::EACCES));
    let text = File::open(machine.at("proc/meminfo")).unwrap();
    assert_eq!(ioctl(&text, 0x6b07, &mut int), Err(libc::ENOTTY));
    drop((file, scullc, text));
    machine.end_well(libc::SIGTERM);
}

/// The example that the documentation names.
#[test]
fn the_example_in_python_works() {
    if !can_mount() {
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let machine = Mounted::serving("insmod scull");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quantum.py");
    let run = |arguments: &str| machine.try_sh(&format!("{} dev/{arguments}", example.display()));
    assert_eq!(run("scull0").1, "quantum 4000, qset 1000\n");
    assert_eq!(run("scull1 8000 500").1, "quantum 8000, qset 500\n");
    assert_eq!(run("scull0").1, "quantum 8000, qset 500\n");
    let (status, _, err) = run("scull0 0");
    assert!(status == 1 && err.contains("Invalid argument"), "{err}");
    let (status, _, err) = run("zero");
    assert!(status == 1 && err.contains("Inappropriate ioctl"), "{err}");
    machine.end_well(libc::SIGTERM);
}

/// Each write of the host's is a value, as in Linux's /sys.
#[test]
fn parameters_are_read_and_written() {
    if !can_mount() {
        return;
    }
    let machine = Mounted::serving("insmod scull");
    let all = "cat sys/module/scull/parameters/{quantum,qset,devices,quota}";
    assert_eq!(machine.sh(all), "4000\n1000\n4\n0\n");
    machine.sh("cd sys/module/scull/parameters; echo 500 > quantum; echo 7 >> qset");
    assert_eq!(machine.sh(all), "500\n7\n4\n0\n");
    for (line, words) in [
        ("echo 0 > quantum", "Invalid argument"),
        ("echo x > quantum", "Invalid argument"),
        ("echo 99999999999999999999999999999 > quantum", "Invalid argument"),
        ("echo 5 > devices", "Permission denied"),
        ("echo 5 > ../nonsense", "Operation not permitted"),
    ] {
        let line = format!("cd sys/module/scull/parameters; {line}");
        let (status, _, err) = machine.try_sh(&line);
        assert!(status == 1 && err.contains(words), "{line}: {err}");
    }
    assert_eq!(machine.sh(all), "500\n7\n4\n0\n");
    machine.end_well(libc::SIGTERM);
}

/// The names are the modules' to make.
#[test]
fn files_are_not_made_removed_or_changed() {
    if !can_mount() {
        return;
    }
    let machine = Mounted::serving("insmod scull");
    for (line, words) in [
        ("> dev/none", "Operation not permitted"),
        ("mkdir dev/none", "Operation not permitted"),
        ("mkfifo none", "Operation not permitted"),
        ("ln -s a none", "Operation not permitted"),
        ("ln dev/zero dev/none", "Operation not permitted"),
        ("rm dev/scull0", "Operation not permitted"),
        ("rmdir dev", "Operation not permitted"),
        ("mv dev/scull0 dev/none", "Operation not permitted"),
        ("chmod 600 dev/scull0", "Operation not permitted"),
        ("cat dev/none", "No such file"),
        ("cat dev/scull00", "No such file"),
        ("cat dev/scull4", "No such device"),
        ("cat dev/scullp0", "No such file"),
        ("cat dev", "Is a directory"),
        ("ls proc/meminfo/x", "Not a directory"),
        ("echo x > proc/meminfo", "Permission denied"),
        ("truncate -s 0 proc/meminfo", "Permission denied"),
    ] {
        let (status, _, err) = machine.try_sh(line);
        assert!(status != 0 && err.contains(words), "{line}: {err}");
    }
    assert_eq!(machine.sh("ls dev | wc -l"), "6\n");
    machine.sh("head -c 5000 dev/zero > dev/null; cat dev/null; touch -c dev/zero");
    assert!(machine.sh("df --output=fstype,source . | tail -1").contains("kmem"));
    machine.end_well(libc::SIGTERM);
}

/// A program that maps a file sees what the device holds, and what it writes there comes to the device.
#[test]
fn a_device_can_be_mapped_by_a_program() {
    if !can_mount() {
        return;
    }
    const BYTES: usize = 3 * 4096;
    let folder = Folder::new();
    let content = std::fs::read(folder.file("file", BYTES)).unwrap();
    let machine = Mounted::serving("insmod scull");
    let device = machine.at("dev/scull0");
    let file = OpenOptions::new().read(true).write(true).open(&device).unwrap();
    file.write_all_at(&content, 0).unwrap();
    let map = |how| {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at addresses that nobody has.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), BYTES, rights, how, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(at.cast::<u8>())
        }
    };
    let private = map(libc::MAP_PRIVATE).unwrap();
    // SAFETY: the mapping has so many bytes.
    assert!(unsafe { std::slice::from_raw_parts(private, BYTES) } == content);
    match map(libc::MAP_SHARED) {
        Ok(shared) => {
            // SAFETY: the mapping has so many bytes, and is this test's.
            unsafe {
                assert!(std::slice::from_raw_parts(shared, BYTES) == content);
                shared.add(5000).copy_from(b"mapped".as_ptr(), 6);
                assert_eq!(libc::msync(shared.cast(), BYTES, libc::MS_SYNC), 0);
                libc::munmap(shared.cast(), BYTES);
            }
            let mut bytes = [0; 6];
            File::open(&device).unwrap().read_exact_at(&mut bytes, 5000).unwrap();
            assert_eq!(&bytes, b"mapped");
        }
        // Kernels before 6.6.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENODEV)),
    }
    // SAFETY: nobody uses it any more.
    unsafe { libc::munmap(private.cast(), BYTES) };
    drop(file);
    machine.end_well(libc::SIGTERM);
}

/// A command of the machine's own may use the folder that it serves: it has no CPU while it waits for the
/// host, on a machine that has one.
#[test]
fn a_command_copies_by_way_of_its_own_mount() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["--machine", "tiny", "--cpus", "1"]);
    let file = machine.folder.file("file", 300_000);
    let root = machine.root.display().to_string();
    machine.enter(&format!(
        "insmod scull; cp {file} {root}/dev/scull0; cp {root}/dev/scull0 /dev/scull1"
    ));
    machine.enter(&format!(
        "cmp {root}/dev/scull1 /dev/scull0; cmp {file} /dev/scull1; ls {root}/dev"
    ));
    machine.enter(&format!("cat {root}/proc/modules > {root}/dev/scull2; echo all of it"));
    machine.enter("exit");
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.said());
    let said = machine.said();
    assert!(said.contains("scull3\n") && said.contains("all of it\n"), "{said}");
}

/// A command that has one CPU leaves the others to the host's programs.
#[test]
fn a_long_command_does_not_stop_the_files_where_there_is_another_cpu() {
    if !can_mount() {
        return;
    }
    let mut machine = Mounted::boot(&["--machine", "tiny", "--cpus", "2"]);
    machine.enter("insmod scull quantum=1 devices=2");
    until("the device", || machine.at("dev/scull1").exists());
    // It walks a list of single bytes, which takes it some seconds.
    let file = machine.folder.file("file", 1_500_000);
    machine.enter(&format!("echo begun; cp {file} /dev/scull0; echo done > /dev/scull1"));
    until("its start", || metadata(machine.at("dev/scull0")).unwrap().len() > 0);
    assert!(machine.sh("cat proc/meminfo").contains("MemFree"));
    assert_eq!(metadata(machine.at("dev/scull1")).unwrap().len(), 0, "it still runs");
    until("its end", || metadata(machine.at("dev/scull1")).unwrap().len() > 0);
    machine.end_well(libc::SIGTERM);
}

/// One that has all CPUs gives way now and then.
#[test]
fn a_command_on_all_cpus_does_not_stop_the_files() {
    if !can_mount() {
        return;
    }
    for cpus in ["1", "2"] {
        let mut machine = Mounted::boot(&["--machine", "tiny", "--cpus", cpus]);
        machine.enter("insmod scull; echo begun > /dev/scull0");
        until("its start", || metadata(machine.at("dev/scull0")).is_ok_and(|at| at.len() > 0));
        machine.enter("stress 1000000000; echo never > /dev/scull1");
        for _ in 0..20 {
            assert!(machine.sh("cat proc/meminfo").contains("MemFree"));
            assert_eq!(machine.sh("cat dev/scull0; wc -c < dev/scull1"), "begun\n0\n");
        }
        // It has run all the time, and ends as commands do.
        machine.signal(libc::SIGINT);
        assert_eq!(machine.wait().code(), Some(130), "{}", machine.said());
        assert!(machine.said().contains("stress: interrupted"));
    }
}

/// Without `--mount` there is nothing to serve.
#[test]
fn serve_needs_a_mount() {
    common::tiny("serve").complains(1, "start with `kmem boot --mount");
    common::tiny("serve now").complains(2, "it takes no arguments");
}

/// Another user of the host has no part in it.
#[test]
fn other_users_are_refused() {
    use std::os::unix::process::CommandExt;
    // SAFETY: the call only answers a number.
    if !can_mount() || unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can try another user");
        return;
    }
    let machine = Mounted::serving("insmod scull");
    let mut ls = Command::new("ls");
    let refused = ls.env("LC_ALL", "C").arg(&machine.root).uid(65_534).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"));
    assert_eq!(machine.sh("ls"), "dev\nproc\nsys\n");
    machine.end_well(libc::SIGTERM);
}
