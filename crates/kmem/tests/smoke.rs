//! The page allocator on one CPU.
use kmem::platform::desk::Desk;
use kmem::*;
use std::mem::MaybeUninit;

fn ram(bytes: usize) -> Vec<MaybeUninit<u8>> {
    let mut v = Vec::with_capacity(bytes);
    unsafe { v.set_len(bytes) };
    v
}

#[test]
fn smoke() {
    let mut ram = ram(65 << 20);
    let desk = unsafe { Desk::<12>::new(&mut ram) };
    let mm = Mm::new(desk);
    println!("Mm {} bytes", std::mem::size_of_val(&mm));
    assert_eq!(mm.alloc_pages(GFP_KERNEL, 0), Err(AllocError::NotBooted));
    mm.boot(
        MemoryMap::new().ram(0..64 << 20, NodeId::ZERO),
        Setup::new().dma_limit(PhysAddr::new(16 << 20)),
    )
    .unwrap();
    mm.verify().unwrap();
    let free = mm.free_page_count();
    println!("free {free} metadata {}", mm.metadata_bytes());
    let mut held = vec![];
    for order in 0..=10 {
        for _ in 0..3 {
            held.push((mm.alloc_pages(GFP_KERNEL, order).unwrap(), order));
        }
    }
    mm.verify().unwrap();
    for (page, order) in held.drain(..) {
        unsafe { mm.__free_pages(page, order) };
    }
    mm.verify().unwrap();
    assert_eq!(mm.free_page_count(), free);
    mm.drain_all_pages();
    mm.verify().unwrap();
    let p = mm.alloc_page(GFP_KERNEL).unwrap();
    unsafe { mm.__free_page(p) };
    unsafe { mm.__free_page(p) };
    assert_eq!(mm.platform().misuses(), 1);
    let mut n = 0;
    while mm.alloc_page(GFP_KERNEL).is_ok() {
        n += 1;
    }
    println!("{n} until failure, {} free", mm.free_page_count());
    mm.verify().unwrap();

    for z in mm.zones() {
        println!("{} {:?} {:?}", z.name(), z.watermarks(), (z.present_pages(), z.managed_pages(), z.free_pages()));
    }
}

#[test]
fn speed() {
    let mut ram = ram(513 << 20);
    let desk = unsafe { Desk::<12>::new(&mut ram) };
    let mm = Mm::new(desk);
    mm.boot(MemoryMap::new().ram(0..512 << 20, NodeId::ZERO), Setup::new().cpus(2)).unwrap();
    for order in [0, 3, 9] {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let t = std::time::Instant::now();
            for _ in 0..100_000 {
                let p = std::hint::black_box(mm.alloc_pages(GFP_KERNEL, order).unwrap());
                unsafe { mm.__free_pages(p, order) };
            }
            best = best.min(t.elapsed().as_nanos() as f64 / 1e5);
        }
        println!("pair order {order}: {best:.2} ns");
        let n = if order == 0 { 10000 } else if order == 3 { 1000 } else { 200 };
        let mut v = Vec::with_capacity(n);
        let (mut ba, mut bf) = (f64::MAX, f64::MAX);
        for _ in 0..50 {
            let t = std::time::Instant::now();
            for _ in 0..n {
                v.push(mm.alloc_pages(GFP_KERNEL, order).unwrap());
            }
            ba = ba.min(t.elapsed().as_nanos() as f64 / n as f64);
            let t = std::time::Instant::now();
            for p in v.drain(..) {
                unsafe { mm.__free_pages(p, order) };
            }
            bf = bf.min(t.elapsed().as_nanos() as f64 / n as f64);
        }
        println!("fifo order {order}: alloc {ba:.2} free {bf:.2} sum {:.2} ns", ba + bf);
    }
}
