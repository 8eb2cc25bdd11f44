//! What is set when a module is loaded, and by what names.

use crate::Kind;

/// What is set when a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// How many devices there are: scull0, scull1 and so on.
    pub devices: u64,
    /// How large a quantum is: its bytes, for scullp the order of its pages ([`Kind::size`]).
    pub size: u64,
    /// How many quanta a quantum set has.
    pub qset: u64,
    /// How many bytes a device may hold, its quanta, sets and list items together; 0: any number.
    /// What an allocator adds to them is not counted.
    pub quota: u64,
}

impl Parameters {
    /// The parameters of a kind by name, in the order in which they are listed.
    pub fn named(self, kind: &Kind) -> [(&'static str, u64); 4] {
        [
            ("devices", self.devices),
            (kind.size, self.size),
            ("qset", self.qset),
            ("quota", self.quota),
        ]
    }

    /// The place of a parameter by its name; `None` where a kind has no such parameter.
    pub fn by_name(&mut self, kind: &Kind, name: &str) -> Option<&mut u64> {
        Some(match name {
            "devices" => &mut self.devices,
            "qset" => &mut self.qset,
            "quota" => &mut self.quota,
            name if name == kind.size => &mut self.size,
            _ => return None,
        })
    }
}
