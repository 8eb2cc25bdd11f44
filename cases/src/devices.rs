//! G16: the sample devices scull, scullc and scullp.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `quanta.rs` | where each device's quanta come from |
//! | `contents.rs` | what is written is there, and `/proc` says where |
//! | `exhaustion.rs` | memory that runs out, and quotas |
//! | `density.rs` | 4 MB copied through each: how much work, how much memory |

mod contents;
mod density;
mod exhaustion;
mod quanta;

use scull::{Module, Parameters, Source};

use crate::pages::anywhere;
use crate::{Case, Facts, Failure, FreeOnDemand, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "scull grows by quanta from kmalloc, whose 4000 bytes fit under 4 KB",
                &["A303"],
                anywhere,
                quanta::scull,
            )
            .objects(),
            Case::new(
                "scull's quantum may change; a device takes the new one over when it is trimmed",
                &["A303"],
                anywhere,
                quanta::change,
            )
            .objects(),
            Case::new(
                "scullc's quanta are objects of the cache scullc, which is there while it is loaded",
                &["A304", "A307"],
                anywhere,
                quanta::scullc,
            )
            .objects(),
            Case::new(
                "scullc's quantum is set at load time, not at run time",
                &["A305"],
                anywhere,
                quanta::load_time,
            )
            .objects(),
            Case::new(
                "scullc is not loaded, with ENOMEM, where its cache cannot be made",
                &["A306"],
                anywhere,
                quanta::no_cache,
            )
            .objects(),
            Case::new(
                "scullp's quanta are 2^order pages, cleared, and freed with their order",
                &["A310"],
                anywhere,
                quanta::scullp,
            )
            .objects(),
            Case::new(
                "every new quantum is cleared",
                &["A306", "A310"],
                anywhere,
                contents::cleared,
            )
            .objects(),
            Case::new(
                "what was written stays until the device is trimmed or unloaded",
                &["A317"],
                anywhere,
                contents::persistence,
            )
            .objects(),
            Case::new(
                "/proc/scullpmem has the text's shape, and its sizes for a file of 1 MB",
                &["A315"],
                small_pages,
                contents::memory_file,
            )
            .objects(),
            Case::new(
                "wherever memory runs out, load and write fail with ENOMEM and lose nothing",
                &["A162", "A306"],
                anywhere,
                exhaustion::at_any_point,
            )
            .objects(),
            Case::new(
                "a device takes all memory there is; with a quota it does not, and others have some",
                &["A165", "A319"],
                anywhere,
                exhaustion::quota,
            )
            .objects(),
            Case::new(
                "scullc holds as much as scull in fewer pages",
                &["A309"],
                anywhere,
                density::scullc_against_scull,
            )
            .objects(),
            Case::new(
                "4 MB fill scullp's pages; through scull they take more calls and more pages",
                &["A311"],
                anywhere,
                density::scullp_against_scull,
            )
            .objects(),
        ]
    }
}

/// A module that is loaded on a case's machine.
pub(crate) type Loaded<'m, M, S> = Module<'m, S, <M as Machine>::P, FreeOnDemand>;

pub(crate) fn load<M: Machine, S: Source>(
    machine: &M,
    size: u64,
    qset: u64,
) -> Result<Loaded<'_, M, S>, Failure> {
    Ok(Module::load(machine.mm(), Parameters { size, qset, ..S::KIND.defaults })?)
}

fn small_pages(facts: &Facts) -> Result<(), &'static str> {
    if facts.page_shift == 12 { Ok(()) } else { Err("pages of 4 KiB, as in the text") }
}

impl From<scull::ScullError> for Failure {
    #[track_caller]
    fn from(_: scull::ScullError) -> Self {
        Failure::new("a call of the driver succeeds")
    }
}

/// The bytes of a quantum of a size.
fn quantum_bytes<M: Machine, S: Source>(machine: &M, size: u64) -> u64 {
    if S::KIND.size == "order" { machine.facts().page_bytes() << size } else { size }
}
