//! The sample devices at the prompt: modules, /dev, /proc, /sys.

mod common;

use common::{Folder, kmem, tiny};

const MODULES: [&str; 3] = ["scull", "scullc", "scullp"];

/// A303, A304, A310, A317, A318
#[test]
fn eight_megabytes_through_each_device_compare_equal() {
    let folder = Folder::new();
    let (file, back) = (folder.file("file", 8 << 20), folder.path("back"));
    for name in MODULES {
        let commands = format!(
            "insmod {name}; cp {file} /dev/{name}0; cp /dev/{name}0 /dev/{name}1; \
             cmp /dev/{name}1 {file}; cp /dev/{name}1 {back}"
        );
        assert_eq!(kmem(&["boot", "-c", &commands]).well(), "", "{name}");
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&back).unwrap(), "{name}");
        std::fs::remove_file(&back).unwrap();
    }
}

/// A318: with cat and a redirection, as the texts use it, and from one kind of device to another.
#[test]
fn cat_into_one_device_and_from_it_into_another() {
    let folder = Folder::new();
    let file = folder.file("file", 100_001);
    tiny(&format!(
        "insmod scullp order=1; insmod scull quantum=777; insmod scullc quantum=5000 devices=5; \
         cat {file} > /dev/scullp0; cat /dev/scullp0 > /dev/scull3; cat /dev/scull3 > /dev/scullc4; \
         cat /dev/scullc4 > /dev/scullp3; cmp /dev/scullp3 {file}; cmp /dev/scull3 {file}"
    ))
    .well();
}

#[test]
fn a_difference_is_found() {
    let folder = Folder::new();
    let (file, other) = (folder.file("file", 9_000), folder.path("other"));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8_500] ^= 1;
    std::fs::write(&other, &bytes).unwrap();
    for name in MODULES {
        tiny(&format!("insmod {name}; cp {file} /dev/{name}0; cmp /dev/{name}0 {other}"))
            .complains(1, "differ: byte 8501");
    }
}

/// A315
#[test]
fn the_file_in_proc_has_the_texts_shape() {
    let folder = Folder::new();
    let file = folder.file("file", 1_048_576);
    for (name, shape) in MODULES.into_iter().zip([
        "qset 1000, q 4000",
        "qset 500, quantum 4000",
        "qset 500, order 0",
    ]) {
        let commands = format!("insmod {name}; cp {file} /dev/{name}0; head -5 /proc/{name}mem");
        let out = tiny(&commands).well();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], "");
        assert_eq!(lines[1], format!("Device 0: {shape}, sz 1048576"));
        let address = |text: &str| {
            assert_eq!(text.len(), 16, "{out}");
            let is_digit = |c: u8| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
            assert!(text.bytes().all(is_digit), "{out}");
        };
        let rest = lines[2].strip_prefix("  item at ").unwrap();
        let (item, set) = rest.split_once(", qset at ").unwrap();
        address(item);
        address(set);
        address(lines[3].strip_prefix("       0:").unwrap());
        address(lines[4].strip_prefix("       1:").unwrap());
    }
}

#[test]
fn modules_are_listed_while_they_are_loaded() {
    let out =
        tiny("insmod scullp; insmod scull; cat /proc/modules; lsmod; rmmod scullp; lsmod").well();
    let lines: Vec<&str> = out.lines().collect();
    // The latest comes first.
    assert!(lines[0].starts_with("scull ") && lines[0].contains(" 0 - Live 0x"), "{out}");
    assert!(lines[1].starts_with("scullp ") && lines[1].contains(" 0 - Live 0x"), "{out}");
    assert_eq!(lines[2], "Module                  Size  Used by");
    assert!(lines[3].starts_with("scull ") && lines[4].starts_with("scullp "), "{out}");
    assert_eq!(&lines[5..], &lines[2..4]);
}

#[test]
fn devices_are_there_while_their_module_is() {
    let all =
        tiny("insmod scull devices=11; insmod scullc devices=1; ls /dev; rmmod scull; ls /dev")
            .well();
    let mut wanted = vec!["null".to_owned()];
    wanted.extend((0..11).map(|number| format!("scull{number}")));
    wanted.extend(["scullc0", "zero", "null", "scullc0", "zero"].map(String::from));
    assert_eq!(all.lines().collect::<Vec<_>>(), wanted);
}

/// A304, A307, A323
#[test]
fn the_cache_scullc_is_in_slabinfo_while_the_module_is_loaded() {
    let folder = Folder::new();
    let file = folder.file("file", 40_000);
    let out = tiny(&format!(
        "insmod scullc; cp {file} /dev/scullc0; cat /proc/slabinfo; rmmod scullc; echo unloaded; \
         cat /proc/slabinfo"
    ))
    .well();
    let (loaded, unloaded) = out.split_once("unloaded").unwrap();
    let line = loaded.lines().find(|line| line.starts_with("scullc ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("10"), "{line}");
    assert!(!unloaded.contains("scullc"), "{unloaded}");
}

#[test]
fn parameters_are_read_in_sys_and_some_are_written() {
    let out = tiny(
        "insmod scull devices=2 quota=9000000; ls /sys; ls /sys/module; ls /sys/module/scull; \
         ls /sys/module/scull/parameters; cat /sys/module/scull/parameters/devices \
         /sys/module/scull/parameters/quantum /sys/module/scull/parameters/qset \
         /sys/module/scull/parameters/quota; ls /sys/module/scull/parameters/qset",
    )
    .well();
    let wanted = "kernel\nmodule\nscull\nparameters\ndevices\nquantum\nqset\nquota\n2\n4000\n1000\n9000000\n\
                  /sys/module/scull/parameters/qset\n";
    assert_eq!(out, wanted);
    // A device takes a new quantum over when it is emptied.
    let out = tiny(
        "insmod scull devices=1; cp /proc/meminfo /dev/scull0; \
         echo 6000 > /sys/module/scull/parameters/quantum; echo 7 > //sys/module/scull/parameters/qset; \
         cat /sys/module/scull/parameters/quantum; head -2 /proc/scullmem; \
         cp /dev/null /dev/scull0; cat /proc/scullmem",
    )
    .well();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "6000");
    assert!(lines[2].starts_with("Device 0: qset 1000, q 4000, sz "), "{out}");
    assert_eq!(&lines[3..], ["", "Device 0: qset 7, q 6000, sz 0"]);
}

/// A165, A319: exhaustion on purpose, and what stops it.
#[test]
fn a_device_takes_all_memory_unless_it_has_a_quota() {
    for name in MODULES {
        tiny(&format!("insmod {name}; cp /dev/zero /dev/{name}0")).complains(1, "ENOMEM");
        let quota = format!("insmod {name} quota=1000000; cp /dev/zero /dev/{name}0");
        tiny(&quota).complains(1, "over the device's quota of 1000000 bytes");
    }
}

/// A228
#[test]
fn a_device_copies_memory_and_is_refused_what_it_cannot_use() {
    let out = kmem(&["boot", "-c", "dma; dma 4095"]).well();
    for words in [
        "edu 1.0, which reaches addresses up to 0xfffffff\n",
        "3000 bytes at 0x",
        ": compared, and equal\n",
        "beyond its reach, copied by way of 0x",
        "vmalloc: 0x",
        "memory that no device can be told of: passed address 0x",
        "4095 bytes at 0x",
    ] {
        assert!(out.contains(words), "{words} is not in\n{out}");
    }
    // All of a small machine's memory is within reach.
    assert!(!tiny("dma 1").well().contains("beyond"));
    for arguments in ["0", "4096", "-1", "x"] {
        tiny(&format!("dma {arguments}")).complains(2, "give 1 to 4095");
    }
}
