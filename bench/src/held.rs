//! The rows of bytes: how much an allocator holds for what is asked of it.
//!
//! Of kmem, the pages that its zones have fewer. Of a peer, how far the resident memory of a process
//! grows that uses no other, pages of 4 KiB alone: the bench runs itself for each figure.

use std::error::Error;
use std::process::Command;
use std::ptr::NonNull;

use kmem::{Mm, Platform, Reclaim};

use crate::heaps::{self, Heap, Kmalloc};
use crate::objects::{Mixed, ROWS, Work, get};
use crate::rows::Row;

/// Objects of one size that are held at once: so many that what an allocator takes once does not
/// count, and few enough for 3000 bytes each.
const EACH: usize = 50_000;
/// Objects of random sizes that are replaced before the bytes are counted: a heap that has been used
/// has holes.
const REPLACED: usize = 1_000_000;

/// The figure of kmem.
pub fn of_kmem<P: Platform, R: Reclaim>(mm: &Mm<P, R>, work: Work, seed: u64) -> f64 {
    heaps::settle(mm);
    let page = (1_u64 << P::PAGE_SHIFT) as f64;
    // Pages on CPUs' lists count as free: they are anybody's.
    let held = || -(mm.free_page_count() as f64) * page;
    figure(&Kmalloc(mm), work, seed, held)
}

/// The figure of a peer, in a process of its own.
pub fn of_peer(name: &str, row: &Row<Work>, seed: u64) -> Result<f64, Box<dyn Error>> {
    let seed = seed.to_string();
    let child = Command::new(std::env::current_exe()?)
        .args(["--held-by", name, "--filter", row.name, "--seed", &seed])
        .output()?;
    let failed = || {
        let why = String::from_utf8_lossy(&child.stderr);
        format!("{name}, {}, in a process of its own: {} {}", row.name, child.status, why.trim())
    };
    if !child.status.success() {
        return Err(failed().into());
    }
    let figure = std::str::from_utf8(&child.stdout)?.trim();
    figure.parse().map_err(|_| format!("{}: {figure:?} is no figure", failed()).into())
}

/// What [`of_peer`] has a process do: nothing else has used the peer.
pub fn measure_here(name: &str, row: &str, seed: u64) -> Result<f64, Box<dyn Error>> {
    let row = ROWS.iter().find(|other| other.name == row);
    let work = row.ok_or("there is no such row of objects")?.work;
    // Else one word that is touched may count as 2 MiB.
    rustix::thread::disable_transparent_huge_pages(true)?;
    match name {
        #[cfg(feature = "c-peers")]
        "mimalloc" => in_process(&heaps::mimalloc(), work, seed),
        #[cfg(feature = "c-peers")]
        "snmalloc" => in_process(&heaps::snmalloc(), work, seed),
        "talc" => in_process(&heaps::talc()?, work, seed),
        "buddy_system" => in_process(&heaps::buddy()?, work, seed),
        _ => Err(format!("{name:?} is no peer of this build").into()),
    }
}

fn in_process<H: Heap>(heap: &H, work: Work, seed: u64) -> Result<f64, Box<dyn Error>> {
    resident()?;
    Ok(figure(heap, work, seed, || resident().unwrap_or(f64::NAN)))
}

/// Bytes of the process that are in memory.
fn resident() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kbytes: f64 = line.ok_or("no Rss")?.trim_end_matches("kB").trim().parse()?;
    Ok(kbytes * 1024.0)
}

/// Bytes held for a byte, or for an object. `held` is how many bytes there are now, counted from
/// anywhere.
fn figure<H: Heap>(heap: &H, work: Work, seed: u64, held: impl Fn() -> f64) -> f64 {
    match work {
        Work::Held { live } => {
            // The lists of objects are in the process too: they are there before the count begins.
            let mut mixed = Mixed::with_room(heap, live, seed);
            let before = held();
            mixed.fill(live);
            for (object, size) in mixed.objects() {
                write(*object, *size);
            }
            for _ in 0..REPLACED {
                let (object, size) = mixed.replace();
                write(object, size);
            }
            let asked: usize = mixed.objects().iter().map(|(_, size)| size).sum();
            (held() - before) / asked as f64
        }
        Work::HeldEach { size } => {
            let mut objects = vec![NonNull::<u8>::dangling(); EACH];
            let before = held();
            for object in &mut objects {
                *object = get(heap, size);
                write(*object, size);
            }
            let bytes = held() - before;
            for object in objects {
                // SAFETY: allocated above with this size.
                unsafe { heap.free(object, size) };
            }
            bytes / EACH as f64
        }
        _ => f64::NAN,
    }
}

/// Writes every byte: what is not touched need not be held.
fn write(object: NonNull<u8>, size: usize) {
    // SAFETY: the row's object has so many bytes.
    unsafe { object.write_bytes(0x5a, size) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::{self, Ram};

    #[test]
    fn kmem_is_seen_to_hold_what_was_asked_and_not_much_more() {
        let mut ram = Ram::new(64 << 20);
        let desk = subjects::boot_desk(subjects::desk(&mut ram), 64 << 20).unwrap();
        let each = of_kmem(&desk, Work::HeldEach { size: 700 }, 1);
        assert!((700.0..1400.0).contains(&each), "{each} bytes");
        let mixed = of_kmem(&desk, Work::Held { live: 1000 }, 1);
        assert!((1.0..10.0).contains(&mixed), "{mixed} bytes a byte");
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(measure_here("talc", "no row", 1).is_err());
        let error = measure_here("nobody", "held for 24", 1).unwrap_err().to_string();
        assert_eq!(error, "\"nobody\" is no peer of this build");
    }
}
