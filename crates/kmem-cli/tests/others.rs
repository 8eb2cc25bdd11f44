//! `kmem machines` and `kmem demo` from outside.

mod common;

use common::{Folder, kmem};

#[test]
fn machines_lists_every_preset_in_a_table_and_as_json() {
    let table = kmem(&["machines"]).well();
    let json = kmem(&["machines", "--json"]).well();
    let rows: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
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
