//! `kmem machines`, `kmem demo` and `kmem conformance` from outside.

mod common;

use common::{Folder, kmem, kmem_unread};

#[test]
fn machines_lists_every_preset_in_a_table_and_as_json() {
    let table = kmem(&["machines"]).well();
    let json = kmem(&["machines", "--json"]).well();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(rows.len() >= 8);
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        assert!(table.lines().any(|line| line.starts_with(name)), "{name}");
        assert!(!row["about"].as_str().unwrap().is_empty(), "{name}");
        let zones: Vec<&str> =
            row["zones"].as_array().unwrap().iter().map(|zone| zone.as_str().unwrap()).collect();
        // The zones that the table claims are those that the machine boots with.
        let info = kmem(&["boot", "--machine", name, "-c", "cat /proc/buddyinfo"]).well();
        let mut booted: Vec<&str> =
            info.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
        booted.sort_unstable();
        booted.dedup();
        let mut claimed = zones.clone();
        claimed.sort_unstable();
        assert_eq!(booted, claimed, "{name}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
}

/// What `kmem machines NAME` prints is the machine: a file of it boots the same one.
#[test]
fn a_machine_that_is_printed_is_a_machine_file() {
    let folder = Folder::new();
    let path = folder.path("machine.toml");
    let json = kmem(&["machines", "--json"]).well();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let names: Vec<String> =
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.len() >= 8);
    for name in names {
        let text = kmem(&["machines", &name]).well();
        std::fs::write(&path, &text).unwrap();
        let read = kmem_host::Description::from_file(&path).unwrap();
        assert_eq!(read, kmem_host::Description::preset(&name).unwrap());
        assert_eq!(kmem(&["machines", &path]).well(), text);
        let info =
            |machine: &str| kmem(&["boot", "--machine", machine, "-c", "cat /proc/iomem"]).well();
        assert_eq!(info(&path), info(&name));
    }
}

#[test]
fn every_key_of_a_machine_file_is_explained_with_its_default() {
    let text = kmem(&["machines", "--keys"]).well();
    for lines in [
        "largest_order\n    the largest block that can be allocated: 2^largest_order pages\n    \
         give a number from 0 to 15\n    default: 10\n",
        "\nmin_free_kbytes\n    the sum of the min watermarks, in KiB; ",
    ] {
        assert!(text.contains(lines), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for line in kmem(&["machines", "numa2"]).well().lines() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        assert!(text.contains(&format!("{key}\n    ")), "{key}");
    }
    let json = kmem(&["machines", "--keys", "--json"]).well();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[0]["name"], "name");
    assert_eq!(rows.len(), kmem_host::Description::keys().count());
}

/// As other tools do: nothing is said, and the status is that of a process that SIGPIPE has ended.
#[test]
fn nothing_is_said_where_nobody_reads_the_output() {
    for arguments in [
        &["machines"][..],
        &["machines", "--keys"],
        &["conformance", "--machine", "tiny"],
        &["demo"],
        &["boot", "-c", "cat /proc/buddyinfo"],
        &["boot", "-c", "time ls /dev"],
    ] {
        let run = kmem_unread(arguments);
        assert_eq!((run.status, run.err.as_str()), (141, ""), "{arguments:?}");
    }
    // The machine is checked all the same.
    let run = kmem_unread(&["boot", "--machine", "tiny", "-c", "leak 3; ls /dev"]);
    run.complains(3, "8 pages of 4096 bytes are lost");
}

/// The pages that the two tables differ by are those that the text accounts for.
#[test]
fn the_numbers_of_the_demo_add_up() {
    let out = kmem(&["demo"]).well();
    let tables: Vec<u64> = out
        .split("kmem> cat /proc/buddyinfo\n")
        .skip(1)
        .map(|text| {
            let rows = text.lines().take_while(|line| line.starts_with("Node "));
            let counts = rows.flat_map(|row| row.split_whitespace().skip(4).enumerate());
            counts.map(|(order, count)| count.parse::<u64>().unwrap() << order).sum()
        })
        .collect();
    let said = out.split(" pages fewer are free").next().unwrap();
    let said: u64 = said.rsplit('\n').next().unwrap().parse().unwrap();
    assert_eq!(tables.len(), 3, "{out}");
    assert_eq!(tables[0] - tables[1], said, "{out}");
    assert_eq!(tables[0], tables[2], "{out}");
}

/// A command's result is of that command: the tour does nothing beforehand that would leave it nothing.
#[test]
fn the_demo_gives_back_before_it_counts() {
    let out = kmem(&["demo"]).well();
    let lines: Vec<&str> = out.lines().collect();
    let drains: Vec<usize> =
        (0..lines.len()).filter(|line| lines[*line] == "kmem> drain").collect();
    assert_eq!(drains.len(), 2, "{out}");
    for at in &drains {
        assert_eq!(lines[at - 2], "kmem> cache shrink all", "{out}");
        let (left, rest) = lines[at + 1].split_once(" pages left the CPUs' lists; ").unwrap();
        assert!(left.parse::<u64>().unwrap() > 0 && rest.ends_with(" pages free"), "{out}");
    }
    // A remark stands before each group of commands, and groups begin with an empty line.
    let groups = out.split("\n\n").filter(|group| group.contains("kmem> "));
    assert!(groups.clone().count() >= 10, "{out}");
    for group in groups {
        let first = group.trim_start().chars().next().unwrap();
        assert!(first.is_ascii_uppercase() || first.is_ascii_digit(), "{group}");
    }
}

#[test]
fn the_demo_holds_what_it_claims() {
    let folder = Folder::new();
    let file = folder.file("a file of the 'user'", 3_000_000);
    let out = kmem(&["demo", "--file", &file]).well();
    assert!(out.contains("checks held"), "{out}");
    assert!(out.contains("double free: passed"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
}

#[test]
fn the_demo_refuses_a_file_that_is_not_there() {
    kmem(&["demo", "--file", "/no/such/file"]).complains(2, "/no/such/file");
}
