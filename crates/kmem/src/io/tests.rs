//! Accesses beside plain slices.

use core::ptr::NonNull;
use std::vec::Vec;

use super::{IoError, IoPtr, IoRange, Registers};

#[repr(align(8))]
struct Bytes([u8; 64]);

/// A range over memory of the test's own, `skip` bytes behind an aligned address.
fn range(bytes: &mut Bytes, skip: usize, size: usize) -> IoRange {
    assert!(skip + size <= bytes.0.len());
    // SAFETY: the bytes are there, and used through the range alone while it is.
    unsafe { IoPtr::new(NonNull::from(&mut bytes.0[skip])).range(size) }
}

#[test]
// A243
fn each_width_is_read_and_written_little_endian() {
    let mut bytes = Bytes(core::array::from_fn(|index| index as u8));
    let io = range(&mut bytes, 0, 64);
    assert_eq!(io.readb(3), Ok(3));
    assert_eq!(io.readw(2), Ok(0x0302));
    assert_eq!(io.readl(4), Ok(0x0706_0504));
    assert_eq!(io.readq(8), Ok(0x0f0e_0d0c_0b0a_0908));
    assert_eq!(io.readl_relaxed(4), io.readl(4));
    io.writeb(0xaa, 1).unwrap();
    io.writew(0xbbcc, 6).unwrap();
    io.writel(0x1122_3344, 12).unwrap();
    io.writeq_relaxed(0x8877_6655_4433_2211, 16).unwrap();
    assert_eq!((io.read32(12), io.write64(7, 24)), (Ok(0x1122_3344), Ok(())));
    assert_eq!(bytes.0[..8], [0, 0xaa, 2, 3, 4, 5, 0xcc, 0xbb]);
    assert_eq!(bytes.0[12..20], [0x44, 0x33, 0x22, 0x11, 0x11, 0x22, 0x33, 0x44]);
    assert_eq!(bytes.0[24..33], [7, 0, 0, 0, 0, 0, 0, 0, 32]);
}

#[test]
// A243
fn accesses_outside_and_misaligned_ones_are_refused_and_do_nothing() {
    let mut bytes = Bytes([9; 64]);
    let io = range(&mut bytes, 8, 40);
    for offset in [37, 38, 40, 41, usize::MAX - 3, usize::MAX] {
        let outside = Err(IoError::Outside { offset, width: 4, size: 40 });
        assert_eq!(io.readl(offset), outside);
        assert_eq!(io.writel(0, offset), outside.map(drop));
    }
    for offset in [1, 2, 3, 5] {
        let misaligned = Err(IoError::Misaligned { offset, width: 4 });
        assert_eq!(io.writel(0, offset), misaligned);
    }
    assert_eq!(io.writeq(0, 4), Err(IoError::Misaligned { offset: 4, width: 8 }));
    assert!(io.memset_io(1, 0, 40).is_err() && io.memset_io(41, 0, 0).is_err());
    assert!(io.memcpy_toio(usize::MAX, &[0; 8]).is_err());
    let mut out = [7; 41];
    assert!(io.memcpy_fromio(&mut out, 0).is_err());
    assert!(io.memset_io(40, 0, 0).is_ok());
    assert!(bytes.0 == [9; 64] && out == [7; 41]);
    let text = std::format!("{}", IoError::Outside { offset: 0x40, width: 4, size: 0x40 });
    assert_eq!(text, "4 bytes at offset 0x40 of registers that have 0x40");
}

#[test]
// A243
fn copies_are_those_of_slices_wherever_they_begin_and_end() {
    let stamp = |index: usize| (index * 37 + 1) as u8;
    for start in 0..10 {
        for length in 0..40 {
            let mut bytes = Bytes([0; 64]);
            let mut model = [0; 64];
            let from: Vec<u8> = (0..length).map(stamp).collect();
            let io = range(&mut bytes, 3, 61);
            io.memcpy_toio(start, &from).unwrap();
            model[3 + start..3 + start + length].copy_from_slice(&from);
            let mut back = std::vec![0; length];
            io.memcpy_fromio(&mut back, start).unwrap();
            assert_eq!(back, from);
            io.memset_io(start + length / 2, 0xee, length / 3).unwrap();
            model[3 + start + length / 2..][..length / 3].fill(0xee);
            assert_eq!(bytes.0, model, "{length} bytes at {start}");
        }
    }
}
