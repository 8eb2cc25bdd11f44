//! Which offsets of a chunk are allocated.

/// What an object's size is rounded up to, in bytes: a word, which is what most per-CPU data is.
pub(crate) const GRANULE: usize = 8;

/// How many granules a word of the map describes.
const WORD: usize = u64::BITS as usize;

/// The class of a word that is free as a whole. A class is the order of an aligned block, in granules,
/// plus one; 0 is no block.
const WHOLE_WORD: u8 = 7;

const _: () = assert!(1 << (WHOLE_WORD - 1) == WORD);

/// The bits whose numbers are multiples of 2^order.
const MULTIPLES: [u64; WHOLE_WORD as usize] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];

/// A request: how many granules, at a multiple of how many.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    granules: usize,
    align_order: u32,
}

impl Wanted {
    /// For so many bytes, not 0, at a multiple of so many, a power of two. `None` where `page` bytes
    /// cannot have that.
    #[inline]
    pub(crate) fn new(size: usize, align: usize, page: usize) -> Option<Wanted> {
        if size == 0 || size > page || !align.is_power_of_two() || align > page {
            return None;
        }
        let align_order = align.div_ceil(GRANULE).trailing_zeros();
        Some(Wanted { granules: size.div_ceil(GRANULE), align_order })
    }

    /// The class of the aligned block that proves that there is room.
    #[inline]
    pub(crate) fn class(self) -> u8 {
        let order = usize::BITS - (self.granules - 1).leading_zeros();
        order.max(self.align_order) as u8 + 1
    }
}

/// Why an offset is not one of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAllocated {
    /// It is free.
    Free,
    /// It is inside the object that begins at this offset.
    Inside(usize),
}

/// The map of one chunk: a power of two of words.
///
/// # Invariants
///
/// `used` has a bit for each granule of an object, `first` for the first of each. `best` is a binary
/// tree in an array, its root at 1 and word `w` at `words + w`, and says of every node the class of the
/// largest aligned block that is free in it.
pub(crate) struct Map<'m> {
    used: &'m mut [u64],
    first: &'m mut [u64],
    best: &'m mut [u8],
}

impl<'m> Map<'m> {
    /// How many words describe a page of so many bytes, a power of two.
    pub(crate) const fn words(page: usize) -> usize {
        let words = page / (GRANULE * WORD);
        if words == 0 { 1 } else { words }
    }

    /// A map whose parts were made by [`Map::init`]: `words`, `words`, and twice as many bytes.
    #[inline]
    pub(crate) fn new(used: &'m mut [u64], first: &'m mut [u64], best: &'m mut [u8]) -> Map<'m> {
        debug_assert!(used.len().is_power_of_two() && used.len() == first.len());
        debug_assert!(best.len() == 2 * used.len());
        Map { used, first, best }
    }

    /// Makes everything free.
    pub(crate) fn init(&mut self) {
        self.used.fill(0);
        self.first.fill(0);
        let top = self.whole();
        for (node, best) in self.best.iter_mut().enumerate().skip(1) {
            *best = top - node.ilog2() as u8;
        }
    }

    /// The class of the largest block that is free; 0 for none.
    #[inline]
    pub(crate) fn class(&self) -> u8 {
        self.best[1]
    }

    /// The class of a map where everything is free.
    #[inline]
    pub(crate) fn whole(&self) -> u8 {
        WHOLE_WORD + self.used.len().trailing_zeros() as u8
    }

    /// Takes what is wanted: its offset, in bytes. `None` where no aligned block proves that there is
    /// room.
    pub(crate) fn alloc(&mut self, wanted: Wanted) -> Option<usize> {
        let (words, class) = (self.used.len(), wanted.class());
        if self.best[1] < class {
            return None;
        }
        // Down to a word, or to a node that is as large as the block and so free as a whole. Of two
        // halves that will do, the one that has less: large blocks stay.
        let (mut node, mut whole) = (1, self.whole());
        while node < words && whole > class {
            let (left, right) = (self.best[2 * node], self.best[2 * node + 1]);
            node = 2 * node + usize::from(left < class || right >= class && right < left);
            whole -= 1;
        }
        let word = (node << (whole - WHOLE_WORD)) - words;
        let granule = if class <= WHOLE_WORD {
            let places = runs(!self.used[word], wanted.granules)
                & MULTIPLES[wanted.align_order as usize];
            debug_assert!(places != 0, "an aligned block is free in the word");
            word * WORD + places.trailing_zeros() as usize
        } else {
            word * WORD
        };
        self.first[granule / WORD] |= 1 << (granule % WORD);
        self.change(granule, wanted.granules, |used, bits| used | bits);
        Some(granule * GRANULE)
    }

    /// How many bytes the object at an offset has.
    pub(crate) fn find(&self, offset: usize) -> Result<usize, NotAllocated> {
        let granule = offset / GRANULE;
        let (word, bit) = (granule / WORD, granule % WORD);
        if self.used[word] >> bit & 1 == 0 {
            return Err(NotAllocated::Free);
        }
        if !offset.is_multiple_of(GRANULE) || self.first[word] >> bit & 1 == 0 {
            return Err(NotAllocated::Inside(self.start(granule)));
        }
        Ok((self.end(granule) - granule) * GRANULE)
    }

    /// Gives the object at an offset back; answers how many bytes it had.
    pub(crate) fn free(&mut self, offset: usize) -> Result<usize, NotAllocated> {
        let bytes = self.find(offset)?;
        let granule = offset / GRANULE;
        self.first[granule / WORD] &= !(1 << (granule % WORD));
        self.change(granule, bytes / GRANULE, |used, bits| used & !bits);
        Ok(bytes)
    }

    /// Where the object ends that begins at a granule: at the next one that is free or begins another.
    fn end(&self, granule: usize) -> usize {
        let ends = |word: usize| self.first[word] | !self.used[word];
        let (mut word, bit) = (granule / WORD, granule % WORD);
        // Two shifts: by 64 there is none.
        let mut found = ends(word) & (u64::MAX << bit << 1);
        while found == 0 {
            word += 1;
            if word == self.used.len() {
                return word * WORD;
            }
            found = ends(word);
        }
        word * WORD + found.trailing_zeros() as usize
    }

    /// The offset of the object that a granule in use belongs to.
    fn start(&self, granule: usize) -> usize {
        let (mut word, bit) = (granule / WORD, granule % WORD);
        let mut found = self.first[word] & (u64::MAX >> (WORD - 1 - bit));
        while found == 0 && word > 0 {
            word -= 1;
            found = self.first[word];
        }
        (word * WORD + found.checked_ilog2().unwrap_or(0) as usize) * GRANULE
    }

    /// Changes the bits of so many granules, and what the tree says of them.
    fn change(&mut self, granule: usize, granules: usize, change: impl Fn(u64, u64) -> u64) {
        let (mut at, end) = (granule, granule + granules);
        while at < end {
            let (word, bit) = (at / WORD, at % WORD);
            let count = (WORD - bit).min(end - at);
            let bits = (u64::MAX >> (WORD - count)) << bit;
            self.used[word] = change(self.used[word], bits);
            at += count;
        }
        self.refresh(granule / WORD, (end - 1) / WORD);
    }

    /// Says of some words and of all that they are part of what is free in them.
    fn refresh(&mut self, first: usize, last: usize) {
        let words = self.used.len();
        for word in first..=last {
            self.best[words + word] = largest(!self.used[word]);
        }
        let (mut first, mut last) = (words + first, words + last);
        let mut whole = WHOLE_WORD;
        while first > 1 {
            (first, last) = (first / 2, last / 2);
            let mut same = true;
            for node in first..=last {
                let (left, right) = (self.best[2 * node], self.best[2 * node + 1]);
                let best = if left.min(right) == whole { whole + 1 } else { left.max(right) };
                same &= self.best[node] == best;
                self.best[node] = best;
            }
            if same {
                return;
            }
            whole += 1;
        }
    }

    /// Whether everything agrees: objects and their first granules, and the tree with the words.
    pub(crate) fn is_consistent(&self) -> bool {
        let words = self.used.len();
        let mut before = false;
        for (word, (used, first)) in self.used.iter().zip(self.first.iter()).enumerate() {
            // A granule in use begins an object or follows one of the same.
            let follows = used << 1 | u64::from(before);
            if first & !used != 0 || used & !first & !follows != 0 {
                return false;
            }
            before = used >> (WORD - 1) == 1;
            if self.best[words + word] != largest(!used) {
                return false;
            }
        }
        (1..words).all(|node| {
            let whole = self.whole() - 1 - node.ilog2() as u8;
            let (left, right) = (self.best[2 * node], self.best[2 * node + 1]);
            let both = left == whole && right == whole;
            self.best[node] == if both { whole + 1 } else { left.max(right) }
        })
    }
}

/// Where so many free bits begin, 1 to 64 of them.
#[inline]
fn runs(free: u64, count: usize) -> u64 {
    let (mut runs, mut length) = (free, 1);
    while length < count {
        // Two runs that overlap or touch are a longer one.
        let step = length.min(count - length);
        runs &= runs >> step;
        length += step;
    }
    runs
}

/// The class of the largest aligned block of free bits.
#[inline]
fn largest(free: u64) -> u8 {
    let (mut blocks, mut class) = (free, 0);
    while blocks != 0 {
        class += 1;
        if class == WHOLE_WORD {
            break;
        }
        blocks &= blocks >> (1 << (class - 1)) & MULTIPLES[class as usize];
    }
    class
}
