//! Which offsets of a chunk are allocated.

/// How many granules a word of the map describes.
const WORD: usize = u64::BITS as usize;

/// The most words of a map: a bit of one word says something of each.
const MOST_WORDS: usize = u64::BITS as usize;

/// The class of a word that is free as a whole. A class is the order of an aligned block, in granules,
/// plus one; 0 is no block.
const WHOLE_WORD: u8 = 7;

const _: () = assert!(1 << (WHOLE_WORD - 1) == WORD);

/// How many classes a map can have: those of a word, and those of several words that are free as a whole.
pub(super) const CLASSES: usize = WHOLE_WORD as usize + MOST_WORDS.ilog2() as usize + 1;

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

/// How a page is cut: the base-two logarithm of the granule, what an object's size is rounded up to, and
/// how many words describe the page.
///
/// A granule is 8 bytes, which most per-CPU data is; more only where a page has more than 4096 of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(super) shift: u8,
    pub(super) words: u8,
}

impl Cut {
    /// For pages of so many bytes: a power of two, and at least 512.
    pub(crate) const fn new(page: usize) -> Cut {
        let most = (MOST_WORDS * WORD).ilog2();
        let shift = if page.ilog2() > 3 + most { page.ilog2() - most } else { 3 };
        Cut { shift: shift as u8, words: ((page >> shift) / WORD) as u8 }
    }

    /// The class of a page where everything is free.
    pub(crate) const fn whole(self) -> u8 {
        WHOLE_WORD + self.words.ilog2() as u8
    }
}

/// A request: how many granules, at a multiple of how many.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    granules: usize,
    align_order: u32,
    shift: u8,
}

impl Wanted {
    /// For so many bytes, not 0, at a multiple of so many, a power of two. `None` where a page of so many
    /// bytes cannot have that.
    #[inline]
    pub(crate) fn new(size: usize, align: usize, page: usize) -> Option<Wanted> {
        if size == 0 || size > page || !align.is_power_of_two() || align > page {
            return None;
        }
        let Cut { shift, .. } = Cut::new(page);
        let align_order = align.trailing_zeros().saturating_sub(shift.into());
        Some(Wanted { granules: ((size - 1) >> shift) + 1, align_order, shift })
    }

    /// How many bytes it takes.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        self.granules << self.shift
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

/// For each class of a word, which words have a free block of it.
pub(crate) type Rooms = [u64; WHOLE_WORD as usize];

/// The map of one chunk.
///
/// # Invariants
///
/// `used` has a bit for each granule of an object, `first` for the first of each; both have as many words
/// as `cut` says. `classes` has the class of the largest aligned block that is free in each word, and bit
/// `w` of `rooms[c - 1]` says whether that of word `w` is `c` or more.
pub(crate) struct Map<'m> {
    cut: Cut,
    rooms: &'m mut Rooms,
    used: &'m mut [u64],
    first: &'m mut [u64],
    classes: &'m mut [u8],
    /// Whether the class of a word has changed.
    changed: bool,
}

impl<'m> Map<'m> {
    /// A map whose parts [`Map::init`] has made: as many of each as there are words.
    #[inline]
    pub(crate) fn new(
        cut: Cut,
        rooms: &'m mut Rooms,
        used: &'m mut [u64],
        first: &'m mut [u64],
        classes: &'m mut [u8],
    ) -> Map<'m> {
        Map { cut, rooms, used, first, classes, changed: false }
    }

    /// Makes everything free.
    pub(crate) fn init(&mut self) {
        self.used.fill(0);
        self.first.fill(0);
        self.classes.fill(WHOLE_WORD);
        self.rooms.fill(u64::MAX >> (MOST_WORDS - usize::from(self.cut.words)));
    }

    /// The class of the largest block that is free; 0 for none.
    #[inline]
    pub(crate) fn class(&self) -> u8 {
        match self.rooms[usize::from(WHOLE_WORD - 1)] {
            0 => self.rooms.iter().filter(|words| **words != 0).count() as u8,
            // Words that are free as a whole are to a block of them as granules are to one in a word.
            words => WHOLE_WORD - 1 + largest(words),
        }
    }

    /// The class, where it may have changed since the map was made of its parts: mostly it has not.
    #[inline]
    pub(crate) fn new_class(&self) -> Option<u8> {
        if self.changed { Some(self.class()) } else { None }
    }

    /// Takes what is wanted: its offset, in bytes. `None` where no aligned block proves that there is
    /// room.
    #[inline]
    pub(crate) fn alloc(&mut self, wanted: Wanted) -> Option<usize> {
        let class = wanted.class();
        let granule = if class <= WHOLE_WORD {
            let words = self.rooms[usize::from(class - 1)];
            if words == 0 {
                return None;
            }
            let word = words.trailing_zeros() as usize;
            let places = runs(!self.used[word], wanted.granules);
            word * WORD
                + (places & MULTIPLES[wanted.align_order as usize]).trailing_zeros() as usize
        } else {
            let words =
                runs(self.rooms[usize::from(WHOLE_WORD - 1)], wanted.granules.div_ceil(WORD));
            let align_order = wanted.align_order.saturating_sub(WORD.ilog2());
            let places = words & MULTIPLES.get(align_order as usize)?;
            if places == 0 {
                return None;
            }
            places.trailing_zeros() as usize * WORD
        };
        self.first[granule / WORD] |= 1 << (granule % WORD);
        self.change(granule, wanted.granules, |used, bits| used | bits);
        Some(granule << self.cut.shift)
    }

    /// How many bytes the object at an offset has.
    #[inline]
    pub(crate) fn find(&self, offset: usize) -> Result<usize, NotAllocated> {
        let granule = offset >> self.cut.shift;
        let (word, bit) = (granule / WORD, granule % WORD);
        if self.used[word] >> bit & 1 == 0 {
            return Err(NotAllocated::Free);
        }
        if granule << self.cut.shift != offset || self.first[word] >> bit & 1 == 0 {
            return Err(NotAllocated::Inside(self.start(granule)));
        }
        Ok((self.end(granule) - granule) << self.cut.shift)
    }

    /// Gives the object at an offset back; answers how many bytes it had.
    #[inline]
    pub(crate) fn free(&mut self, offset: usize) -> Result<usize, NotAllocated> {
        let bytes = self.find(offset)?;
        let granule = offset >> self.cut.shift;
        self.first[granule / WORD] &= !(1 << (granule % WORD));
        self.change(granule, bytes >> self.cut.shift, |used, bits| used & !bits);
        Ok(bytes)
    }

    /// Where the object ends that begins at a granule: at the next one that is free or begins another.
    #[inline]
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
        (word * WORD + found.checked_ilog2().unwrap_or(0) as usize) << self.cut.shift
    }

    /// Changes the bits of so many granules, and what is said of their words.
    #[inline]
    fn change(&mut self, granule: usize, granules: usize, change: impl Fn(u64, u64) -> u64) {
        let mut within = |word: usize, bit: usize, count: usize| {
            let bits = (u64::MAX >> (WORD - count)) << bit;
            let used = change(self.used[word], bits);
            self.used[word] = used;
            self.classify(word, largest(!used));
        };
        let (mut word, bit) = (granule / WORD, granule % WORD);
        let mut left = granules;
        let first = left.min(WORD - bit);
        within(word, bit, first);
        left -= first;
        while left > 0 {
            word += 1;
            let count = left.min(WORD);
            within(word, 0, count);
            left -= count;
        }
    }

    /// Says which class a word has.
    #[inline]
    fn classify(&mut self, word: usize, class: u8) {
        let before = core::mem::replace(&mut self.classes[word], class);
        if before == class {
            return;
        }
        self.changed = true;
        for rooms in &mut self.rooms[before.min(class).into()..before.max(class).into()] {
            *rooms ^= 1 << word;
        }
    }

    /// Whether everything agrees: objects and their first granules, and what is said of words with them.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut before = false;
        let mut words = self.used.iter().zip(self.first.iter()).enumerate();
        words.all(|(word, (used, first))| {
            // A granule in use begins an object or follows one of the same.
            let follows = used << 1 | u64::from(before);
            before = used >> (WORD - 1) == 1;
            let class = largest(!used);
            let rooms = self.rooms.iter().zip(1..);
            first & !used == 0
                && used & !first & !follows == 0
                && self.classes[word] == class
                && rooms.clone().all(|(rooms, of)| (rooms >> word & 1 == 1) == (class >= of))
        }) && self.rooms[0].checked_ilog2().is_none_or(|word| word < self.cut.words.into())
    }
}

/// Where so many set bits begin, 1 to 64 of them.
#[inline]
fn runs(bits: u64, count: usize) -> u64 {
    let (mut runs, mut length) = (bits, 1);
    while length < count {
        // Two runs that overlap or touch are a longer one.
        let step = length.min(count - length);
        runs &= runs >> step;
        length += step;
    }
    runs
}

/// The class of the largest aligned block of set bits.
#[inline]
fn largest(bits: u64) -> u8 {
    let two = bits & bits >> 1 & MULTIPLES[1];
    let four = two & two >> 2 & MULTIPLES[2];
    let eight = four & four >> 4 & MULTIPLES[3];
    let sixteen = eight & eight >> 8 & MULTIPLES[4];
    let half = sixteen & sixteen >> 16 & MULTIPLES[5];
    let all = half & half >> 32 & MULTIPLES[6];
    // No branch: which of them there are is different every time.
    [bits, two, four, eight, sixteen, half, all].iter().map(|blocks| u8::from(*blocks != 0)).sum()
}
