//! Functions and lines beside the addresses of a crash report.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::{Context, Location};
use gimli::{Dwarf, EndianRcSlice, LittleEndian};
use object::{Object, ObjectSection, SectionKind};

/// What a line with an address begins with.
const AT: &[u8] = b"  at 0x";

/// The hexadecimal digits of an address.
const DIGITS: usize = 16;

/// Passes on what a machine writes, and adds to each line that has an address what `calls` says of it:
/// the innermost call first. It holds nothing back, so that a prompt is seen.
pub struct Symboliser<F> {
    calls: F,
    /// The beginning of the line that has not ended.
    line: Vec<u8>,
}

impl<F: Fn(u64) -> Vec<String>> Symboliser<F> {
    /// Nothing was written so far.
    pub fn new(calls: F) -> Self {
        Symboliser { calls, line: Vec::new() }
    }

    /// Passes bytes on.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn pass(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        // A line ends with two characters: a terminal that a machine reads from is raw.
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\r' | b'\n'), text)) => (text, Some(end)),
                _ => (part, None),
            };
            out.write_all(text)?;
            let room = (AT.len() + DIGITS + 1).saturating_sub(self.line.len());
            self.line.extend(&text[..text.len().min(room)]);
            if let Some(end) = end {
                if let Some(address) = address(&self.line) {
                    self.write_calls(address, out)?;
                }
                out.write_all(&[*end])?;
                self.line.clear();
            }
        }
        out.flush()
    }

    fn write_calls(&self, address: u64, out: &mut dyn Write) -> io::Result<()> {
        for (index, call) in (self.calls)(address).iter().enumerate() {
            if index > 0 {
                write!(out, "\r\n{:1$}", "", self.line.len())?;
            }
            write!(out, "  {call}")?;
        }
        Ok(())
    }
}

/// The address that a line is about.
fn address(line: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(line.strip_prefix(AT)?).ok()?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() <= DIGITS)
}

/// The image of a kernel. It is read when the first address is asked for.
pub struct Image {
    path: PathBuf,
    root: PathBuf,
    debug: OnceCell<Option<Debug>>,
}

/// What an image says of its code.
struct Debug {
    lines: Context<Bytes>,
    /// Where each function begins, in order.
    functions: Vec<(u64, String)>,
    /// The addresses that have code.
    code: Vec<Range<u64>>,
}

/// A part of an image, shared.
type Bytes = EndianRcSlice<LittleEndian>;

impl Image {
    /// The image at `path`, built in the repository at `root`.
    pub fn new(path: &Path, root: &Path) -> Image {
        Image { path: path.into(), root: root.into(), debug: OnceCell::new() }
    }

    /// The calls that an address in code is in, inlined ones first, each as `function, file:line`.
    /// Nothing where nothing is known.
    pub fn calls(&self, address: u64) -> Vec<String> {
        // A report without names is better than none.
        let debug = self.debug.get_or_init(|| Debug::read(&self.path)).as_ref();
        debug.map_or_else(Vec::new, |debug| debug.calls(address, &self.root))
    }
}

impl Debug {
    fn read(path: &Path) -> Option<Debug> {
        let bytes = std::fs::read(path).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let sections = Dwarf::load(|id| {
            let data = file.section_by_name(id.name()).and_then(|section| section.data().ok());
            Ok::<_, gimli::Error>(EndianRcSlice::new(data.unwrap_or(&[]).into(), LittleEndian))
        });
        let lines = Context::from_dwarf(sections.ok()?).ok()?;
        let functions = file.symbol_map();
        let functions = functions.symbols().iter().map(|one| (one.address(), one.name().into()));
        let is_code = |section: &object::Section<'_, '_>| section.kind() == SectionKind::Text;
        let range = |section: object::Section<'_, '_>| {
            section.address()..section.address() + section.size()
        };
        let code = file.sections().filter(is_code).map(range);
        Some(Debug { lines, functions: functions.collect(), code: code.collect() })
    }

    fn calls(&self, address: u64, root: &Path) -> Vec<String> {
        if !self.code.iter().any(|range| range.contains(&address)) {
            return Vec::new();
        }
        let mut calls = Vec::new();
        if let Ok(mut frames) = self.lines.find_frames(address).skip_all_loads() {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
                calls.push((
                    name.map(|name| bare(&name)),
                    frame.location.and_then(|at| place(&at, root)),
                ));
            }
        }
        // The last is the function that the others were inlined into. Only its symbol has its full
        // name; code that was not written in Rust has nothing else.
        let next = self.functions.partition_point(|(begin, _)| *begin <= address);
        let outer = next.checked_sub(1).map(|last| plain(&self.functions[last].1));
        match calls.last_mut() {
            Some((name, _)) => *name = outer.or(name.take()),
            None => calls.push((outer, None)),
        }
        let shown = |(name, place): (Option<String>, Option<String>)| match (name, place) {
            (Some(name), Some(place)) => Some(format!("{name}, {place}")),
            (name, place) => name.or(place),
        };
        calls.into_iter().filter_map(shown).collect()
    }
}

/// `file:line`, or the file alone for code that the compiler made of several lines.
fn place(at: &Location<'_>, root: &Path) -> Option<String> {
    let file = shorten(at.file?, root);
    Some(at.line.map_or_else(|| file.clone(), |line| format!("{file}:{line}")))
}

/// The name of an inlined function, without what its parameters are: they are long.
fn bare(name: &str) -> String {
    let name = plain(name);
    match name.split_once('<') {
        Some((name, _)) if !name.is_empty() => name.into(),
        _ => name,
    }
}

/// A function's name as it is written, without the compiler's hash.
fn plain(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// A path as seen from the repository; of the compiler's library, or of a package, from there.
fn shorten(path: &str, root: &Path) -> String {
    if let Ok(inside) = Path::new(path).strip_prefix(root) {
        return inside.display().to_string();
    }
    let behind = |mark: &str, folders: usize| {
        let (_, rest) = path.split_once(mark)?;
        rest.splitn(folders + 1, '/').nth(folders)
    };
    // /rustc/HASH/library/core/..., .../registry/src/INDEX/spin-0.10.1/...
    let short = behind("/rustc/", 1).or_else(|| behind("/registry/src/", 1));
    short.unwrap_or(path).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for these pieces, if each address is in two functions.
    fn passed(pieces: &[&str]) -> String {
        let calls = |address| vec![format!("inner {address:x}"), format!("outer {address:x}")];
        let (mut symboliser, mut out) = (Symboliser::new(calls), Vec::new());
        for piece in pieces {
            symboliser.pass(piece.as_bytes(), &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_added_to_lines_with_an_address() {
        let pad = " ".repeat("  at 0x1f".len());
        let expected = format!("what\r\n  at 0x1f  inner 1f\r\n{pad}  outer 1f\r\nCPU 0\r\n");
        assert_eq!(passed(&["what\r\n  at 0x1f\r\nCPU 0\r\n"]), expected);
        // However it is cut into pieces.
        let text = "what\r\n  at 0x1f\r\nCPU 0\r\n";
        let bytes: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        assert_eq!(passed(&bytes), expected);
    }

    #[test]
    fn other_lines_and_prompts_are_passed_on_as_they_are() {
        let others = [
            "kmem> ",
            "at 0x1f\n",
            "  at 0x\n",
            "  at 0x1fg\n",
            "  at 0x1f and more\n",
            "  at 0x11112222333344445\n",
            "   at 0x1f\n",
            "\u{e9}\r\n\r\n",
            "  at 0x1f",
        ];
        for text in others {
            assert_eq!(passed(&[text]), text);
        }
    }

    #[test]
    fn names_are_as_they_are_written() {
        assert_eq!(plain("_ZN7kmem_pc5crash5panic17h0123456789abcdefE"), "kmem_pc::crash::panic");
        assert_eq!(plain("begin_task"), "begin_task");
        assert_eq!(bare("free_slow<kmem_pc::platform::Pc, Free>"), "free_slow");
        assert_eq!(bare("<T as Trait>::call"), "<T as Trait>::call");
    }

    #[test]
    fn paths_begin_in_the_repository() {
        let shortened = |path| shorten(path, Path::new("/home/me/kmem"));
        assert_eq!(shortened("/home/me/kmem/kmem-pc/src/main.rs"), "kmem-pc/src/main.rs");
        assert_eq!(shortened("/home/me/kmem-2/src/main.rs"), "/home/me/kmem-2/src/main.rs");
        assert_eq!(
            shortened("/rustc/5980/library/core/src/fmt/mod.rs"),
            "library/core/src/fmt/mod.rs"
        );
        let package = "/home/me/.cargo/registry/src/index-1/spin-0.10.1/src/mutex.rs";
        assert_eq!(shortened(package), "spin-0.10.1/src/mutex.rs");
    }

    /// A test is a program with symbols, too.
    #[test]
    fn an_image_knows_its_functions() {
        let program = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut lines = maps.lines();
        let first = lines.find(|line| line.ends_with(program.to_str().unwrap())).unwrap();
        let loaded = u64::from_str_radix(first.split_once('-').unwrap().0, 16).unwrap();
        let address = marked as *const () as u64 - loaded;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let calls = Image::new(&program, root).calls(address);
        let begins = "xtask::pc::symbols::tests::marked, xtask/src/pc/symbols.rs:";
        assert!(calls.len() == 1 && calls[0].starts_with(begins), "{calls:?}");
    }

    #[inline(never)]
    extern "C" fn marked() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_missing_image_has_no_names() {
        assert!(Image::new(Path::new("/nowhere"), Path::new("/")).calls(0x1000).is_empty());
    }
}
