//! `buddyinfo`, `zoneinfo`, `vmstat` and `slabinfo`, as kmem and Linux write them.
//!
//! What is not known is passed over: Linux has more lines than kmem, and other ones from version to version.

use std::collections::BTreeMap;

/// Free blocks of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeBlocks {
    pub node: u32,
    pub zone: String,
    /// How many, by order.
    pub blocks: Vec<u64>,
}

/// Node and zone at the start of a line, and what follows.
fn zone_line(line: &str) -> Option<(u32, &str, &str)> {
    let (node, rest) = line.strip_prefix("Node ")?.split_once(", zone")?;
    let rest = rest.trim_start();
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((node.trim().parse().ok()?, name, rest))
}

/// Reads `buddyinfo`.
pub fn buddyinfo(text: &str) -> Vec<FreeBlocks> {
    let read = |line: &str| {
        let (node, zone, counts) = zone_line(line)?;
        let blocks = counts.split_whitespace().map(|count| count.parse().ok());
        Some(FreeBlocks { node, zone: zone.into(), blocks: blocks.collect::<Option<_>>()? })
    };
    text.lines().filter_map(read).collect()
}

/// What `zoneinfo` says of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneInfo {
    pub node: u32,
    pub name: String,
    pub free: u64,
    pub min: u64,
    pub low: u64,
    pub high: u64,
    pub present: u64,
    pub managed: u64,
    pub pagesets: Vec<Pageset>,
}

/// The pages of a zone that a CPU keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pageset {
    pub cpu: u32,
    pub count: u64,
    pub high: u64,
    pub batch: u64,
}

/// Reads `zoneinfo`.
pub fn zoneinfo(text: &str) -> Vec<ZoneInfo> {
    let mut zones: Vec<ZoneInfo> = Vec::new();
    for line in text.lines() {
        if let Some((node, name, _)) = zone_line(line) {
            zones.push(ZoneInfo { node, name: name.into(), ..ZoneInfo::default() });
            continue;
        }
        let Some(zone) = zones.last_mut() else { continue };
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let value = number(1).unwrap_or(0);
        match (words.first().copied().unwrap_or_default(), zone.pagesets.last_mut()) {
            ("cpu:", _) => {
                let cpu = u32::try_from(value).unwrap_or(u32::MAX);
                zone.pagesets.push(Pageset { cpu, ..Pageset::default() });
            }
            ("count:", Some(set)) => set.count = value,
            ("high:", Some(set)) => set.high = value,
            ("batch:", Some(set)) => set.batch = value,
            ("pages", _) if words.get(1) == Some(&"free") => zone.free = number(2).unwrap_or(0),
            ("min", _) => zone.min = value,
            ("low", _) => zone.low = value,
            ("high", _) => zone.high = value,
            ("present", _) => zone.present = value,
            ("managed", _) => zone.managed = value,
            _ => {}
        }
    }
    zones
}

/// Reads `vmstat`.
pub fn vmstat(text: &str) -> BTreeMap<String, u64> {
    let read = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.into(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(read).collect()
}

/// What `slabinfo` says of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    pub name: String,
    pub active: u64,
    pub objects: u64,
    /// Bytes from one object to the next.
    pub size: u64,
    pub pages_per_slab: u64,
    pub slabs: u64,
}

impl Cache {
    /// How many pages its slabs take.
    pub fn pages(&self) -> u64 {
        self.slabs.saturating_mul(self.pages_per_slab)
    }

    /// How many bytes of them are in no object in use.
    pub fn waste(&self, page: u64) -> u64 {
        let used = self.active.saturating_mul(self.size);
        self.pages().saturating_mul(page).saturating_sub(used)
    }
}

/// Reads `slabinfo`.
pub fn slabinfo(text: &str) -> Vec<Cache> {
    let read = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let [active, objects, size, _, pages_per_slab, .., slabs, _] = numbers[..] else {
            return None;
        };
        Some(Cache { name: name.into(), active, objects, size, pages_per_slab, slabs })
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux has it: with a blank at the end.
    #[test]
    fn free_blocks_are_read() {
        let text = "Node 0, zone      DMA      0      1      3 \nNode 1, zone   Normal   8509      5     18\n";
        let [dma, normal] = &buddyinfo(text)[..] else { panic!() };
        assert_eq!((dma.node, dma.zone.as_str(), &dma.blocks[..]), (0, "DMA", &[0, 1, 3][..]));
        assert_eq!((normal.node, normal.zone.as_str(), normal.blocks[0]), (1, "Normal", 8509));
        assert!(buddyinfo("Node x, zone\nnonsense\nNode 0, zone DMA 1 x\n").is_empty());
    }

    /// `high` is a watermark in one place and a CPU's in another; of Linux there are lines between.
    #[test]
    fn zones_their_watermarks_and_page_sets_are_read() {
        let text = "\
Node 0, zone      DMA
  per-node stats
      nr_slab_reclaimable 107793
  pages free     3840
        boost    0
        min      28
        low      35
        high     42
        spanned  4095
        present  3998
        managed  3841
        protection: (0, 3019, 8779)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    7
              high:     42
              batch:    3
              high_min: 9
  vm stats threshold: 4
    cpu: 3
              count:    1
              high:     40
              batch:    2
  start_pfn:           1
Node 0, zone   Normal
  pages free     0
        min      0
        managed  0
";
        let zones = zoneinfo(text);
        let dma = ZoneInfo {
            node: 0,
            name: "DMA".into(),
            free: 3840,
            min: 28,
            low: 35,
            high: 42,
            present: 3998,
            managed: 3841,
            pagesets: vec![
                Pageset { cpu: 0, count: 7, high: 42, batch: 3 },
                Pageset { cpu: 3, count: 1, high: 40, batch: 2 },
            ],
        };
        assert_eq!(zones, [dma, ZoneInfo { name: "Normal".into(), ..ZoneInfo::default() }]);
    }

    #[test]
    fn counters_are_read() {
        let found = vmstat("nr_free_pages 848721\npgfree 12\nodd\nx y\n");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("nr_free_pages".into(), 848_721), ("pgfree".into(), 12)]
        );
    }

    #[test]
    fn caches_are_read() {
        let text = "\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
kmalloc-256          100    112    256   16    1 : tunables    0    0    0 : slabdata      7      8      0
broken 1 2
";
        let [cache] = &slabinfo(text)[..] else { panic!() };
        let expected = Cache {
            name: "kmalloc-256".into(),
            active: 100,
            objects: 112,
            size: 256,
            pages_per_slab: 1,
            slabs: 8,
        };
        assert_eq!(*cache, expected);
        assert_eq!((cache.pages(), cache.waste(4096)), (8, 8 * 4096 - 25_600));
    }
}
