use super::*;

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

fn preset(name: &str) -> Description {
    Description::preset(name).unwrap_or_else(|error| panic!("{error}"))
}

fn error(result: Result<(), DescriptionError>) -> String {
    let text = result.expect_err("it was accepted").to_string();
    assert!(!text.contains('\n'), "not one line: {text}");
    text
}

#[test]
fn every_preset_is_read_checked_and_bears_its_file_s_name() {
    let presets: Vec<_> = Description::presets().collect();
    assert_eq!(presets.len(), PRESETS.len());
    for (description, (name, text)) in presets.iter().zip(PRESETS) {
        assert_eq!(description.name, name);
        assert_eq!(Description::from_toml(text).as_ref(), Ok(description));
        description.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!description.about.is_empty());
    }
}

#[test]
fn the_text_form_of_every_preset_is_read_back() {
    for description in Description::presets() {
        assert_eq!(Description::from_toml(&description.to_toml()), Ok(description));
    }
}

/// A020, A021, A035: the machines of the texts have the zones and sizes of the texts.
#[test]
fn presets_describe_what_they_claim() {
    assert_eq!(preset("tiny").ram_bytes(), 64 * M);
    assert_eq!(preset("tiny").cpus, 2);

    let default = preset("default");
    assert_eq!(default.ram_bytes(), G - 384 * 1024);
    assert_eq!((default.dma_limit, default.dma32_limit), (Some(16 * M), Some(4 * G)));

    let ldd2 = preset("ldd2-i386");
    assert_eq!(ldd2.ram().last().map(|range| range.end), Some(128 * M));
    assert_eq!((ldd2.dma_limit, ldd2.largest_order), (Some(16 * M), 5));
    assert!(ldd2.whole_reserve_for_atomic && !ldd2.pagesets);

    let lkd = preset("lkd-i386");
    assert_eq!(lkd.ram().last().map(|range| range.end), Some(2 * G));
    assert_eq!((lkd.dma_limit, lkd.direct_map_limit), (Some(16 * M), Some(896 * M)));

    let pae = preset("pae");
    assert_eq!(pae.ram().last().map(|range| range.end), Some(64 * G));
    assert_eq!(pae.direct_map_limit, Some(896 * M));
    assert!(pae.footprint().metadata < 40 * M);

    let x86_64 = preset("x86_64");
    assert_eq!(x86_64.ram_bytes(), 8 * G - 384 * 1024);
    assert!(x86_64.ram().iter().all(|range| range.end <= 3 * G || range.start >= 4 * G));

    let numa2 = preset("numa2");
    assert_eq!((numa2.nodes.len(), numa2.cpus), (2, 2));
    assert_eq!(numa2.cpu_node(CpuId::new(1).unwrap()).get(), 1);
    assert_eq!((numa2.distance(0, 0), numa2.distance(0, 1)), (10, 20));

    let holes = preset("holes");
    let given = &holes.nodes[0].ram;
    assert!(given.windows(2).any(|pair| pair[0].start > pair[1].start), "it is sorted");
    assert!(holes.ram().len() > 5 && holes.ram().len() < given.len(), "nothing overlaps");
    assert!(given.iter().any(|range| !range.start.is_multiple_of(4096)), "all is aligned");
    assert!(!holes.late.is_empty() && !holes.reserved.is_empty());
}

#[test]
fn the_default_of_every_key_is_what_leaving_it_out_means() {
    for key in Description::keys() {
        assert!(!key.about.is_empty() && !key.takes.is_empty(), "{}", key.name);
        let of_node = key.name.strip_prefix("node.N.");
        let section = if of_node.is_some() { "[[node]]" } else { "" };
        let name = of_node.unwrap_or(key.name);
        let line = key.default.map_or_else(String::new, |value| format!("{name} = {value}"));
        let file = format!("{section}\n{line}\n");
        assert_eq!(Description::from_toml(&file), Ok(Description::default()), "{file}");
    }
}

#[test]
fn a_setting_changes_its_key_alone() {
    let mut changed = preset("numa2");
    for setting in ["cpus=4", " dma_limit = none", "reserved=640K-1M,4G+64K", "node.1.movable=64M"]
    {
        changed.set(setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
    }
    let expected = Description {
        cpus: 4,
        dma_limit: None,
        reserved: vec![640 << 10..M, 4 * G..4 * G + (64 << 10)],
        ..preset("numa2")
    };
    assert_eq!(changed.nodes[1].movable, 64 * M);
    changed.nodes[1].movable = 0;
    assert_eq!(changed, expected);
}

#[test]
fn a_wrong_setting_is_told_with_key_value_and_what_is_allowed() {
    let mut d = preset("numa2");
    for (setting, parts) in [
        ("cpus=0", ["cpus", "0", "1 to 256"]),
        ("cpus=many", ["cpus", "many", "1 to 256"]),
        ("page_shift=15", ["page_shift", "15", "12, 13, 14 or 16"]),
        ("dma_limit=16Q", ["dma_limit", "16Q", "16M"]),
        ("largest_order=16", ["largest_order", "16", "0 to 15"]),
        ("reserved=1M", ["reserved", "1M", "640K-1M"]),
        ("pagesets=maybe", ["pagesets", "maybe", "true or false"]),
        ("node.1.distance=5,10", ["node.1.distance = 5 ", "10 to 254", "[10, 20]"]),
        ("node.7.movable=1M", ["node", "7", "below 2"]),
        ("cpu=2", ["'cpu'", "no key", "did you mean 'cpus'?"]),
        ("largest-order=2", ["'largest-order'", "no key", "did you mean 'largest_order'?"]),
        ("speed=2", ["'speed'", "no key", "page_shift"]),
        ("ram=0-64M", ["'ram'", "a key of a node", "write node.0.ram"]),
        ("node.1.mvable=2", ["'node.1.mvable'", "no key", "'node.1.movable'?"]),
        ("node.1.memory=2", ["'node.1.memory'", "no key", "node.N.ram"]),
        ("node.x.ram=2", ["'node.x.ram'", "no key", "did you mean 'node.0.ram'?"]),
        ("cpus", ["'cpus'", "not a setting", "key=value"]),
    ] {
        let before = d.clone();
        let text = error(d.set(setting));
        for part in parts {
            assert!(text.contains(part), "{setting}: '{part}' is not in: {text}");
        }
        assert_eq!(d, before, "{setting} changed something");
    }
}

/// Each error of a file names the place of the value that it is about, and what to do.
#[test]
fn what_is_wrong_in_a_file_is_told_with_its_place() {
    let good = "[[node]]\nram = [\"0-64M\"]\n";
    for (text, place, parts) in [
        ("name = \"x\"\ncpus = = 2\n", "2:8", ["not toml", "KEY = VALUE"]),
        ("cpus = 2\ncpus = 3\n", "2:1", ["not toml", "duplicate"]),
        ("name = x", "1:8", ["not toml", "in quotes"]),
        ("processors = 2", "1:1", ["'processors'", "min_free_kbytes"]),
        ("\n  cpu = 2", "2:3", ["'cpu'", "did you mean 'cpus'?"]),
        ("nodes = 2", "1:1", ["'nodes'", "did you mean [[node]]?"]),
        ("ram = [\"0-64M\"]", "1:1", ["'ram'", "below [[node]]"]),
        (
            "[[node]]\nlargest_order = 5",
            "2:1",
            ["'node.0.largest_order'", "above the first [[node]]"],
        ),
        ("[[node]]\nram = [\"0-64M\"]\nmovabel = 1", "3:1", ["'node.0.movabel'", "'movable'?"]),
        ("[[node]]\ncolour = 1", "2:1", ["'node.0.colour'", "it has ram, cpus"]),
        ("cpus = \"two\"", "1:8", ["cpus = \"two\" is", "1 to 256"]),
        ("cpus = 99999999999999999999", "1:8", ["cpus = 99999999999999999999 is", "1 to 256"]),
        ("cpus = 1.5", "1:8", ["cpus = 1.5 is", "1 to 256"]),
        ("pagesets = 1", "1:12", ["pagesets = 1 is", "true or false"]),
        ("name = \"\"\"a\nb\"\"\"", "1:8", ["name = \"\"\"a b\"\"\" is", "a text"]),
        ("dma_limit = \"16MB\"", "1:13", ["dma_limit = \"16MB\" is", "\"16M\""]),
        ("reserved = [\n\"0-1M\",\n  \"2M-1M\"]", "3:3", ["reserved = \"2M-1M\" is", "640K-1M"]),
        ("[[node]]\nram = [1, 2]", "2:8", ["node.0.ram = 1 is", "1M-1G"]),
        ("kmalloc_sizes = [64,\n32]", "1:17", ["kmalloc_sizes = [64, 32] is", "rising"]),
        ("node = 1", "1:8", ["node = 1 is", "[[node]]"]),
        ("[node]\nram = [\"0-64M\"]", "1:1", ["node = [node] is", "below a line [[node]]"]),
        ("[cpus]\n", "1:1", ["cpus = [cpus] is", "1 to 256"]),
        // What does not go together.
        ("[[node]]\ncpus = [0]\n", "1:1", ["node.0.ram = [] is", "at least one range"]),
        ("kernel = [\"0-1M\", \"65M-66M\"]\n@", "1:19", ["kernel = 65M-66M is", "in ram"]),
        (
            "dma_limit = \"8M\"\ndma32_limit = \"4M\"\n@",
            "2:15",
            ["dma32_limit = 4M is", "above dma_limit"],
        ),
        ("command_line = \"mem=0\"\n@", "1:16", ["command_line = mem=0 is", "mem="]),
        (
            "@[[node]]\nram = [\n  \"64M-65M\",\n  \"1M-2M\"]",
            "6:3",
            ["node.1.ram = 1M-2M is", "node 0"],
        ),
        ("@cpus = [0, 1]", "3:12", ["node.0.cpus = 1 is", "below 1"]),
        ("@movable = \"65M\"", "3:11", ["node.0.movable = 65M is", "up to 64M"]),
        ("@distance = [10, 20]", "3:12", ["node.0.distance = [10, 20] is", "one number"]),
        ("[[node]]\nram = [\"0-1M\", \"1M-17T\"]", "2:16", ["node.0.ram = 1M-", "32-bit frame"]),
    ] {
        let text = text.replace('@', good);
        let folder = std::env::temp_dir().join(format!("kmem-places-{}", std::process::id()));
        std::fs::write(&folder, &text).unwrap();
        let told = Description::from_file(&folder).and_then(|machine| machine.check());
        std::fs::remove_file(&folder).unwrap();
        let told = error(told);
        let start = format!("{}:{place}: ", folder.display());
        assert!(told.starts_with(&start), "{text}\n{told}\n{start}");
        for part in parts {
            assert!(told.contains(part), "{text}\n'{part}' is not in: {told}");
        }
        // Of a text without a name the place is told too.
        let unnamed = error(Description::from_toml(&text).and_then(|machine| machine.check()));
        assert!(unnamed.starts_with("line "), "{unnamed}");
    }
    let missing = Description::from_file("/nowhere/at/all.toml").map(|_| ());
    assert!(error(missing).contains("/nowhere/at/all.toml"));
}

/// What was set otherwise does not stand in the file.
#[test]
fn what_is_not_in_the_file_has_no_place() {
    let file = "cpus = 2\ndma_limit = \"16M\"\n[[node]]\nram = [\"0-64M\"]\ncpus = [0, 1]\n";
    let with = |change: &dyn Fn(&mut Description) -> Result<(), DescriptionError>| {
        let mut d = Description::from_toml(file).unwrap();
        error(change(&mut d).and_then(|()| d.check()))
    };
    assert!(with(&|d| d.set("dma_limit=4097")).starts_with("dma_limit = 4097 is"));
    assert!(with(&|d| d.set("dma32_limit=8M")).starts_with("dma32_limit = 8M is"));
    assert!(with(&|d| d.set("cpus=1")).starts_with("line 5, column 12: node.0.cpus = 1 is"));
    let lost = with(&|d| d.mem(1 << 20).and_then(|()| d.set("node.0.movable=2M")));
    assert!(lost.starts_with("node.0.movable = 2M is"), "{lost}");
    let lost = with(&|d| d.mem(1 << 20).and_then(|()| d.set("cpus=1")));
    assert!(lost.starts_with("node.0.cpus = 1 is"), "{lost}");
}

#[test]
fn a_preset_that_there_is_not_is_told_with_the_nearest() {
    let unknown = |name: &str| error(Description::preset(name).map(|_| ()));
    assert!(unknown("cray").contains("'cray': there are tiny, default, ldd2-i386"));
    assert!(unknown("deafult").contains("did you mean 'default'? There are tiny"));
    assert!(unknown("").contains("'': there are tiny"));
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let refused = |name: &str, settings: &[&str]| {
        let mut d = preset(name);
        for setting in settings {
            d.set(setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
        }
        error(d.check())
    };
    assert!(refused("tiny", &["node.0.ram=none"]).contains("node.0.ram"));
    assert!(refused("tiny", &["node.0.ram=0-17T"]).contains("0xffffffff000"));
    assert!(refused("tiny", &["kernel=63M-65M"]).contains("kernel = 63M-65M"));
    assert!(refused("tiny", &["late=1G-2G"]).contains("late = 1G-2G"));
    assert!(refused("default", &["dma32_limit=8M"]).contains("above dma_limit = 16M"));
    assert!(refused("default", &["dma_limit=0x1001"]).contains("page size of 4K"));
    assert!(refused("numa2", &["node.1.ram=256M-1G"]).contains("node 0"));
    assert!(refused("numa2", &["node.1.cpus=0"]).contains("node.1.cpus = 0"));
    assert!(refused("numa2", &["cpus=1"]).contains("node.1.cpus = 1"));
    assert!(refused("numa2", &["node.0.movable=1G"]).contains("node.0.movable"));
    assert!(refused("numa2", &["node.0.distance=10"]).contains("2 numbers"));
}

#[test]
fn more_memory_goes_above_and_holes_stay() {
    let mut d = preset("x86_64");
    d.mem(16 * G).unwrap();
    assert_eq!(d.ram(), [0..640 << 10, M..3 * G, 4 * G..17 * G]);
    d.mem(2 * G).unwrap();
    assert_eq!(d.ram(), [0..640 << 10, M..2 * G]);

    let mut d = preset("numa2");
    d.mem(4 * G).unwrap();
    assert_eq!(d.nodes[0].ram, [0..640 << 10, M..2 * G]);
    assert_eq!(d.nodes[1].ram, std::slice::from_ref(&(2 * G..4 * G)));
    assert!(error(d.mem(3000)).contains("page size"));
    assert!(error(d.mem(17 << 40)).contains("16T"));
}

#[test]
fn regions_that_lose_their_ram_go_with_it() {
    let mut d = preset("holes");
    d.mem(40 * M).unwrap();
    d.check().unwrap();
    assert!(d.late.is_empty() && !d.reserved.is_empty());
}

#[test]
fn nodes_share_the_memory_and_the_cpus() {
    let mut d = preset("default");
    d.nodes(4).unwrap();
    d.cpus(8).unwrap();
    d.check().unwrap();
    assert_eq!(d.ram_bytes(), G - 384 * 1024);
    assert_eq!(d.nodes[1].ram, std::slice::from_ref(&(256 * M..512 * M)));
    assert_eq!(d.cpu_node(CpuId::new(5).unwrap()).get(), 1);

    let before = preset("tiny");
    let mut d = before.clone();
    assert!(error(d.nodes(17)).contains("1 to 16"));
    d.mem(2 * M).unwrap();
    let small = d.clone();
    assert!(error(d.nodes(3)).contains("3M"));
    assert_eq!(d, small);
    assert!(error(d.cpus(0)).contains("1 to 256"));
}

/// Any preset with any sensible overrides still goes together.
#[test]
fn overrides_of_presets_go_together() {
    for name in Description::preset_names() {
        for nodes in [1, 2, 3, 16] {
            for bytes in [16 * M, 100 * M, 3 * G, 1 << 40] {
                let mut d = preset(name);
                d.nodes(nodes).unwrap();
                d.mem(bytes).unwrap();
                d.cpus(5).unwrap();
                d.check().unwrap_or_else(|error| panic!("{name} {nodes} {bytes}: {error}"));
                assert!(d.ram_bytes() <= bytes && d.ram_bytes() > bytes - 12 * M, "{name}");
            }
        }
    }
}

#[test]
fn the_footprint_counts_descriptors_and_low_memory() {
    let tiny = preset("tiny").footprint();
    assert_eq!(tiny.frames, 64 * M / 4096);
    assert!(tiny.metadata >= tiny.frames * 32 && tiny.metadata < tiny.frames * 32 + M);
    assert_eq!(tiny.low_memory, 64 * M);

    let pae = preset("pae").footprint();
    assert_eq!(pae.frames, 4 * G / 4096);
    // 896 MiB less the hole below 1M and the kernel's 2 MiB.
    assert_eq!(pae.low_memory, 896 * M - (384 << 10) - 2 * M);
}

/// Whatever is set, read or laid out, in any order: an error or a description whose text is read
/// back, and never a panic.
#[test]
fn random_changes_give_an_error_or_a_description_that_can_be_written() {
    const VALUES: [&str; 24] = [
        "0",
        "1",
        "2",
        "12",
        "13",
        "16",
        "257",
        "-1",
        "none",
        "true",
        "false",
        "",
        "a \"b\" \\ c",
        "16M",
        "4G",
        "0x9fc00",
        "1023T",
        "0-1M",
        "1M-1G,64M-2G",
        "63M+0x1801",
        "0,1",
        "10,20",
        "256,256,32,0,0",
        "é\u{7}",
    ];
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |time| time.as_nanos() as u64 | 1);
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let keys: Vec<_> = Description::keys().map(|key| key.name).collect();
    for _ in 0..2_000 {
        let mut d = preset(PRESETS[below(PRESETS.len())].0);
        for _ in 0..12 {
            let value = VALUES[below(VALUES.len())];
            let _ = match below(8) {
                0 => d.mem(1 << below(46)),
                1 => d.cpus(below(300) as u32),
                2 => d.nodes(below(18) as u32),
                3 => {
                    let mut text = d.to_toml().into_bytes();
                    let at = below(text.len());
                    text[at] = b" =[]\"-#\n09Kx"[below(12)];
                    String::from_utf8(text).map_or(Ok(()), |text| {
                        Description::from_toml(&text).map(|changed| d = changed)
                    })
                }
                _ => {
                    let key = keys[below(keys.len())].replace('N', &below(3).to_string());
                    d.set(&format!("{key}={value}"))
                }
            };
            assert_eq!(Description::from_toml(&d.to_toml()).as_ref(), Ok(&d), "seed {seed}");
            let footprint = d.footprint();
            assert!(footprint.low_memory <= footprint.ram, "seed {seed}");
            if let Err(error) = d.check() {
                assert!(!error.to_string().contains('\n'), "seed {seed}: {error}");
            }
        }
    }
}

#[test]
fn a_machine_file_without_end_is_refused() {
    let error = Description::from_file("/dev/zero").unwrap_err().to_string();
    assert!(error.contains("/dev/zero") && error.contains("larger than 1048576 bytes"), "{error}");
}

#[test]
fn a_list_is_set_in_brackets_or_without() {
    let mut d = preset("numa2");
    for ratios in ["[1, 2, 3, 4, 5]", "1,2,3,4,5", "[1,2,3,4,5]"] {
        d.reserve_ratio = [0; 5];
        d.set(&format!("reserve_ratio={ratios}")).unwrap();
        assert_eq!(d.reserve_ratio, [1, 2, 3, 4, 5], "{ratios}");
    }
    d.set("node.1.distance=[20, 10]").unwrap();
    assert_eq!(d.nodes[1].distance, [20, 10]);
    for broken in ["[1, 2", "[", "[1, x, 3, 4, 5]", "[1, 2, 3, 4]"] {
        assert!(d.set(&format!("reserve_ratio={broken}")).is_err(), "{broken}");
    }
}

/// Page blocks are no larger than the largest block, whichever is set.
#[test]
fn the_largest_order_bounds_page_blocks() {
    for order in [0, 4, 8] {
        let mut d = preset("tiny");
        d.set(&format!("largest_order={order}")).unwrap();
        d.check().unwrap();
    }
}

/// The texts' machines have the texts' sizes, and others can be had.
#[test]
fn kmalloc_sizes_are_a_machines_own() {
    assert_eq!(preset("ldd2-i386").kmalloc_sizes.first(), Some(&32));
    assert!(preset("x86_64").kmalloc_sizes.contains(&96));
    assert!(preset("default").kmalloc_sizes.is_empty());
    let mut d = preset("tiny");
    d.set("kmalloc_sizes=64,256,4K").unwrap();
    assert_eq!(d.kmalloc_sizes, [64, 256, 4096]);
    for wrong in ["64,32", "0,256", "256,256K", "64,1024", "512"] {
        assert!(d.set(&format!("kmalloc_sizes={wrong}")).is_err(), "{wrong}");
    }
    d.set("kmalloc_sizes=none").unwrap();
    assert!(d.kmalloc_sizes.is_empty());
}

#[test]
fn which_caches_are_debugged_is_a_machines_own() {
    let mut d = preset("default");
    assert_eq!(d.slab_debug, "");
    d.set("slab_debug=PZ,kmalloc-*;U").unwrap();
    assert_eq!(d.slab_debug, "PZ,kmalloc-*;U");
    assert_eq!(Description::from_toml(&d.to_toml()).unwrap().slab_debug, d.slab_debug);
    for wrong in ["X", "P,", "P,1,2,3,4,5,6,7,8,9"] {
        assert!(d.set(&format!("slab_debug={wrong}")).is_err(), "{wrong}");
    }
}
