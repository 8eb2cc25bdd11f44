//! The host's table of mounts, `/proc/self/mountinfo`, read.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What is mounted, as the table has it, where it is a machine's files.
pub const SOURCE: &str = "kmem";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, which no other has while it is there, and the next one may have.
    pub id: u64,
    /// The type of its file system: `fuse`.
    pub kind: String,
    /// What is mounted: `kmem`.
    pub source: String,
}

impl Entry {
    /// Whether it is the mount of a machine's files.
    pub fn is_machines(&self) -> bool {
        self.source == SOURCE && self.kind.starts_with("fuse")
    }
}

/// The mount that is seen at a path, if one begins there: of several the last.
pub fn at(path: &Path) -> std::io::Result<Option<Entry>> {
    Ok(all_at(path)?.pop())
}

/// Where a mount is now.
pub fn path_of(id: u64) -> std::io::Result<Option<PathBuf>> {
    Ok(path_in(&std::fs::read("/proc/self/mountinfo")?, id))
}

fn path_in(table: &[u8], id: u64) -> Option<PathBuf> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let of: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let path = fields.nth(3).filter(|_| of == id)?;
        Some(OsString::from_vec(unescape(path)).into())
    })
}

/// All mounts that begin at a path; the last one hides the others.
pub fn all_at(path: &Path) -> std::io::Result<Vec<Entry>> {
    Ok(all_in(&std::fs::read("/proc/self/mountinfo")?, path))
}

fn all_in(table: &[u8], path: &Path) -> Vec<Entry> {
    let lines = table.split(|byte| *byte == b'\n');
    let at_path = lines.filter_map(|line| {
        // ID, its parent's, device, root, place, options, any number of fields, `-`, type, source.
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        if unescape(fields.nth(3)?) != path.as_os_str().as_bytes() {
            return None;
        }
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let mut text = || Some(String::from_utf8_lossy(&unescape(rest.next()?)).into_owned());
        Some(Entry { id, kind: text()?, source: text()? })
    });
    at_path.collect()
}

/// Blanks, line ends and backslashes are in the table as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        40 22 0:35 / /mnt/a\\040b\\134c rw,nosuid - fuse.kmem kmem rw,user_id=0\n\
        41 22 0:36 / /mnt/x rw shared:7 master:2 - tmpfs none rw\n\
        42 22 0:37 / /mnt/x rw - fuse.sshfs host:/\\011home rw\n";

    #[test]
    fn the_last_mount_at_a_path_is_found() {
        let at = |path: &str| all_in(TABLE, Path::new(path)).pop();
        let entry = |id, kind: &str, source: &str| {
            Some(Entry { id, kind: kind.into(), source: source.into() })
        };
        assert_eq!(at("/"), entry(22, "ext4", "/dev/root"));
        assert_eq!(at("/mnt/a b\\c"), entry(40, "fuse.kmem", "kmem"));
        assert_eq!(at("/mnt/x"), entry(42, "fuse.sshfs", "host:/\thome"));
        assert_eq!(all_in(TABLE, Path::new("/mnt/x"))[0], entry(41, "tmpfs", "none").unwrap());
        assert_eq!(path_in(TABLE, 40), Some("/mnt/a b\\c".into()));
        assert_eq!((path_in(TABLE, 42), path_in(TABLE, 43)), (Some("/mnt/x".into()), None));
        for path in ["/mnt", "/mnt/x/y", "", "/mnt/a"] {
            assert_eq!(at(path), None, "{path}");
        }
    }

    #[test]
    fn only_a_mount_by_fuse_is_a_machines() {
        let entry =
            |kind: &str, source: &str| Entry { id: 1, kind: kind.into(), source: source.into() };
        assert!(entry("fuse", "kmem").is_machines() && entry("fuse.kmem", "kmem").is_machines());
        assert!(!entry("tmpfs", "kmem").is_machines() && !entry("fuse", "sshfs").is_machines());
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_mount() {
        for table in ["", "\n", "22", "22 1 254:0 / /x rw", "x 1 254:0 / /x rw - a b"] {
            assert_eq!(all_in(table.as_bytes(), Path::new("/x")), [], "{table}");
        }
        assert_eq!(unescape(b"\\04"), b"\\04");
        assert_eq!(unescape(b"\\777\\141"), b"\\777a");
    }
}
