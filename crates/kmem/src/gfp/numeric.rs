//! The values of the zone modifiers in two eras, for the replay of traces that hold numbers (A100).
//!
//! `MOVABLE` moved between the eras; the other three did not. Only zone modifiers are here: the
//! texts state no other flag's value. A number's remaining bits come back untranslated.
//!
//! ```
//! use kmem::Gfp;
//! use kmem::gfp::numeric::{self, Era};
//!
//! let (zone, rest) = numeric::decode(Era::Texts, 0x10_0052);
//! assert_eq!((zone, rest), (Gfp::HIGHMEM | Gfp::MOVABLE, 0x50));
//! assert_eq!(numeric::encode(Era::Today, zone), 0x0a);
//! ```

use super::Gfp;

/// Whose numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// The texts' kernel, Linux 2.6.24.
    Texts,
    /// Linux 6.x.
    Today,
}

/// One zone modifier and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneModifier {
    /// The flag.
    pub flag: Gfp,
    /// Its value in the texts' kernel.
    pub texts: u32,
    /// Its value today.
    pub today: u32,
}

impl ZoneModifier {
    /// The flag's value in that era.
    pub const fn value(&self, era: Era) -> u32 {
        match era {
            Era::Texts => self.texts,
            Era::Today => self.today,
        }
    }
}

/// The zone modifiers' values (A100).
pub const ZONE_MODIFIERS: [ZoneModifier; 4] = [
    ZoneModifier { flag: Gfp::DMA, texts: 0x01, today: 0x01 },
    ZoneModifier { flag: Gfp::HIGHMEM, texts: 0x02, today: 0x02 },
    ZoneModifier { flag: Gfp::DMA32, texts: 0x04, today: 0x04 },
    ZoneModifier { flag: Gfp::MOVABLE, texts: 0x10_0000, today: 0x08 },
];

/// Splits a mask that a kernel of that era has written into its zone modifiers and the bits that
/// are left.
pub fn decode(era: Era, value: u32) -> (Gfp, u32) {
    ZONE_MODIFIERS
        .iter()
        .filter(|modifier| value & modifier.value(era) != 0)
        .fold((Gfp::NONE, value), |(flags, rest), modifier| {
            (flags | modifier.flag, rest & !modifier.value(era))
        })
}

/// The number that a kernel of that era has for the zone modifiers of `flags`; other flags are
/// left out.
pub fn encode(era: Era, flags: Gfp) -> u32 {
    ZONE_MODIFIERS
        .iter()
        .filter(|modifier| flags.contains(modifier.flag))
        .fold(0, |value, modifier| value | modifier.value(era))
}
