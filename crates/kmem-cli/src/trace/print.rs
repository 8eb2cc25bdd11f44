//! The summary, for people and for programs.

use std::fmt::Write as _;
use std::io::{Write, stdout};

use serde_json::{Map, Value, json};

use super::Summary;
use super::tally::{Layer, OfLayer, Use};
use crate::console;
use crate::exit::Exit;

/// Prints it for people.
pub fn text(name: &str, summary: &Summary, top: usize) -> Result<(), Exit> {
    let mut out = String::new();
    // A text takes all that is written to it.
    let _ = write_text(&mut out, name, summary, top);
    put(&out)
}

fn put(out: &str) -> Result<(), Exit> {
    let mut stdout = stdout().lock();
    stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()).map_err(Exit::not_printed)
}

fn write_text(out: &mut String, name: &str, summary: &Summary, top: usize) -> std::fmt::Result {
    let Summary { tally, events, lost, unknown, cpus, .. } = summary;
    let micros = summary.last.saturating_sub(summary.first);
    writeln!(
        out,
        "{}: {events} events in {}.{:06} s on {}",
        console::printable(name),
        micros / 1_000_000,
        micros % 1_000_000,
        kmem_shell::Count(*cpus, "CPU")
    )?;
    for (count, what) in [
        (*lost, "events were lost: the counts below are too small"),
        (*unknown, "lines were not understood"),
        (tally.unreadable, "events lack a field, or have one that makes no sense"),
    ] {
        if count != 0 {
            writeln!(out, "{count} {what}")?;
        }
    }

    writeln!(out, "\n{:<30} {:>10}", "event", "count")?;
    let mut by_count: Vec<_> = tally.events.iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (event, count) in by_count {
        writeln!(out, "{event:<30} {count:>10}")?;
    }

    let layers = Layer::ALL.map(|layer| (layer, tally.layer(layer)));
    let layers: Vec<_> = layers.iter().filter(|(_, of)| *of != OfLayer::default()).collect();
    writeln!(
        out,
        "\n{:<8} {:>11} {:>14} {:>10} {:>14} {:>14}",
        "memory", "allocations", "bytes", "live", "bytes live", "most live"
    )?;
    for (layer, OfLayer { total, peak, .. }) in &layers {
        let Use { allocations, bytes, live, live_bytes } = total;
        let name = layer.name();
        writeln!(
            out,
            "{name:<8} {allocations:>11} {bytes:>14} {live:>10} {live_bytes:>14} {peak:>14}"
        )?;
    }
    writeln!(
        out,
        "\n{:<8} {:>11} {:>14} {:>10} {:>14} {:>14}",
        "memory", "freed", "freed, unseen", "of null", "reused", "failed"
    )?;
    for (layer, OfLayer { freed, freed_unseen, freed_null, reused, failed, .. }) in &layers {
        let name = layer.name();
        writeln!(
            out,
            "{name:<8} {freed:>11} {freed_unseen:>14} {freed_null:>10} {reused:>14} {failed:>14}"
        )?;
    }

    if !tally.orders.is_empty() {
        writeln!(
            out,
            "\n{:<5} {:>11} {:>14} {:>10}",
            "order", "allocations", "bytes", "pages live"
        )?;
        for (order, Use { allocations, bytes, live, .. }) in &tally.orders {
            writeln!(out, "{order:<5} {allocations:>11} {bytes:>14} {live:>10}")?;
        }
    }

    let callers = tally.callers();
    if !callers.is_empty() && top > 0 {
        writeln!(
            out,
            "\n{:>11} {:>14} {:>10} {:>14}  caller",
            "allocations", "bytes", "live", "bytes live"
        )?;
        for (caller, _, Use { allocations, bytes, live, live_bytes }) in callers.iter().take(top) {
            let caller = console::printable(caller);
            writeln!(out, "{allocations:>11} {bytes:>14} {live:>10} {live_bytes:>14}  {caller}")?;
        }
        if let Some(more) = callers.len().checked_sub(top).filter(|more| *more > 0) {
            writeln!(out, "and {}: --top N prints more", kmem_shell::Count(more as u64, "caller"))?;
        }
    }
    Ok(())
}

/// Prints it for programs.
pub fn json(name: &str, summary: &Summary) -> Result<(), Exit> {
    let Summary { tally, events, first, last, cpus, lost, unknown } = summary;
    let of_use = |of: &Use| {
        json!({
            "allocations": of.allocations, "bytes": of.bytes, "live": of.live, "live_bytes": of.live_bytes
        })
    };
    let memory: Map<String, Value> = Layer::ALL
        .into_iter()
        .map(|layer| {
            let of = tally.layer(layer);
            let value = json!({
                "allocations": of.total.allocations,
                "bytes": of.total.bytes,
                "bytes_asked": of.asked,
                "live": of.total.live,
                "live_bytes": of.total.live_bytes,
                "peak_bytes": of.peak,
                "freed": of.freed,
                "freed_unseen": of.freed_unseen,
                "freed_null": of.freed_null,
                "reused": of.reused,
                "failed": of.failed,
            });
            (layer.name().to_owned(), value)
        })
        .collect();
    let orders = tally.orders.iter().map(|(order, of)| (order.to_string(), of_use(of)));
    let orders: Map<String, Value> = orders.collect();
    let callers: Vec<Value> = tally
        .callers()
        .iter()
        .map(|(caller, layer, of)| {
            let mut value = of_use(of);
            value["caller"] = json!(caller);
            value["memory"] = json!(layer.name());
            value
        })
        .collect();
    let value = json!({
        "file": name,
        "events": events,
        "microseconds": last.saturating_sub(*first),
        "cpus": cpus,
        "lost": lost,
        "not_understood": unknown,
        "unreadable": tally.unreadable,
        "by_event": tally.events,
        "memory": memory,
        "orders": orders,
        "callers": callers,
    });
    put(&format!("{value:#}\n"))
}
