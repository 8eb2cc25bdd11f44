//! Runs in lock step with a model that has a word for each page.

use std::vec::Vec;
use std::{env, vec};

use super::{NotFreed, Runs};

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Which block each page is of; a block is called after its first page.
type Model = Vec<Option<u32>>;

fn place(model: &Model, pages: u32, align: u64, base: u64) -> Option<u32> {
    (0..model.len() as u32).find(|start| {
        let end = *start as usize + pages as usize;
        (base + u64::from(*start)).is_multiple_of(align)
            && end <= model.len()
            && model[*start as usize..end].iter().all(Option::is_none)
    })
}

fn longest(model: &Model) -> u64 {
    let free = |page: &Option<u32>| page.is_none();
    model
        .chunk_by(|a, b| free(a) && free(b))
        .filter(|run| free(&run[0]))
        .map(<[_]>::len)
        .max()
        .unwrap_or(0) as u64
}

/// A256, A320
#[test]
fn runs_are_what_a_model_with_a_word_for_each_page_says() {
    let seed = env::var("KMEM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    std::println!("KMEM_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..200 {
        let size = 1 + random.below(70) as u32;
        let base = random.below(1000);
        // What was in the memory before means nothing.
        let mut table: Vec<u32> = (0..size).map(|_| random.below(1 << 32) as u32).collect();
        Runs::over(&mut table).clear();
        let mut model: Model = vec![None; size as usize];
        for _ in 0..300 {
            let mut runs = Runs::over(&mut table);
            if random.below(2) == 0 {
                let pages = 1 + random.below(12) as u32;
                let align = [1, 1, 2, 3, 8][random.below(5) as usize];
                let got = runs.alloc(pages, align, base);
                assert_eq!(got, place(&model, pages, align, base), "{pages} at {align}: {model:?}");
                if let Some(start) = got {
                    model[start as usize..(start + pages) as usize].fill(Some(start));
                }
            } else {
                let at = random.below(size.into()) as u32;
                let got = runs.free(at);
                let block = model[at as usize];
                let of_block = model.iter().filter(|page| **page == block).count() as u32;
                let expected = match block {
                    None => Err(NotFreed::Free),
                    Some(start) if start == at => Ok(of_block),
                    Some(start) => Err(NotFreed::Inside { start, pages: of_block }),
                };
                assert_eq!(got, expected, "{at}: {model:?}");
                if got.is_ok() {
                    model.iter_mut().filter(|page| **page == block).for_each(|page| *page = None);
                }
            }
            let usage = Runs::over(&mut table).usage();
            let used = model.iter().flatten().count() as u64;
            assert_eq!((usage.pages, usage.used), (size.into(), used));
            assert_eq!(usage.longest, longest(&model));
            let blocks = (0..size).filter(|page| model[*page as usize] == Some(*page)).count();
            assert_eq!(usage.blocks, blocks as u64);
        }
    }
}

#[test]
fn a_request_that_no_table_holds_finds_no_place() {
    let mut table = [0; 4];
    let mut runs = Runs::over(&mut table);
    runs.clear();
    assert_eq!(runs.alloc(5, 1, 0), None);
    assert_eq!(runs.alloc(u32::MAX, 1, 0), None);
    assert_eq!(runs.alloc(1, u64::MAX, 1), None);
    assert_eq!(runs.alloc(4, u64::MAX, 0), Some(0));
    assert_eq!(runs.free(1), Err(NotFreed::Inside { start: 0, pages: 4 }));
    assert_eq!(runs.free(0), Ok(4));
}
