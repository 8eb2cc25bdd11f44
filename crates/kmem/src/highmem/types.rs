//! What a temporary mapping is for: the types of the texts (A274).

/// Defines the types, and for each a constant under the texts' name.
macro_rules! types {
    ($($variant:ident $name:ident: $purpose:literal;)*) => {
        /// What a temporary mapping is for: each CPU has a slot for each (A274).
        ///
        /// Code that may interrupt other code takes another type than that: a handler that takes the
        /// type of what it interrupted takes the slot away from it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum KmType {
            $(#[doc = $purpose] $variant,)*
        }

        $(
            #[doc = concat!($purpose, " (A274)")]
            pub const $name: KmType = KmType::$variant;
        )*

        impl KmType {
            /// All of them, in the order of their numbers.
            pub const ALL: [KmType; KM_TYPE_NR] = [$(KmType::$variant,)*];

            /// What the texts call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(KmType::$variant => stringify!($name),)*
                }
            }
        }
    };
}

types! {
    BounceRead KM_BOUNCE_READ: "Copying what was read through a bounce buffer.";
    SkbSunrpcData KM_SKB_SUNRPC_DATA: "Packets of remote procedure calls.";
    SkbDataSoftirq KM_SKB_DATA_SOFTIRQ: "Packets, in a softirq.";
    User0 KM_USER0: "Tasks.";
    User1 KM_USER1: "Tasks that have one already.";
    BioSrcIrq KM_BIO_SRC_IRQ: "What block I/O copies from, in an interrupt.";
    BioDstIrq KM_BIO_DST_IRQ: "What block I/O copies to, in an interrupt.";
    Pte0 KM_PTE0: "A page table.";
    Pte1 KM_PTE1: "A second page table.";
    Pte2 KM_PTE2: "A third page table.";
    Irq0 KM_IRQ0: "Interrupt handlers.";
    Irq1 KM_IRQ1: "Interrupt handlers that have one already.";
    Softirq0 KM_SOFTIRQ0: "Softirqs.";
    Softirq1 KM_SOFTIRQ1: "Softirqs that have one already.";
    SyncIcache KM_SYNC_ICACHE: "Keeping a cache of instructions right.";
    SyncDcache KM_SYNC_DCACHE: "Keeping a cache of data right.";
    UmlUsercopy KM_UML_USERCOPY: "Copying to and from a process, in user-mode Linux.";
    IrqPte KM_IRQ_PTE: "A page table, in an interrupt.";
    Nmi KM_NMI: "NMI handlers.";
    NmiPte KM_NMI_PTE: "A page table, in an NMI handler.";
}

/// How many types there are (A274).
pub const KM_TYPE_NR: usize = 20;
