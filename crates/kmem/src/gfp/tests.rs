extern crate std;

use std::collections::hash_map::RandomState;
use std::format;
use std::hash::{BuildHasher, Hasher};
use std::string::{String, ToString};
use std::vec::Vec;

use super::numeric::{self, Era};
use super::*;

/// Every single flag and its name, once more and by hand: the tests' own view of the list.
const SINGLE: [(&str, Gfp); 21] = [
    ("__GFP_DMA", Gfp::DMA),
    ("__GFP_HIGHMEM", Gfp::HIGHMEM),
    ("__GFP_DMA32", Gfp::DMA32),
    ("__GFP_MOVABLE", Gfp::MOVABLE),
    ("__GFP_RECLAIMABLE", Gfp::RECLAIMABLE),
    ("__GFP_HIGH", Gfp::HIGH),
    ("__GFP_IO", Gfp::IO),
    ("__GFP_FS", Gfp::FS),
    ("__GFP_ZERO", Gfp::ZERO),
    ("__GFP_DIRECT_RECLAIM", Gfp::DIRECT_RECLAIM),
    ("__GFP_KSWAPD_RECLAIM", Gfp::KSWAPD_RECLAIM),
    ("__GFP_NOWARN", Gfp::NOWARN),
    ("__GFP_RETRY_MAYFAIL", Gfp::RETRY_MAYFAIL),
    ("__GFP_NOFAIL", Gfp::NOFAIL),
    ("__GFP_NORETRY", Gfp::NORETRY),
    ("__GFP_MEMALLOC", Gfp::MEMALLOC),
    ("__GFP_COMP", Gfp::COMP),
    ("__GFP_NOMEMALLOC", Gfp::NOMEMALLOC),
    ("__GFP_HARDWALL", Gfp::HARDWALL),
    ("__GFP_THISNODE", Gfp::THISNODE),
    ("__GFP_COLD", Gfp::COLD),
];

const TYPES: [(&str, Gfp); 11] = [
    ("GFP_ATOMIC", GFP_ATOMIC),
    ("GFP_NOWAIT", GFP_NOWAIT),
    ("GFP_NOIO", GFP_NOIO),
    ("GFP_NOFS", GFP_NOFS),
    ("GFP_KERNEL", GFP_KERNEL),
    ("GFP_USER", GFP_USER),
    ("GFP_HIGHUSER", GFP_HIGHUSER),
    ("GFP_HIGHUSER_MOVABLE", GFP_HIGHUSER_MOVABLE),
    ("GFP_DMA", GFP_DMA),
    ("GFP_DMA32", GFP_DMA32),
    ("GFP_BUFFER", GFP_BUFFER),
];

/// Every combination of the known bits, sensible or not: two million.
fn all_masks() -> impl Iterator<Item = Gfp> {
    (0..1 << SINGLE.len()).map(Gfp)
}

fn parse(text: &str) -> Result<Gfp, ParseGfpError> {
    text.parse()
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

// A093
#[test]
fn is_one_unsigned_integer_wide() {
    assert_eq!(size_of::<Gfp>(), size_of::<u32>());
    assert_eq!(Gfp::from_bits(GFP_KERNEL.bits()), Ok(GFP_KERNEL));
}

// A095, A096
#[test]
fn single_flags_are_one_bit_each_and_share_none() {
    let mut seen = Gfp::NONE;
    for (name, flag) in SINGLE {
        assert_eq!(flag.bits().count_ones(), 1, "{name}");
        assert!(!seen.intersects(flag), "{name}");
        seen |= flag;
    }
    assert_eq!(seen.bits(), Gfp::KNOWN);
}

// A097
#[test]
fn modifiers_are_joined_and_taken_apart() {
    let joined = Gfp::WAIT | Gfp::IO | Gfp::FS;
    assert_eq!(joined, GFP_KERNEL);
    assert!(joined.may_sleep() && joined.may_io() && joined.may_fs());
    assert_eq!(joined - Gfp::FS, GFP_NOFS);
    assert_eq!(joined & (Gfp::IO | Gfp::ZERO), Gfp::IO);

    let mut flags = GFP_KERNEL;
    flags |= Gfp::ZERO;
    assert!(flags.zeroed() && flags.contains(GFP_KERNEL));
    flags -= GFP_KERNEL;
    assert_eq!(flags, Gfp::ZERO);
    flags &= Gfp::IO;
    assert!(flags.is_empty());
}

// A100
#[test]
fn zone_modifiers_are_the_lowest_four_bits_with_todays_values() {
    assert_eq!([Gfp::DMA, Gfp::HIGHMEM, Gfp::DMA32, Gfp::MOVABLE].map(Gfp::bits), [1, 2, 4, 8]);
    for (name, flag) in SINGLE {
        assert_eq!(flag.zone_bits() != 0, flag.bits() < 16, "{name}");
    }
    assert_eq!((GFP_HIGHUSER_MOVABLE | Gfp::COLD).zone_bits(), 0x0a);
}

// A101
#[test]
fn wait_is_to_reclaim_oneself_and_to_wake_the_daemon() {
    assert_eq!(parse("__GFP_WAIT"), Ok(Gfp::DIRECT_RECLAIM | Gfp::KSWAPD_RECLAIM));
    assert!(Gfp::WAIT.may_sleep() && Gfp::WAIT.wakes_kswapd());
    assert!(Gfp::DIRECT_RECLAIM.may_sleep() && !Gfp::DIRECT_RECLAIM.wakes_kswapd());
    assert!(!Gfp::KSWAPD_RECLAIM.may_sleep());
}

// A107
#[test]
fn repeat_is_the_older_name_of_retry_mayfail() {
    assert_eq!(parse("KERNEL|__GFP_REPEAT"), Ok(GFP_KERNEL | Gfp::RETRY_MAYFAIL));
    assert_eq!((GFP_KERNEL | Gfp::REPEAT).to_string(), "GFP_KERNEL|__GFP_RETRY_MAYFAIL");
}

// A112, A117
#[test]
fn mobility_is_unmovable_movable_or_reclaimable() {
    assert_eq!(GFP_KERNEL.migrate_type_bits(), 0);
    assert_eq!(GFP_HIGHUSER_MOVABLE.migrate_type_bits(), 1);
    assert_eq!((GFP_KERNEL | Gfp::RECLAIMABLE).migrate_type_bits(), 2);
    for gfp in all_masks().filter(|gfp| gfp.check().is_ok()) {
        assert!(gfp.migrate_type_bits() < 3, "{gfp}");
    }
}

// A114, A115, A116, A117, A118
#[test]
fn zone_modifiers_open_the_zones_up_to_their_own() {
    use ZoneKind::*;
    for (modifiers, highest) in [
        (Gfp::NONE, Normal),
        (Gfp::DMA, Dma),
        (Gfp::DMA32, Dma32),
        (Gfp::HIGHMEM, HighMem),
        (Gfp::MOVABLE, Normal),
        (Gfp::HIGHMEM | Gfp::MOVABLE, Movable),
        (Gfp::DMA | Gfp::MOVABLE, Dma),
        (Gfp::DMA32 | Gfp::MOVABLE, Dma32),
    ] {
        assert_eq!(modifiers.highest_zone(), highest, "{modifiers}");
        assert_eq!((GFP_KERNEL | Gfp::ZERO | modifiers).highest_zone(), highest, "{modifiers}");
    }
}

// A114, A116: a mask that nobody should have let through still gives no memory that its flags
// forbid.
#[test]
fn contradicting_zones_open_only_what_each_accepts() {
    for bits in 0..16 {
        let gfp = Gfp(bits);
        for (flag, zone) in [
            (Gfp::DMA, ZoneKind::Dma),
            (Gfp::DMA32, ZoneKind::Dma32),
            (Gfp::HIGHMEM, ZoneKind::Movable),
        ] {
            assert!(!gfp.contains(flag) || gfp.highest_zone() <= zone, "{gfp}");
        }
    }
}

// A027
#[test]
fn zones_are_named_as_in_buddyinfo() {
    let names = ZoneKind::ALL.map(ZoneKind::name);
    assert_eq!(names, ["DMA", "DMA32", "Normal", "HighMem", "Movable"]);
    assert_eq!(ZoneKind::ALL.map(ZoneKind::index), [0, 1, 2, 3, 4]);
    assert_eq!(format!("[{:>8}]", ZoneKind::Normal), "[  Normal]");
}

// A119, A120, A121, A122, A123, A124, A125, A126, A127: Table 12.6 with today's changes.
#[test]
fn type_flags_are_composed_as_the_table_says() {
    let kernel = [Gfp::WAIT, Gfp::IO, Gfp::FS];
    let table: [(Gfp, &[Gfp]); 11] = [
        (GFP_ATOMIC, &[Gfp::HIGH, Gfp::KSWAPD_RECLAIM]),
        (GFP_NOWAIT, &[Gfp::KSWAPD_RECLAIM, Gfp::NOWARN]),
        (GFP_NOIO, &[Gfp::WAIT]),
        (GFP_NOFS, &[Gfp::WAIT, Gfp::IO]),
        (GFP_KERNEL, &kernel),
        (GFP_USER, &[GFP_KERNEL, Gfp::HARDWALL]),
        (GFP_HIGHUSER, &[GFP_USER, Gfp::HIGHMEM]),
        (GFP_HIGHUSER_MOVABLE, &[GFP_HIGHUSER, Gfp::MOVABLE]),
        (GFP_DMA, &[Gfp::DMA]),
        (GFP_DMA32, &[Gfp::DMA32]),
        (GFP_BUFFER, &[Gfp::WAIT, Gfp::HIGH]),
    ];
    for (flags, parts) in table {
        assert_eq!(flags, parts.iter().fold(Gfp::NONE, |all, &part| all | part));
        assert_eq!(flags.check(), Ok(()), "{flags}");
    }
}

// A119, A120, A121, A122, A123, A138
#[test]
fn type_flags_permit_what_their_users_can_bear() {
    let permits = |gfp: Gfp| (gfp.may_sleep(), gfp.may_io(), gfp.may_fs());
    for flags in [GFP_KERNEL, GFP_USER, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE] {
        assert_eq!(permits(flags), (true, true, true), "{flags}");
    }
    assert_eq!(permits(GFP_NOFS), (true, true, false));
    assert_eq!(permits(GFP_NOIO), (true, false, false));
    assert_eq!(permits(GFP_ATOMIC), (false, false, false));
    assert_eq!(permits(GFP_NOWAIT), (false, false, false));
    assert!(GFP_ATOMIC.contains(Gfp::HIGH) && !GFP_NOWAIT.contains(Gfp::HIGH));
}

// A127
#[test]
fn buffer_differs_from_every_other_type() {
    assert!(GFP_BUFFER.may_sleep() && !GFP_BUFFER.may_io());
    for (name, flags) in TYPES {
        assert_eq!(flags == GFP_BUFFER, name == "GFP_BUFFER");
    }
    assert_eq!(GFP_BUFFER - GFP_NOIO, Gfp::HIGH);
}

// A126, A133, A134
#[test]
fn dma_combines_with_kernel_and_atomic() {
    for (text, flags) in [("GFP_DMA|GFP_KERNEL", GFP_KERNEL), ("GFP_DMA | GFP_ATOMIC", GFP_ATOMIC)]
    {
        let gfp = parse(text).unwrap();
        assert_eq!(gfp, flags | GFP_DMA);
        assert_eq!(gfp.highest_zone(), ZoneKind::Dma);
        assert_eq!(gfp.may_sleep(), flags.may_sleep());
    }
}

/// The rules of [`Gfp::check`] by counting, without bit tricks.
fn is_sensible(gfp: Gfp) -> bool {
    let has = |flag| gfp.contains(flag);
    let count = |flags: [Gfp; 3]| flags.iter().filter(|&&flag| has(flag)).count();
    let one_zone = count([Gfp::DMA, Gfp::DMA32, Gfp::HIGHMEM]) <= 1;
    let one_mobility = !(has(Gfp::MOVABLE) && has(Gfp::RECLAIMABLE));
    let one_rule = count([Gfp::NOFAIL, Gfp::NORETRY, Gfp::RETRY_MAYFAIL]) <= 1;
    let reclaims = has(Gfp::DIRECT_RECLAIM) || count([Gfp::NOFAIL, Gfp::IO, Gfp::FS]) == 0;
    one_zone && one_mobility && one_rule && reclaims && (has(Gfp::IO) || !has(Gfp::FS))
}

// A108, A110, A114, A115, A116
#[test]
fn exactly_the_impossible_combinations_are_refused() {
    for gfp in all_masks() {
        assert_eq!(gfp.check().is_ok(), is_sensible(gfp), "{gfp}");
        assert_eq!(Gfp::from_bits(gfp.bits()).is_ok(), is_sensible(gfp), "{gfp}");
    }
}

// A108, A114
#[test]
fn refusals_carry_the_flags_and_say_what_to_do() {
    for (gfp, expected, text) in [
        (
            GFP_KERNEL | Gfp::DMA | Gfp::HIGHMEM,
            GfpError::TwoZones(Gfp::DMA | Gfp::HIGHMEM),
            "gfp flags GFP_DMA|__GFP_HIGHMEM name more than one zone: keep one of them",
        ),
        (
            GFP_KERNEL | Gfp::MOVABLE | Gfp::RECLAIMABLE,
            GfpError::TwoMobilities(Gfp::MOVABLE | Gfp::RECLAIMABLE),
            "gfp flags __GFP_MOVABLE|__GFP_RECLAIMABLE give a page two mobilities: keep one of \
             them",
        ),
        (
            GFP_KERNEL | Gfp::NOFAIL | Gfp::NORETRY,
            GfpError::TwoRetryRules(Gfp::NOFAIL | Gfp::NORETRY),
            "gfp flags __GFP_NOFAIL|__GFP_NORETRY are different rules for a failure: keep one of \
             them",
        ),
        (
            GFP_ATOMIC | Gfp::NOFAIL,
            GfpError::NofailWithoutReclaim(Gfp::NOFAIL),
            "gfp flag __GFP_NOFAIL waits for memory without an end but the call may not sleep: \
             add __GFP_DIRECT_RECLAIM or drop __GFP_NOFAIL",
        ),
        (
            GFP_KERNEL - Gfp::DIRECT_RECLAIM,
            GfpError::IoWithoutReclaim(Gfp::IO | Gfp::FS),
            "gfp flags __GFP_IO|__GFP_FS permit reclaim to do I/O but the call may not reclaim: \
             add __GFP_DIRECT_RECLAIM or drop __GFP_IO|__GFP_FS",
        ),
        (
            GFP_KERNEL - Gfp::IO,
            GfpError::FsWithoutIo(Gfp::FS),
            "gfp flag __GFP_FS permits filesystem calls but not the I/O that they start: add \
             __GFP_IO or drop __GFP_FS",
        ),
    ] {
        assert_eq!(gfp.check(), Err(expected), "{gfp}");
        assert_eq!(expected.to_string(), text);
        assert_eq!(parse(&gfp.to_string()), Err(ParseGfpError::Refused(expected)));
    }
}

#[test]
fn unknown_bits_are_refused() {
    for bit in SINGLE.len()..32 {
        let bits = 1 << bit;
        let refusal = GfpError::UnknownBits { bits };
        assert_eq!(Gfp::from_bits(GFP_KERNEL.bits() | bits), Err(refusal));
        assert_eq!(parse(&format!("KERNEL|{bits:#x}")), Err(ParseGfpError::Refused(refusal)));
    }
    assert_eq!(
        GfpError::UnknownBits { bits: 0x200000 }.to_string(),
        "gfp bits 0x200000 are no flags: use bits of 0x1fffff only"
    );
}

#[test]
fn rare_flags_leave_the_type_flags_to_the_fast_path() {
    for (name, flags) in TYPES {
        assert_eq!(flags.bits() & Gfp::RARE, 0, "{name}");
    }
    let neighbours = Gfp::RARE >> Gfp::RARE.trailing_zeros();
    assert!((neighbours + 1).is_power_of_two());
}

// A096: every valid mask survives being written and read.
#[test]
fn text_round_trips_for_every_valid_mask() {
    for gfp in all_masks().filter(|&gfp| is_sensible(gfp)) {
        assert_eq!(parse(&gfp.to_string()), Ok(gfp), "{gfp}");
        assert_eq!(parse(&format!("{:#X}", gfp.bits())), Ok(gfp), "{gfp}");
    }
}

// An invalid mask must be legible too, for it is what the error shows.
#[test]
fn text_names_each_flag_of_any_mask_once() {
    let flags_of = |name: &str| {
        let known = SINGLE.iter().chain(&TYPES).find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("no flag is called {name}")).1
    };
    for gfp in all_masks().filter(|gfp| !gfp.is_empty()) {
        let mut written = Gfp::NONE;
        let text = gfp.to_string();
        for name in text.split('|') {
            assert!(!written.intersects(flags_of(name)), "{gfp}");
            written |= flags_of(name);
        }
        assert_eq!(written, gfp);
    }
}

// A096
#[test]
fn text_starts_with_the_largest_type_flag() {
    for (gfp, text) in [
        (Gfp::NONE, "0"),
        (GFP_KERNEL, "GFP_KERNEL"),
        (GFP_KERNEL | Gfp::ZERO, "GFP_KERNEL|__GFP_ZERO"),
        (GFP_KERNEL | GFP_DMA, "GFP_KERNEL|GFP_DMA"),
        (GFP_ATOMIC | GFP_DMA | Gfp::NOWARN, "GFP_ATOMIC|GFP_DMA|__GFP_NOWARN"),
        (GFP_HIGHUSER_MOVABLE | Gfp::COMP, "GFP_HIGHUSER_MOVABLE|__GFP_COMP"),
        (GFP_KERNEL | Gfp::HIGH, "GFP_KERNEL|__GFP_HIGH"),
        (GFP_BUFFER, "GFP_BUFFER"),
        (Gfp::WAIT, "GFP_NOIO"),
        (Gfp::IO | Gfp::DIRECT_RECLAIM, "__GFP_IO|__GFP_DIRECT_RECLAIM"),
    ] {
        assert_eq!(gfp.to_string(), text);
        assert_eq!(format!("{gfp:?}"), format!("Gfp({text})"));
    }
}

// A096, A101 to A117, A119 to A127: every name of the texts is read, as is what people type.
#[test]
fn names_are_read_in_full_and_short_in_either_case() {
    let older = [("__GFP_WAIT", Gfp::WAIT), ("__GFP_REPEAT", Gfp::REPEAT)];
    // A flag that is refused alone is joined with what it needs.
    let company = GFP_KERNEL;
    for (name, flags) in SINGLE.iter().chain(&TYPES).chain(&older).copied() {
        let short = name.trim_start_matches("__").trim_start_matches("GFP_");
        for word in [name, short, &name.to_lowercase(), &short.to_lowercase()] {
            assert_eq!(parse(&format!("KERNEL|{word}")), Ok(company | flags), "{word}");
        }
    }
    assert_eq!(parse("  kernel|\tzero "), Ok(GFP_KERNEL | Gfp::ZERO));
    assert_eq!(parse("__GFP_WAIT | __GFP_IO | __GFP_FS"), Ok(GFP_KERNEL));
    assert_eq!(parse("0"), Ok(Gfp::NONE));
    assert_eq!(parse("None"), Ok(Gfp::NONE));
    assert_eq!(parse("atomic|0x1"), Ok(GFP_ATOMIC | GFP_DMA));
}

// A096: the underscores belong to single flags alone.
#[test]
fn prefixes_are_not_interchangeable() {
    assert_eq!(error("GFP_IO"), "unknown gfp flag \"GFP_IO\" at byte 0: did you mean __GFP_IO?");
    assert_eq!(
        error("__GFP_KERNEL"),
        "unknown gfp flag \"__GFP_KERNEL\" at byte 0: did you mean GFP_KERNEL?"
    );
}

#[test]
fn unknown_words_are_shown_with_their_place_and_the_nearest_name() {
    assert_eq!(
        error("KERNEL | NOWIAT"),
        "unknown gfp flag \"NOWIAT\" at byte 9: did you mean GFP_NOWAIT?"
    );
    assert_eq!(
        error("\u{e9}t\u{e9}|KERNEL"),
        "unknown gfp flag \"\u{e9}t\u{e9}\" at byte 0: write flags such as GFP_KERNEL|__GFP_ZERO"
    );
    assert_eq!(
        error("KERNEL,DMA"),
        "unknown gfp flag \"KERNEL,DMA\" at byte 0: write flags such as GFP_KERNEL|__GFP_ZERO"
    );
    let long = error(&("\n".to_string() + "x\u{7}".repeat(40).as_str()));
    assert!(long.contains("x\\u{7}...\" at byte 1: "), "{long}");
}

#[test]
fn one_slip_of_a_letter_still_finds_the_name() {
    for (name, _) in SINGLE.iter().chain(&TYPES).filter(|(name, _)| name.len() > 10) {
        let (prefix, short) = name.split_at(name.find("GFP_").unwrap() + 4);
        for at in 0..short.len() {
            let slip = format!("{prefix}{}?{}", &short[..at], &short[at + 1..]);
            match parse(&slip) {
                Err(ParseGfpError::UnknownWord { nearest: Some(found), .. }) => {
                    // Where one slip leads to several names, any of them will do.
                    let found = found.trim_start_matches('_').trim_start_matches("GFP_");
                    let others = found.bytes().zip(short.bytes()).filter(|(a, b)| a != b).count();
                    assert!(found.len() == short.len() && others <= 2, "{slip}: {found}");
                }
                other => panic!("{slip}: {other:?}"),
            }
        }
    }
}

#[test]
fn missing_words_and_bad_numbers_are_shown_with_their_place() {
    for (text, position) in [("", 0), ("  ", 2), ("KERNEL|", 7), ("KERNEL| |DMA", 8), ("|DMA", 0)] {
        assert_eq!(parse(text), Err(ParseGfpError::NoWord { position }), "{text:?}");
    }
    for text in ["0x", "0x1_0", "0x+1", "0x-1", "00", "12", "0x100000000", "0xg"] {
        match parse(&format!("KERNEL|{text}")) {
            Err(ParseGfpError::BadNumber { word, position: 7 }) => assert_eq!(word.as_str(), text),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(error("12"), "bad gfp bits \"12\" at byte 0: write hexadecimal such as 0x6c0");
}

#[test]
fn any_text_is_read_or_refused_in_its_place() {
    let seed = std::env::var("KMEM_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() | 1);
    std::println!("KMEM_SEED={seed}");
    let mut state = seed;
    let mut below = |limit: usize| {
        // Knuth's multiplier; the upper half is random enough for picking pieces.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let pieces =
        ["|", "|", " ", "GFP_", "__", "KERNEL", "DMA", "atomic", "0x", "1f", "\u{1f600}", "\u{0}"];
    for _ in 0..20_000 {
        let text: String = (0..below(12)).map(|_| pieces[below(pieces.len())]).collect();
        match parse(&text) {
            Ok(gfp) => assert_eq!(gfp.check(), Ok(()), "{text:?}"),
            Err(ParseGfpError::NoWord { position }) => {
                let after = text[position..].chars().next();
                assert!(matches!(after, None | Some('|')), "{text:?}");
            }
            Err(ParseGfpError::UnknownWord { word, position, .. })
            | Err(ParseGfpError::BadNumber { word, position }) => {
                assert!(text[position..].starts_with(word.as_str()), "{text:?}");
            }
            Err(ParseGfpError::Refused(_)) => {}
        }
    }
}

// A100
#[test]
fn values_of_the_texts_kernel_are_translated() {
    let texts = [0x01, 0x02, 0x04, 0x10_0000];
    let today = [0x01, 0x02, 0x04, 0x08];
    let flags = [Gfp::DMA, Gfp::HIGHMEM, Gfp::DMA32, Gfp::MOVABLE];
    for (era, values) in [(Era::Texts, texts), (Era::Today, today)] {
        for (flag, value) in flags.into_iter().zip(values) {
            assert_eq!(numeric::decode(era, value), (flag, 0));
            assert_eq!(numeric::encode(era, GFP_KERNEL | flag), value);
        }
    }
    // What the other era calls MOVABLE is no zone modifier in this one.
    assert_eq!(numeric::decode(Era::Texts, 0x0a), (Gfp::HIGHMEM, 0x08));
    assert_eq!(numeric::decode(Era::Today, 0x10_0002), (Gfp::HIGHMEM, 0x10_0000));
    let all: Vec<u32> = (0..16).map(|bits| numeric::encode(Era::Today, Gfp(bits))).collect();
    assert!(all.iter().copied().eq(0..16));
}

#[test]
fn a_fast_path_takes_exactly_the_sound_masks_without_rare_flags() {
    for bits in 0..=Gfp::KNOWN {
        let gfp = Gfp(bits);
        let plain = gfp.check().is_ok() && bits & Gfp::RARE == 0;
        assert_eq!(gfp.is_plain(), plain, "{bits:#x}");
    }
}
