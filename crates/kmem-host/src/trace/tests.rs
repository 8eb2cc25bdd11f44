//! Recording, as the rings and the clock are, without a machine.

use super::*;
use kmem::VirtAddr;

/// An event with a number.
fn event(number: usize) -> Event {
    Event::PerCpuChunk { base: VirtAddr::new(number) }
}

fn numbers(records: &[Record]) -> Vec<usize> {
    let of = |record: &Record| match record.event {
        Event::PerCpuChunk { base } => base.get(),
        _ => unreachable!(),
    };
    records.iter().map(of).collect()
}

#[test]
fn what_finds_no_place_is_counted_where_it_is_missing() {
    let recorder = Recorder::new(2);
    let cpu = CpuId::new(1);
    let mut records = Vec::new();
    for round in 0..2 {
        (0..PLACES + 7).for_each(|number| recorder.record(cpu, &event(number)));
        records.clear();
        recorder.take(&mut records);
        assert_eq!(numbers(&records), (0..PLACES).collect::<Vec<_>>());
        // Those before the first that found a place again.
        assert_eq!(records[0].lost, if round == 0 { 0 } else { 7 });
        assert!(records[1..].iter().all(|record| record.lost == 0 && record.cpu == 1));
    }
    assert_eq!(recorder.lost_at_end().collect::<Vec<_>>(), [(1, 7)]);
    recorder.record(None, &event(0));
    assert_eq!(recorder.lost(), 15);
}

#[test]
fn what_is_not_certain_to_be_next_is_kept_back() {
    let recorder = Recorder::new(2);
    let mut records = Vec::new();
    recorder.record(CpuId::new(0), &event(0));
    let complete = recorder.take(&mut records);
    assert!(records[0].time < complete);
    // A CPU in the middle of a write that another one overtakes.
    let begun = now();
    recorder.cpus[0].since.store(begun, SeqCst);
    recorder.record(CpuId::new(1), &event(1));
    // What interrupts it leaves its mark where it is.
    recorder.record(CpuId::new(0), &event(2));
    assert_eq!(recorder.cpus[0].since.load(SeqCst), begun);
    records.clear();
    assert_eq!(recorder.take(&mut records), begun);
    assert!(records.iter().all(|record| record.time >= begun) && records.len() == 2);
    recorder.cpus[0].since.store(0, SeqCst);
    records.clear();
    assert!(recorder.take(&mut records) > begun);
}

#[test]
fn nothing_is_later_than_what_was_said_to_be_complete() {
    const EACH: usize = 20_000;
    let recorder = Recorder::new(3);
    let mut counts = [0; 3];
    std::thread::scope(|scope| {
        for cpu in 0..3 {
            let recorder = &recorder;
            scope.spawn(move || {
                for number in 0..EACH {
                    recorder.record(CpuId::new(cpu), &event(number));
                }
            });
        }
        let mut complete = 0;
        while counts.iter().sum::<usize>() as u64 + recorder.lost() < 3 * EACH as u64 {
            let mut records = Vec::new();
            let next = recorder.take(&mut records);
            for record in records {
                assert!(record.time >= complete, "an event came late");
                counts[usize::from(record.cpu)] += 1;
            }
            complete = next;
        }
    });
}

#[test]
fn the_header_is_as_long_for_any_counts() {
    let text = |kept, written| text::header(kept, written, 2);
    let longest = text(u64::MAX, u64::MAX);
    for (kept, written) in [(0, 0), (9, 10), (12345, 99999999)] {
        assert_eq!(text(kept, written).len(), longest.len());
    }
    assert!(
        text(48741, 48741).contains("# entries-in-buffer/entries-written: 48741/48741   #P:2\n#")
    );
}
