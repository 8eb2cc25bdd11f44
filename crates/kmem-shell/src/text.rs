//! Words of messages.

use core::fmt;

/// A number of things as people write it: `1 page`, `2 pages`.
///
/// The thing is a word whose plural ends with `s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::Count;

    #[test]
    fn one_thing_is_singular_and_none_and_many_are_plural() {
        let pages = [0, 1, 2, 11].map(|number| Count(number, "page").to_string());
        assert_eq!(pages, ["0 pages", "1 page", "2 pages", "11 pages"]);
    }
}
