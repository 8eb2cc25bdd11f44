//! Traces of a machine: read back line by line, by a reader that takes nothing but the form.

mod form;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use form::Line;
use kmem::*;
use kmem_host::trace::{TraceFile, Written};
use kmem_host::{Description, Machine};

type Traced = Machine<12, NoReclaim, true>;

/// A file that goes away with this.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("kmem-host-trace-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        Place(std::env::temp_dir().join(name))
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a trace of some work has, and what the machine counted of it.
struct Trace {
    written: Written,
    header: (u64, u64, u64),
    lines: Vec<Line>,
    counters: Counters,
}

fn trace(cpus: u32, work: impl FnOnce(&Arc<Traced>)) -> Trace {
    let place = Place::new();
    let mut description = Description::preset("tiny").unwrap();
    description.cpus(cpus).unwrap();
    let file = TraceFile::start(File::create(&place.0).unwrap(), cpus).unwrap();
    let machine = Traced::boot_traced(&description, NoReclaim, Some(&file)).unwrap();
    work(&machine);
    let counters = machine.mm().counters();
    let written = file.finish().unwrap();
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
    let text = place.text();
    let (header, lines) = form::read(&text);
    assert_eq!(form::lost(&text), written.lost);
    Trace { written, header, lines, counters }
}

impl Trace {
    fn named<'t>(&'t self, name: &'t str) -> impl Iterator<Item = &'t Line> {
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// Fails unless the lines follow each other in time, and each allocation and free is possible.
    #[track_caller]
    fn check(&self) -> Left {
        assert_eq!(self.written.lost, 0);
        assert_eq!(self.header.0, self.lines.len() as u64);
        assert_eq!(self.header.1, self.written.events + self.written.lost);
        assert!(self.lines.is_sorted_by_key(|line| line.micros), "the time runs backwards");
        let mut left = Left::default();
        for line in &self.lines {
            assert!(left.follow(line), "this cannot be: {line:?}");
        }
        left
    }
}

/// What there is after the lines that were followed.
#[derive(Default)]
struct Left {
    frames: HashSet<u64>,
    pages_freed: u64,
    objects: HashMap<u64, String>,
    areas: HashSet<u64>,
    percpu: HashSet<(u64, u64)>,
    chunks: HashSet<u64>,
}

impl Left {
    fn follow(&mut self, line: &Line) -> bool {
        let frames = || {
            let first = line.number_of("pfn");
            first..first + (1 << line.number_of("order"))
        };
        let percpu = || (line.number_of("base_addr"), line.number_of("off"));
        match line.name.as_str() {
            "mm_page_alloc" if line.number_of("page") != 0 => {
                frames().all(|frame| self.frames.insert(frame))
            }
            "mm_page_free" => {
                self.pages_freed += frames().count() as u64;
                frames().all(|frame| self.frames.remove(&frame))
            }
            // There was no memory, as in a handler that may not wait for a lock.
            "kmalloc" | "kmem_cache_alloc" if line.number_of("ptr") == 0 => true,
            "kmalloc" => self.objects.insert(line.number_of("ptr"), "kmalloc".into()).is_none(),
            "kmem_cache_alloc" => {
                self.objects.insert(line.number_of("ptr"), line.get("name").into()).is_none()
            }
            "kfree" if line.number_of("ptr") == 0 => true,
            "kfree" => self.objects.remove(&line.number_of("ptr")).as_deref() == Some("kmalloc"),
            "kmem_cache_free" => {
                self.objects.remove(&line.number_of("ptr")).as_deref() == Some(line.get("name"))
            }
            "alloc_vmap_area" => self.areas.insert(line.number_of("va_start")),
            "free_vmap_area_noflush" => self.areas.remove(&line.number_of("va_start")),
            "percpu_create_chunk" => self.chunks.insert(line.number_of("base_addr")),
            "percpu_destroy_chunk" => self.chunks.remove(&line.number_of("base_addr")),
            "percpu_alloc_percpu" => {
                self.chunks.contains(&line.number_of("base_addr")) && self.percpu.insert(percpu())
            }
            "percpu_free_percpu" => self.percpu.remove(&percpu()),
            _ => true,
        }
    }
}

/// Allocates and frees a little of everything. Not for handlers, where areas are.
fn a_little(mm: &Mm<kmem_host::Host<12, true>>, cache: CacheId, gfp: Gfp) {
    let objects: Vec<_> = (1..80).filter_map(|size| mm.kmalloc(size * 50, gfp).ok()).collect();
    let of_cache: Vec<_> = (0..80).filter_map(|_| mm.kmem_cache_alloc(cache, gfp).ok()).collect();
    let pages: Vec<_> = (0..20).filter_map(|order| mm.alloc_pages(gfp, order % 6).ok()).collect();
    let area = mm.vmalloc(20_000).unwrap();
    let percpu = mm.__alloc_percpu(24, 8).unwrap();
    // SAFETY: they are ours, and each is freed as it was allocated.
    unsafe {
        mm.free_percpu(percpu.as_ptr());
        mm.vfree(area.as_ptr());
        objects.iter().for_each(|object| mm.kfree(object.as_ptr()));
        of_cache.iter().for_each(|object| mm.kmem_cache_free(cache, object.as_ptr()));
        for (page, order) in pages.iter().zip(0..) {
            mm.__free_pages(*page, order % 6);
        }
        mm.kfree(std::ptr::null());
    }
}

#[test]
fn a_trace_is_of_the_form_and_every_allocation_has_its_free() {
    let mut info = None;
    let trace = trace(2, |machine| {
        machine.run_on(CpuId::BOOT, || {
            let mm = machine.mm();
            let cache =
                mm.kmem_cache_create("traced", 100, 0, CacheFlags::NONE, None, None).unwrap();
            (0..10).for_each(|_| a_little(mm, cache, GFP_KERNEL));
            mm.vm_unmap_aliases();
            info = mm.caches().find(|info| info.name.as_str() == "traced");
            // SAFETY: it is ours, and nothing of it is used.
            unsafe { mm.kmem_cache_destroy(cache) }.unwrap();
        });
    });
    let left = trace.check();
    // A chunk for the next object is kept, in memory of kmalloc's.
    assert_eq!(left.objects.len(), left.chunks.len());
    assert!(left.areas.is_empty() && left.percpu.is_empty());
    // As the manager counts.
    let info = info.unwrap();
    assert_eq!(trace.named("kmem_cache_alloc").count() as u64, info.allocated);
    assert_eq!(trace.named("kmem_cache_free").count() as u64, info.freed);
    assert_eq!(left.pages_freed, trace.counters.freed);
    for (name, least) in [
        ("kmalloc", 790),
        ("mm_page_alloc", 200),
        ("alloc_vmap_area", 10),
        ("purge_vmap_area_lazy", 1),
        ("percpu_create_chunk", 1),
        ("mm_page_alloc_zone_locked", 1),
    ] {
        assert!(trace.named(name).count() >= least, "{name}");
    }
    let site = trace.named("kmem_cache_alloc").next().unwrap().get("call_site");
    assert!(site.starts_with("crates/kmem-host/tests/trace.rs:") && site.ends_with("+0x0/0x0"));
    assert_eq!(trace.header.2, 2);
}

#[test]
fn tasks_and_handlers_of_all_cpus_are_in_one_order() {
    let trace = trace(3, |machine| {
        let cache = machine.run(|| {
            machine.mm().kmem_cache_create("traced", 200, 0, CacheFlags::NONE, None, None).unwrap()
        });
        let handled = {
            let inner = Arc::downgrade(machine);
            let handler = move || {
                let Some(machine) = inner.upgrade() else { return };
                let mm = machine.mm();
                if let Ok(object) = mm.kmem_cache_alloc(cache, GFP_ATOMIC) {
                    // SAFETY: it is ours.
                    unsafe { mm.kmem_cache_free(cache, object.as_ptr()) };
                }
            };
            let storm = machine.interrupt_storm(Duration::from_micros(50), handler.clone());
            let tasks: Vec<_> = (0..3)
                .map(|cpu| {
                    let inner = Arc::clone(machine);
                    let cpu = CpuId::new(cpu).unwrap();
                    machine.spawn(Some(cpu), format!("worker {}", cpu.get()), move || {
                        for _ in 0..60 {
                            a_little(inner.mm(), cache, GFP_KERNEL);
                        }
                    })
                })
                .collect();
            for _ in 0..200 {
                for cpu in machine.online_cpus() {
                    let _ = machine.nmi(cpu, handler.clone());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            tasks.into_iter().for_each(kmem_host::Task::join);
            storm.handled()
        };
        assert!(handled > 0);
        // SAFETY: it is ours, and nothing of it is used.
        machine.run(|| unsafe { machine.mm().kmem_cache_destroy(cache) }).unwrap();
    });
    let left = trace.check();
    assert!(left.areas.is_empty() && left.percpu.is_empty());
    assert!(left.objects.values().all(|of| of == "kmalloc"));
    // Who it was, where, and in which state.
    for cpu in 0..3 {
        let name = format!("worker {cpu}");
        let own: Vec<_> = trace.lines.iter().filter(|line| line.task == name).collect();
        assert!(own.iter().all(|line| line.cpu == cpu && line.number == own[0].number));
        assert!(own.iter().any(|line| line.marks == "....."));
        // The zone's lock masks interrupts.
        let locked = trace.named("mm_page_alloc_zone_locked");
        assert!(locked.into_iter().all(|line| line.marks.starts_with('d')));
    }
    let marked = |mark: &str| trace.lines.iter().filter(|line| line.marks[2..3] == *mark).count();
    assert!(marked("h") > 0 && marked("z") + marked("Z") > 0);
}

#[test]
fn the_counts_of_the_header_are_right_while_it_is_written() {
    let place = Place::new();
    let file = TraceFile::start(File::create(&place.0).unwrap(), 1).unwrap();
    assert_eq!(form::read(&place.text()).0, (0, 0, 1));
    let mut description = Description::preset("tiny").unwrap();
    description.cpus(1).unwrap();
    let machine = Traced::boot_traced(&description, NoReclaim, Some(&file)).unwrap();
    let pair = || {
        machine.run(|| {
            let object = machine.mm().kmalloc(100, GFP_KERNEL).unwrap();
            // SAFETY: it is ours.
            unsafe { machine.mm().kfree(object.as_ptr()) };
        });
    };
    pair();
    // It is written without being asked for.
    let since = std::time::Instant::now();
    let (header, lines) = loop {
        let read = form::read(&place.text());
        if read.1.iter().any(|line| line.name == "kfree") && read.0.0 == read.1.len() as u64 {
            break read;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(header.1, lines.len() as u64);
    // What comes after the end is nobody's, and nobody waits for it.
    let written = file.finish().unwrap();
    (0..100_000).for_each(|_| pair());
    assert_eq!(file.finish().unwrap(), written);
    assert_eq!(form::read(&place.text()).0.0, written.events);
}

#[test]
fn a_file_that_takes_no_more_ends_the_trace_and_not_the_machine() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let file = TraceFile::start(full, 1).unwrap();
    let mut description = Description::preset("tiny").unwrap();
    description.cpus(1).unwrap();
    let machine = Traced::boot_traced(&description, NoReclaim, Some(&file)).unwrap();
    machine.run(|| {
        for _ in 0..100_000 {
            let object = machine.mm().kmalloc(100, GFP_KERNEL).unwrap();
            // SAFETY: it is ours.
            unsafe { machine.mm().kfree(object.as_ptr()) };
        }
    });
    assert!(file.finish().unwrap_err().to_string().contains("No space left"));
    assert!(machine.shutdown().is_clean());
}

/// A pipe gets no header, since what it says is not known before the end.
#[test]
fn a_pipe_gets_lines_only() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let file = TraceFile::start(File::from(std::os::fd::OwnedFd::from(writer)), 1).unwrap();
    let read = std::thread::spawn(move || std::io::read_to_string(&mut reader).unwrap());
    let mut description = Description::preset("tiny").unwrap();
    description.cpus(1).unwrap();
    let machine = Traced::boot_traced(&description, NoReclaim, Some(&file)).unwrap();
    machine.run(|| drop(machine.mm().pages(GFP_KERNEL, 0)));
    drop(file);
    drop(machine);
    // The writer's end is closed with the trace.
    let text = read.join().unwrap();
    assert!(text.lines().map(form::line).any(|line| line.name == "mm_page_free"));
}

/// Lines as a Linux kernel writes them are of the form; a folder of such files may be given.
#[test]
fn the_form_is_that_of_linux() {
    let lines = "            \
        bash-13494   [001] .....  2017.408718: kmem_cache_free: call_site=vfs_x+0x71/0xb0 ptr=00000000ed7d54db name=names_cache
 kworker/u8:1-ev-317     [000] d.h1.    17.000005: mm_page_free: page=00000000ed7d54db pfn=0x1b2883 order=0
            bash-9       [012] dnh3. 123456.000005: alloc_vmap_area: va_start: 18446683600570826752 size=20480 align=16384 vstart=0xffffc90000000000 vend=0xffffe8ffffffffff failed=0
";
    assert_eq!(form::check_linux(lines), 3);
    for wrong in [
        "bash-9       [012] ..... 17.000005: mm_page_free: page=00000000ed7d54db pfn=0x1 order=0",
        "            bash-9       [012] .....    17.000005: mm_page_free: page=0xed7d54db pfn=0x1 order=0",
        "            bash-9       [012] .....    17.000005: mm_page_free: page=00000000ed7d54db pfn=0x1",
        "            bash-9       [012] .....    17.000005: mm_page_free: page=00000000ed7d54db pfn=1 order=0",
        "            bash-9       [012] ...x.    17.000005: mm_page_free: page=00000000ed7d54db pfn=0x1 order=0",
    ] {
        assert!(std::panic::catch_unwind(|| form::check_linux(wrong)).is_err(), "{wrong}");
    }
    let Some(folder) = std::env::var_os("KMEM_TRACES") else { return };
    let files = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
    let checked: usize = files.map(|text| form::check_linux(&text)).sum();
    assert!(checked > 0);
}
