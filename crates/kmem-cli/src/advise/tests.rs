//! The whole grid of needs: what must hold for every answer and every refusal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use kmem::Gfp;
use kmem_host::Description;

use super::Args;
use super::advice::{Advice, ids_in};
use super::decide::{answer, decide};
use super::limits::Limits;
use super::need::{Context, Contiguity, Lifetime, Need, Purpose};
use super::remedy::Refusal;

/// What allocates, with what frees it.
const PAIRS: [(&str, &str); 19] = [
    ("a local variable", "nothing"),
    ("DEFINE_PER_CPU", "nothing"),
    ("alloc_percpu", "free_percpu"),
    ("alloc_bootmem", "memblock_free"),
    ("alloc_bootmem_low", "memblock_free"),
    ("alloc_bootmem_pages", "memblock_free"),
    ("alloc_bootmem_low_pages", "memblock_free"),
    ("alloc_page", "__free_page"),
    ("alloc_pages", "__free_pages"),
    ("dma_alloc_coherent", "dma_free_coherent"),
    ("kmem_cache_alloc", "kmem_cache_free"),
    ("kmalloc", "kfree"),
    ("__get_free_page", "free_page"),
    ("__get_free_pages", "free_pages"),
    ("bigphysarea_alloc_pages", "bigphysarea_free_pages"),
    ("kvmalloc", "kvfree"),
    ("vmalloc", "vfree"),
    // What makes a page of high memory usable; it is freed with the page.
    ("kmap", "kunmap"),
    ("kmap_atomic", "kunmap_atomic"),
];

/// Calls that kmem does not have so far. They come with their subjects: boot-time memory, high
/// memory, data of each CPU, DMA.
const TO_COME: [&str; 20] = [
    "DEFINE_PER_CPU",
    "__alloc_percpu",
    "alloc_bootmem",
    "alloc_bootmem_low",
    "alloc_bootmem_low_pages",
    "alloc_bootmem_pages",
    "alloc_percpu",
    "bigphysarea_alloc_pages",
    "bigphysarea_free_pages",
    "dma_alloc_coherent",
    "dma_free_coherent",
    "free_percpu",
    "get_cpu_var",
    "kmap",
    "kmap_atomic",
    "kmap_local_page",
    "kunmap",
    "kunmap_atomic",
    "memblock_free",
    "put_cpu_var",
];

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A file of the repository.
fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn machines() -> Vec<Limits> {
    let presets = ["tiny", "default", "ldd2-i386", "lkd-i386", "x86_64"];
    let machine = |name| Limits::of(&Description::preset(name).unwrap());
    let mut machines: Vec<Limits> = presets.map(machine).into();
    let mut large_pages = Description::preset("default").unwrap();
    large_pages.set("page_shift=16").unwrap();
    machines.push(Limits::of(&large_pages));
    machines.push(Limits::of(&Description::preset("holes").unwrap()));
    // A command line that leaves less, and few addresses for mappings.
    let mut less = Description::preset("default").unwrap();
    less.set("command_line=mem=64M bigphysarea=512").unwrap();
    less.set("mapping_area=1M").unwrap();
    machines.push(Limits::of(&less));
    machines
}

/// Calls `look` with every need of the grid and what is advised.
fn each(mut look: impl FnMut(&Need, &Limits, &Result<Advice, Refusal>)) {
    each_need(|need, machine| look(need, machine, &decide(need, machine)));
}

/// Calls `look` with every need of the grid.
fn each_need(mut look: impl FnMut(&Need, &Limits)) {
    const SIZES: [u64; 14] = [
        1,
        200,
        201,
        2048,
        2049,
        4000,
        4096,
        4097,
        8192,
        12_288,
        131_073,
        4 << 20,
        16 << 20,
        100 << 20,
    ];
    let mut purposes = vec![Purpose::Software, Purpose::User, Purpose::High, Purpose::PerCpu];
    for bits in [20, 24, 30, 32, 64] {
        purposes.extend([false, true].map(|coherent| Purpose::Dma { bits, coherent }));
    }
    for machine in machines() {
        for size in SIZES {
            for count in [1, 99, 100] {
                for &context in Context::value_variants() {
                    for &purpose in &purposes {
                        for &contiguity in Contiguity::value_variants() {
                            for &lifetime in Lifetime::value_variants() {
                                let need =
                                    Need { size, count, context, purpose, contiguity, lifetime };
                                look(&need, &machine);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Calls `look` with every answer of the grid.
fn each_advice(mut look: impl FnMut(&Need, &Limits, &Advice)) {
    let mut seen = 0;
    // The remedies of refusals are tried elsewhere.
    each_need(|need, machine| {
        if let Ok(advice) = answer(need, machine) {
            seen += 1;
            look(need, machine, &advice);
        }
    });
    assert!(seen > 10_000, "{seen}");
}

/// The name of a call.
fn name(call: &str) -> &str {
    call.split('(').next().unwrap_or_default()
}

/// The names of the calls in a text: what stands before a bracket, or the text itself.
fn names_in(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = text.match_indices('(').map(|(at, _)| &text[..at]);
    let last_word = |part: &str| {
        let start = part.rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
        part[start..].to_owned()
    };
    let whole = text.chars().all(is_part).then(|| text.to_owned());
    before.map(last_word).chain(whole).filter(|name| !name.is_empty()).collect()
}

fn is_atomic(context: Context) -> bool {
    !context.may_sleep() && context != Context::Boot
}

/// A130, A131, A132, A133, A134, A135, A141
#[test]
fn flags_are_those_of_the_context() {
    each_advice(|need, _, advice| {
        let told = format!("{need:?}: {advice:?}");
        let Some(flags) = advice.flags else {
            // What takes no flags asks with GFP_KERNEL, or happens while the kernel is built or booted.
            let sleeps = ["vmalloc", "alloc_percpu"].contains(&name(&advice.call));
            assert!(!sleeps || need.context == Context::Task, "{told}");
            return;
        };
        assert_eq!(flags.check(), Ok(()), "{told}");
        assert!(advice.call.contains(&flags.to_string()), "{told}");
        let zones = Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE;
        let expected = match (need.context, need.purpose) {
            (Context::Task, Purpose::User) => Gfp::USER | Gfp::ZERO,
            (Context::Task, _) => Gfp::KERNEL,
            (Context::Locked | Context::Interrupt | Context::Nmi, _) => Gfp::ATOMIC,
            (Context::BlockIo, _) => Gfp::NOIO,
            (Context::Filesystem, _) => Gfp::NOFS,
            (Context::Boot, _) => panic!("{told}"),
        };
        assert_eq!(flags - zones, expected, "{told}");
        assert!(!is_atomic(need.context) || !flags.may_sleep(), "{told}");
    });
}

/// Nothing that sleeps is called where sleeping is a bug.
#[test]
fn nothing_that_sleeps_is_advised_in_atomic_context() {
    each_advice(|need, _, advice| {
        if is_atomic(need.context) {
            let then = advice.then.as_deref().and_then(|then| then.strip_prefix("address = "));
            for call in [Some(advice.call.as_str()), then].into_iter().flatten() {
                let sleeps = ["vmalloc", "kvmalloc", "alloc_percpu", "kmem_cache_create", "kmap"];
                assert!(!sleeps.contains(&name(call)), "{need:?}: {advice:?}");
            }
        }
    });
}

/// A336
#[test]
fn a_device_gets_contiguous_memory_that_it_reaches() {
    let mut zones = BTreeSet::new();
    each_advice(|need, machine, advice| {
        let Purpose::Dma { bits, .. } = need.purpose else { return };
        let told = format!("{need:?} on {}: {advice:?}", machine.name);
        let call = name(&advice.call);
        assert!(
            !["vmalloc", "kvmalloc", "alloc_page", "a local variable"].contains(&call),
            "{told}"
        );
        assert_ne!(need.contiguity, Contiguity::Virtual, "{told}");
        let by_zone =
            ["kmalloc", "kmem_cache_alloc", "__get_free_page", "__get_free_pages"].contains(&call);
        if let (true, Some(flags)) = (by_zone, advice.flags) {
            let part = match flags & (Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE) {
                Gfp::DMA => machine.dma.unwrap(),
                Gfp::DMA32 => machine.dma32.unwrap(),
                Gfp::NONE => machine.low,
                _ => panic!("{told}"),
            };
            assert!(bits == 64 || part.end <= 1 << bits, "{told}");
            assert!(need.size <= part.bytes, "{told}");
            // A115: kmalloc and the caches have no memory of DMA32.
            assert!(!flags.contains(Gfp::DMA32) || call.starts_with("__get_free"), "{told}");
            zones.insert(flags.bits() & (Gfp::DMA | Gfp::DMA32).bits());
        }
    });
    assert_eq!(zones.len(), 3);
}

/// A331, A332, A333, A335
#[test]
fn memory_is_what_was_asked_for() {
    each_advice(|need, machine, advice| {
        let told = format!("{need:?} on {}: {advice:?}", machine.name);
        let call = name(&advice.call);
        let at_boot = call.starts_with("alloc_bootmem");
        let early = at_boot || ["DEFINE_PER_CPU", "a local variable"].contains(&call);
        assert!(early || need.context != Context::Boot, "{told}");
        assert!(!at_boot || need.context == Context::Boot, "{told}");
        let scattered = ["vmalloc", "kvmalloc"].contains(&call)
            || call == "alloc_page" && need.size > machine.page;
        assert!(!scattered || need.contiguity != Contiguity::Physical, "{told}");
        assert!(!["vmalloc", "kvmalloc"].contains(&call) || need.size > machine.page, "{told}");
        // What needs no contiguous frames, or has them from boot.
        let beyond = at_boot
            || ["vmalloc", "kvmalloc", "alloc_page", "bigphysarea_alloc_pages", "DEFINE_PER_CPU"]
                .contains(&call);
        assert!(beyond || need.size <= machine.block, "{told}");
        assert!(need.size * need.count <= machine.ram, "{told}");
        let high = advice.flags.is_some_and(|flags| flags.contains(Gfp::HIGHMEM));
        assert!(!high || ["alloc_page", "alloc_pages"].contains(&call), "{told}");
        assert_eq!(
            advice.then.is_some(),
            high && need.purpose == Purpose::High || need.purpose == Purpose::PerCpu,
            "{told}"
        );
        if let Some((_, order)) =
            advice.call.strip_suffix(')').and_then(|call| call.rsplit_once(", "))
            && ["__get_free_pages", "alloc_pages"].contains(&call)
        {
            let order: u32 = order.parse().unwrap();
            let bytes = machine.page << order;
            assert!(bytes >= need.size && bytes / 2 < need.size, "{told}");
        }
    });
}

/// A062, A143, A162: each piece is given back by the call that belongs to it, with the same order.
#[test]
fn every_call_has_what_frees_it() {
    let mut met = BTreeSet::new();
    each_advice(|need, machine, advice| {
        let told = format!("{need:?}: {advice:?}");
        let then = advice.then.as_deref().and_then(|then| then.strip_prefix("address = "));
        for call in [Some(advice.call.as_str()), then].into_iter().flatten() {
            let pair = PAIRS.iter().find(|(get, _)| *get == name(call));
            let (get, free) = pair.unwrap_or_else(|| panic!("{call}: {told}"));
            met.insert(*get);
            // A252: it stays.
            let stays = machine.keeps_boot_memory && call.starts_with("alloc_bootmem");
            let free = if stays { &"nothing" } else { free };
            let frees = advice.free.split([',', ' ', '(', ':']);
            assert_eq!(frees.filter(|word| word == free).count(), 1, "{told}");
        }
        if let Some((_, order)) =
            advice.call.split_once("pages(").and_then(|(_, rest)| rest.rsplit_once(", "))
            && advice.call.contains("get_free_pages")
        {
            assert!(advice.free.ends_with(&format!(", {order}")), "{told}");
        }
        let handled = advice.mind.iter().any(|sentence| sentence.contains("A143"));
        assert_eq!(handled, !advice.free.starts_with("nothing"), "{told}");
    });
    assert_eq!(met.len(), PAIRS.len(), "{met:?}");
}

/// A331, A332, A333, A334, A335, A336: what is said rests on statements that there are, and the
/// page that says the same names them all, and every call.
#[test]
fn every_answer_rests_on_statements_that_the_page_names() {
    let acceptance: BTreeSet<String> = ids_in(&file("docs/acceptance.md")).collect();
    let page = file("docs/choosing.md");
    let on_page: BTreeSet<String> = ids_in(&page).collect();
    let mut named = BTreeSet::new();
    each_advice(|need, _, advice| {
        for sentence in &advice.why {
            assert!(ids_in(sentence).next().is_some(), "{need:?}: {sentence}");
        }
        assert!(!advice.why.is_empty(), "{need:?}: {advice:?}");
        named.extend(advice.ids());
    });
    let strange: Vec<&String> = named.difference(&acceptance).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let missing: Vec<&String> = named.difference(&on_page).collect();
    assert!(missing.is_empty(), "docs/choosing.md does not name {missing:?}");
    for id in 331..=336 {
        assert!(named.contains(&format!("A{id}")), "A{id}");
    }
    for (get, free) in PAIRS {
        assert!(page.contains(get), "{get}");
        assert!(free == "nothing" || page.contains(&format!("`{free}")), "{free}");
    }
}

/// All sources in a folder and those below it.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| {
        if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() }
    };
    entries.map(text).collect()
}

/// Every call is one that kmem has under the texts' name, or will have.
#[test]
fn only_calls_are_advised_that_there_are() {
    let kmem = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kmem/src/mm")));
    let mut calls = BTreeSet::new();
    each_advice(|_, _, advice| {
        for text in advice.calls() {
            calls.extend(names_in(text));
        }
    });
    assert!(calls.contains("kmem_cache_create") && calls.contains("kfree"), "{calls:?}");
    for call in &calls {
        let there = kmem.contains(&format!("pub fn {call}("))
            || kmem.contains(&format!("pub unsafe fn {call}("));
        let is_flag = call.starts_with("GFP_") && call.parse::<Gfp>().is_ok();
        assert!(there || is_flag || TO_COME.contains(&call.as_str()), "{call}");
    }
}

#[test]
fn answers_fit_a_terminal_and_refusals_are_one_line_that_says_what_to_do() {
    let mut lines = BTreeSet::new();
    let mut refusals = BTreeSet::new();
    each(|_, _, result| match result {
        Ok(advice) => {
            let text = anstream::adapter::strip_str(&advice.to_text()).to_string();
            lines.extend(text.lines().map(str::to_owned));
        }
        Err(refusal) => {
            refusals.insert(refusal.to_string());
        }
    });
    for line in &lines {
        assert!(line.chars().count() <= 100 && line.trim_end() == line, "{line}");
    }
    assert!(refusals.len() > 20);
    for line in &refusals {
        assert!(line.len() < 240 && !line.contains('\n'), "{line}");
        assert!(!line.starts_with(char::is_uppercase) && !line.contains("  "), "{line}");
        assert!(!line.contains("0x"), "{line}");
        let does = ["give ", "ask for less", "allocate ", "keep an array", "take "];
        assert!(does.iter().any(|what| line.contains(what)), "{line}");
    }
}

/// Whoever does what a refusal says gets an answer: other options, or another machine.
#[test]
fn every_remedy_leads_to_an_answer() {
    let (mut followed, mut told) = (0, BTreeSet::new());
    each(|need, machine, result| {
        let Err(refusal) = result else { return };
        let line = refusal.to_string();
        assert!(!refusal.remedies.is_empty(), "{need:?} on {}: {line}", machine.name);
        for remedy in &refusal.remedies {
            let advice = remedy.follow(machine);
            assert!(advice.is_some(), "{need:?} on {}: {line}: {remedy:?}", machine.name);
            followed += 1;
        }
        // What is told is what was followed, and of each option what it takes.
        for option in line.split_once("; give ").unwrap().1.split("--").skip(1) {
            told.insert(option.split(' ').next().unwrap().to_owned());
        }
    });
    assert!(followed > 10_000, "{followed}");
    for option in ["size", "context", "contiguity", "lifetime", "mem", "set", "dma"] {
        assert!(told.contains(option), "{option}: {told:?}");
    }
}

/// What the command line and the machine leave counts, not what RAM there is.
#[test]
fn a_machine_has_what_its_command_line_and_its_regions_leave() {
    let of = |machine: &str, settings: &[&str]| {
        let mut machine = Description::preset(machine).unwrap();
        settings.iter().for_each(|setting| machine.set(setting).unwrap());
        Limits::of(&machine)
    };
    let (context, contiguity, lifetime) = (Context::Task, Contiguity::Any, Lifetime::Long);
    let plain =
        |size| Need { size, count: 1, context, purpose: Purpose::Software, contiguity, lifetime };
    let refused = |need: &Need, machine: &Limits| decide(need, machine).unwrap_err().to_string();
    // mem=
    let less = of("default", &["command_line=mem=512M"]);
    let line = refused(&plain(600 << 20), &less);
    assert!(line.contains("of RAM of machine default"), "{line}");
    // bigphysarea=, and what the tables take of 1 GiB.
    let aside = of("default", &["command_line=bigphysarea=65536"]);
    let line = refused(&plain(800 << 20), &aside);
    assert!(line.contains("leaves of the 1048192K"), "{line}");
    assert!(decide(&plain(700 << 20), &aside).is_ok());
    // The longest piece at boot lies between two holes.
    let boot = |size| Need { context: Context::Boot, ..plain(size) };
    let holes = of("holes", &[]);
    let line = refused(&boot(150 << 20), &holes);
    assert!(line.contains("the longest free piece of memory"), "{line}");
    // A guard page, and the window of kmap, a quarter of so few addresses.
    let few = of("default", &["mapping_area=16M"]);
    assert_eq!(few.largest_area, (12 << 20) - 4096);
    let virt = |size| Need { contiguity: Contiguity::Virtual, ..plain(size) };
    assert!(decide(&virt(few.largest_area), &few).is_ok());
    let line = refused(&virt(few.largest_area + 1), &few);
    assert!(line.contains("the largest area that vmalloc has"), "{line}");
    // What stays is not freed.
    let kept = decide(&boot(100), &of("default", &["keep_boot_memory=true"])).unwrap();
    assert!(kept.free.starts_with("nothing"), "{kept:?}");
    // What is set aside already needs no other command line; and a device must reach it.
    let forever =
        Need { contiguity: Contiguity::Physical, lifetime: Lifetime::Forever, ..plain(8 << 20) };
    let has = of("default", &["command_line=bigphysarea=2048"]);
    assert_eq!(decide(&forever, &has).unwrap().before, None);
    let more = decide(&forever, &of("default", &[])).unwrap().before.unwrap();
    assert!(more.starts_with("bigphysarea=2048 "), "{more}");
    let device = Need { purpose: Purpose::Dma { bits: 20, coherent: false }, ..forever };
    assert!(decide(&device, &of("default", &["dma_limit=1M"])).is_err());
}

/// The options that stand for a need are read back as that need.
#[test]
fn needs_are_written_as_options_and_read_back() {
    let mut seen = BTreeSet::new();
    each_need(|need, machine| {
        let options = need.options();
        // Once each: the machine is not a part of it.
        if machine.name == "tiny" && seen.insert(options.clone()) {
            let line = ["advise".to_owned()].into_iter().chain(options);
            let read = Cli::try_parse_from(line).unwrap().args.need().unwrap();
            assert_eq!(&read, need);
        }
    });
    assert!(seen.len() > 1000);
}
