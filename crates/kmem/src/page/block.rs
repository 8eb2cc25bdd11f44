//! What a frame is part of.

use crate::Order;

/// What a frame is part of, in one byte of its descriptor.
///
/// ```text
///   7 6 5 4 3 2 1 0
///   kind  order         the order is that of the block for the first frame of one, else 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// No RAM: the descriptor is there because its neighbours' are.
    Hole,
    /// RAM that is not handed out: firmware's, the kernel image, the manager's own tables.
    Reserved,
    /// Inside a block, free or used, and not its first page.
    Interior,
    /// Inside a used compound block, and not its first page.
    Tail,
    /// The first page of a free block in a zone's free areas.
    Free(Order),
    /// The first page of a block that is out of the free areas: with a caller or on a CPU's lists.
    Used(Order),
    /// As [`Block::Used`], for a compound block (A113). Never on a CPU's lists.
    Compound(Order),
}

const KIND: u8 = 0b1110_0000;
const HOLE: u8 = 0x00;
const RESERVED: u8 = 0x20;
const INTERIOR: u8 = 0x40;
const TAIL: u8 = 0x60;
const FREE: u8 = 0x80;
const USED: u8 = 0xa0;
const COMPOUND: u8 = 0xc0;

const _: () = assert!(Order::LIMIT.get() as u8 <= !KIND);

impl Block {
    /// The byte.
    #[inline]
    pub const fn encode(self) -> u8 {
        match self {
            Block::Hole => HOLE,
            Block::Reserved => RESERVED,
            Block::Interior => INTERIOR,
            Block::Tail => TAIL,
            Block::Free(order) => FREE | order.get() as u8,
            Block::Used(order) => USED | order.get() as u8,
            Block::Compound(order) => COMPOUND | order.get() as u8,
        }
    }

    /// What the byte says. Every byte that [`Block::encode`] made is read back; others were never
    /// written and read as a hole.
    #[inline]
    pub const fn decode(byte: u8) -> Block {
        let order = match Order::new((byte & !KIND) as u32) {
            Some(order) => order,
            None => return Block::Hole,
        };
        match byte & KIND {
            RESERVED => Block::Reserved,
            INTERIOR => Block::Interior,
            TAIL => Block::Tail,
            FREE => Block::Free(order),
            USED => Block::Used(order),
            COMPOUND => Block::Compound(order),
            _ => Block::Hole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_read_back() {
        let plain = [Block::Hole, Block::Reserved, Block::Interior, Block::Tail];
        let sized = (0..Order::COUNT as u32).flat_map(|order| {
            let order = Order::new(order).unwrap();
            [Block::Free(order), Block::Used(order), Block::Compound(order)]
        });
        for block in plain.into_iter().chain(sized) {
            assert_eq!(Block::decode(block.encode()), block);
        }
    }

    #[test]
    fn a_zeroed_descriptor_is_a_hole() {
        assert_eq!(Block::decode(0), Block::Hole);
    }
}
