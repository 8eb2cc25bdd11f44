//! Memory at boot, on a whole machine: the command line, and early code.

use std::ptr::NonNull;
use std::sync::Arc;

use kmem::boot::BootMemError;
use kmem::boot::memblock::Wanted;
use kmem::platform::DirectMap;
use kmem::{CpuId, PhysAddr, VirtAddr, report};
use kmem_host::{Description, HostError, Machine};

fn described(settings: &[&str]) -> Description {
    let mut description = Description::preset("ldd2-i386").unwrap();
    settings.iter().for_each(|setting| description.set(setting).unwrap());
    description
}

fn boot(settings: &[&str]) -> Arc<Machine> {
    Machine::boot(&described(settings)).unwrap_or_else(|error| panic!("{error}"))
}

fn iomem(machine: &Machine) -> String {
    let mut text = String::new();
    machine.run(|| report::iomem(machine.mm(), &mut text)).unwrap();
    text
}

fn physical(machine: &Machine, memory: NonNull<u8>) -> u64 {
    let seen = VirtAddr::from_ptr(memory.as_ptr());
    machine.host().virt_to_phys(seen).unwrap().get()
}

/// A256
#[test]
fn bigphysarea_is_reserved_at_the_start_of_memory() {
    // The kernel's image has 1 to 3 MiB.
    let machine = boot(&["command_line=bigphysarea=512"]);
    let text = iomem(&machine);
    assert!(text.contains("  00300000-00500fff : bigphysarea\n"), "{text}");
    machine.run(|| {
        let memory = machine.mm().bigphysarea_alloc(2 << 20).unwrap();
        assert_eq!(physical(&machine, memory), 3 << 20);
        let mut text = String::new();
        report::bigphysarea(machine.mm(), &mut text).unwrap();
        let expected =
            "area: 00300000-004fffff\npages: 512\nused: 512 in 1 blocks\nlongest free: 0\n";
        assert_eq!(text, expected);
        // SAFETY: the test's own.
        unsafe { machine.mm().bigphysarea_free(memory) };
    });
    let end = machine.shutdown();
    assert!(end.is_clean(), "{end}");
}

/// A247, A248, A250, A252, A253
#[test]
fn early_code_gets_memory_and_late_code_is_refused() {
    for keep in [false, true] {
        let description = described(&[&format!("keep_boot_memory={keep}")]);
        let mut given = None;
        let machine = Machine::<12>::boot_early(&description, kmem::NoReclaim, |host, boot| {
            let normal = boot.alloc_bootmem_pages(host, 5 << 20).unwrap();
            let low = boot.alloc_bootmem_low(host, 100).unwrap();
            let named = boot.memblock_alloc(host, "ring", &Wanted::new(4096, 4096)).unwrap();
            given = Some((normal, low, named));
        });
        let machine = machine.unwrap_or_else(|error| panic!("{error}"));
        let (normal, low, named) = given.unwrap();
        assert_eq!(physical(&machine, normal), 16 << 20, "above what ISA devices reach");
        assert!(physical(&machine, low) < 640 << 10);
        let text = iomem(&machine);
        assert!(text.contains("  01000000-014fffff : bootmem\n"), "{text}");
        let (ring, last) = (physical(&machine, named), physical(&machine, named) + 4095);
        assert!(text.contains(&format!("  {ring:08x}-{last:08x} : ring\n")), "{text}");
        let late = machine.run(|| machine.boot_mem().alloc_bootmem(machine.host(), 1));
        assert_eq!(late, Err(BootMemError::HandedOver));
        assert!(machine.misuses()[0].contains("a boot-time call after boot"));
        let range = PhysAddr::new(16 << 20)..PhysAddr::new(21 << 20);
        // SAFETY: nothing uses it any more.
        let released = machine.run_on(CpuId::BOOT, || unsafe { machine.mm().release_late(range) });
        assert_eq!(released.ok(), (!keep).then_some(5 << 8));
        assert_eq!(iomem(&machine).contains("01000000-014fffff : bootmem"), keep);
    }
    assert!(Description::preset("ldd2-i386").unwrap().keep_boot_memory, "the kernels of the text");
}

/// Each refusal names the key and the word, and says what there is and what to do.
#[test]
fn a_command_line_that_makes_no_sense_is_refused_with_its_key() {
    for (line, parts) in [
        ("quiet mem=12X", ["command_line = mem=12X ", "such as mem=126M"]),
        ("bigphysarea=4M", ["command_line = bigphysarea=4M ", "such as bigphysarea=512"]),
        // What a machine of this size does not have.
        ("bigphysarea=16384", ["command_line = bigphysarea=16384 ", "give at most bigphysarea="]),
        ("bigphysarea=16300", ["command_line = bigphysarea=16300 ", "page descriptors and tables"]),
        (
            "mem=1M bigphysarea=256",
            ["command_line = bigphysarea=256 ", "give at most bigphysarea="],
        ),
        ("mem=8K", ["command_line = mem=8K ", "the 8K of free low memory"]),
        ("mem=1", ["command_line = mem=1 ", "give a higher mem="]),
    ] {
        let mut description = Description::preset("tiny").unwrap();
        description.set(&format!("command_line={line}")).unwrap();
        let error = Machine::<12>::boot(&description).err().unwrap();
        assert!(matches!(error, HostError::Description(_)), "{line}: {error}");
        let error = error.to_string();
        for part in parts {
            assert!(error.contains(part) && !error.contains("0x"), "{line}: {error}");
        }
    }
}

/// What a refusal says is the most is to be had.
#[test]
fn as_much_is_set_aside_as_a_refusal_says() {
    for preset in ["tiny", "ldd2-i386", "holes", "numa2", "lkd-i386"] {
        let mut description = Description::preset(preset).unwrap();
        let mut try_with = |pages: u64| {
            description.set(&format!("command_line=bigphysarea={pages}")).unwrap();
            description.check().map_err(|error| error.to_string())
        };
        let error = try_with(1 << 40).unwrap_err();
        let most = error.split("at most bigphysarea=").nth(1).unwrap().split(',').next().unwrap();
        let most = most.parse().unwrap();
        assert!(try_with(most + 1).is_err(), "{preset}: {most}");
        assert_eq!(try_with(most), Ok(()), "{preset}");
        let machine = Machine::<12>::boot(&description).unwrap();
        assert_eq!(machine.mm().bigphysarea_usage().unwrap().pages, most, "{preset}");
    }
}

#[test]
fn a_command_line_is_part_of_a_description() {
    let mut holes = Description::preset("holes").unwrap();
    holes.set("command_line=mem=2M quiet").unwrap();
    assert_eq!(Description::from_toml(&holes.to_toml()).unwrap(), holes);
}
