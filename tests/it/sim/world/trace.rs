//! The trace of a world: what differs between two runs of one seed shows in its hash.

/// See the module.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    printing: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, printing: false }
    }
}

impl Trace {
    /// From now on every line is printed.
    pub(super) fn print(&mut self) {
        self.printing = true;
    }

    /// Adds a line.
    pub(super) fn note(&mut self, at: i64, what: &str) {
        if self.printing {
            println!("{at} {what}");
        }
        // FNV-1a: quick, and nobody forges a trace.
        for byte in at.to_be_bytes().iter().chain(what.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}
