//! Sizes and ranges as people write them: `64M`, `0x9fc00`, `1M-1G`, `4G+512M`.

use std::ops::Range;

/// The suffixes, each 1024 times the one before it.
const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Reads a size in bytes: a decimal or `0x` number, with `K`, `M`, `G` or `T` behind it for powers
/// of 1024. `None` where the text is something else or does not fit 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = |c: char| UNITS.iter().find(|(u, _)| *u == c.to_ascii_uppercase());
    let (digits, shift) = match text.chars().last().and_then(unit) {
        Some(&(_, shift)) => (&text[..text.len() - 1], shift),
        None => (text, 0),
    };
    let number = parse_number(digits)?;
    number.checked_mul(1 << shift)
}

/// Reads a decimal or `0x` number without a sign.
fn parse_number(digits: &str) -> Option<u64> {
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (digits, 10),
    };
    // `from_str_radix` takes a plus sign; a size has none.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Writes a size so that [`parse_size`] reads the same back: with the largest unit that divides it.
pub fn format_size(bytes: u64) -> String {
    match UNITS.iter().rev().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift)) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None if bytes < 1 << 16 => bytes.to_string(),
        None => format!("{bytes:#x}"),
    }
}

/// Reads a half-open range of bytes: `START-END` or `START+SIZE`. `None` also where it is empty.
pub fn parse_range(text: &str) -> Option<Range<u64>> {
    let range = if let Some((start, end)) = text.split_once('-') {
        parse_size(start)?..parse_size(end)?
    } else {
        let (start, size) = text.split_once('+')?;
        let start = parse_size(start)?;
        start..start.checked_add(parse_size(size)?)?
    };
    (range.start < range.end).then_some(range)
}

/// Writes a range as `START-END`.
pub fn format_range(range: &Range<u64>) -> String {
    format!("{}-{}", format_size(range.start), format_size(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x9fc00", 0x9fc00),
            ("640K", 640 << 10),
            (" 64m ", 64 << 20),
            ("16T", 16 << 40),
            ("0x10K", 0x4000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "M", "-1", "+1", "1.5G", "64Q", "0x", "0xg", "16777216T", "1 G", "K1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 4095, 4096, 0x9fc00, 1 << 20, 3 << 30, u64::MAX, 1 << 63] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        assert_eq!(format_size(64 << 20), "64M");
        assert_eq!(format_range(&(0..640 << 10)), "0-640K");
    }

    #[test]
    fn ranges_are_read_by_end_or_by_size() {
        assert_eq!(parse_range("1M-1G"), Some(1 << 20..1 << 30));
        assert_eq!(parse_range("4G + 1M"), Some(4 << 30..(4 << 30) + (1 << 20)));
        for text in ["1M", "2M-1M", "1M-1M", "1M+0", "-1M", "0xffffffffffffffff+1"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}
