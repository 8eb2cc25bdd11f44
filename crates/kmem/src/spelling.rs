//! What a wrong word was likely meant to be.
//!
//! Flags, and what others built on the manager have names for, are typed by people. An error that names the
//! known word next to what was typed saves them a look into a list.

/// The longest word that a slip is looked for in, in bytes. Longer than any name.
pub const LONGEST: usize = 30;

/// The name that `word` is likely to be a slip of, if one is near enough to be of help: one letter off, and
/// one more for every four beyond the first. Letters that changed places count as one; upper and lower case are the same.
///
/// ```
/// use kmem::spelling::nearest;
///
/// let names = ["cpus", "page_shift", "pagesets"];
/// assert_eq!(nearest("page_shfit", names), Some("page_shift"));
/// assert_eq!(nearest("memory", names), None);
/// ```
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let near_enough = 1 + (word.len() - 1) / 4;
    names
        .into_iter()
        .map(|name| (distance(name, word), name))
        // All letters of a word replaced are another word.
        .filter(|&(distance, _)| distance <= near_enough && distance < word.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many letters to insert, delete, replace or exchange with their neighbour to make one word the other,
/// case aside; `to` has at most [`LONGEST`] bytes.
fn distance(from: &str, to: &str) -> usize {
    let differ = |a: u8, b: u8| !a.eq_ignore_ascii_case(&b);
    // Rows of the usual table for the letters of `from` so far: entry j is the distance to the first j
    // letters of `to`. A pair that changed places is looked up two rows above.
    let mut row: [usize; LONGEST + 1] = core::array::from_fn(|column| column);
    let mut above = row;
    let mut last = None;
    for (i, a) in from.bytes().enumerate() {
        let two_above = core::mem::replace(&mut above, row);
        row[0] = i + 1;
        let mut left = None;
        for (j, b) in to.bytes().enumerate() {
            let replaced = above[j] + usize::from(differ(a, b));
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if let (Some(last), Some(left)) = (last, left)
                && !differ(last, b)
                && !differ(left, a)
            {
                row[j + 1] = row[j + 1].min(two_above[j - 1] + 1);
            }
            left = Some(b);
        }
        last = Some(a);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters_inserted_deleted_replaced_and_exchanged() {
        for (a, b, expected) in [
            ("KERNEL", "kernel", 0),
            ("KERNEL", "KERNAL", 1),
            ("KERNEL", "ERNEL", 1),
            ("NOWAIT", "NOWIAT", 1),
            ("cp", "pc", 1),
            ("ca", "abc", 3),
            ("kitten", "sitting", 3),
            ("IO", "", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_word_that_is_like_none_has_no_nearest() {
        let names = ["cat", "cp", "insmod", "rmmod"];
        for (word, found) in [
            ("insmdo", Some("insmod")),
            ("catt", Some("cat")),
            ("pc", Some("cp")),
            ("", None),
            ("x", None),
            ("xy", None),
            ("lsblk", None),
            ("an_insmod_that_is_very_much_longer", None),
            ("ü", None),
        ] {
            assert_eq!(nearest(word, names), found, "{word}");
        }
    }
}
