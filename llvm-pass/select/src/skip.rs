//! Why a store is left alone, and the statistics of a module.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a store is not instrumented.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Skip { $($(#[$doc])* $name,)* }
        impl Skip {
            /// Every reason.
            pub const ALL: &'static [Skip] = &[$(Skip::$name,)*];
            /// The reason's name in statistics.
            pub fn name(self) -> &'static str {
                match self { $(Skip::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// A local variable.
    Stack = "stack",
    /// A by-value argument: the callee's own stack slot.
    ByValue = "byval",
    /// A global or thread-local variable.
    Global = "global",
    /// Fresh memory from the C library's allocator.
    Malloc = "malloc",
    /// Null, undefined, or a constant address outside the tracked range.
    Constant = "constant",
    /// Every input of a phi or select is one of the above.
    Mixed = "mixed",
    /// An argument of an internal function that every caller passes untracked memory in.
    Argument = "argument",
    /// The result of an internal function that only returns untracked memory.
    Returned = "returned",
    /// Another address space.
    AddressSpace = "address-space",
    /// Writes nothing (length 0).
    Empty = "empty",
    /// The function is marked `vernal_skip`, or is naked.
    Function = "function",
}

/// Counters of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Functions with a body.
    pub functions: u64,
    /// Functions that got at least one mark.
    pub functions_marked: u64,
    /// Stores and other writers seen.
    pub stores: u64,
    /// Of them, instrumented.
    pub instrumented: u64,
    /// Of them, covered by a mark after a loop.
    pub in_loops: u64,
    /// Range checks emitted.
    pub checks: u64,
    /// Marks emitted behind those checks.
    pub marks: u64,
    /// Writers about which a warning was given.
    pub warnings: u64,
    /// Skipped stores by reason, indexed as [`Skip::ALL`].
    pub skipped: Vec<u64>,
}

impl Counters {
    /// Counts a skipped store.
    pub fn skip(&mut self, why: Skip) {
        self.stores += 1;
        self.skipped.resize(Skip::ALL.len(), 0);
        self.skipped[why as usize] += 1;
    }

    /// One JSON object, without a line break.
    pub fn json(&self, module: &str) -> String {
        let mut name = String::new();
        for c in module.chars() {
            match c {
                '"' | '\\' => name.extend(['\\', c]),
                c if (c as u32) < 0x20 => name.push_str(&format!("\\u{:04x}", c as u32)),
                c => name.push(c),
            }
        }
        let skipped: Vec<String> = Skip::ALL
            .iter()
            .map(|&s| {
                let n = self.skipped.get(s as usize).copied().unwrap_or(0);
                format!("\"{}\":{n}", s.name())
            })
            .collect();
        format!(
            "{{\"module\":\"{name}\",\"functions\":{},\"functions_marked\":{},\"stores\":{},\"instrumented\":{},\
             \"in_loops\":{},\"checks\":{},\"marks\":{},\"warnings\":{},\"skipped\":{{{}}}}}",
            self.functions,
            self.functions_marked,
            self.stores,
            self.instrumented,
            self.in_loops,
            self.checks,
            self.marks,
            self.warnings,
            skipped.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_and_counts() {
        let mut c = Counters::default();
        c.skip(Skip::Stack);
        c.skip(Skip::Global);
        let json = c.json("a\"b\\c\n");
        assert!(
            json.starts_with("{\"module\":\"a\\\"b\\\\c\\u000a\""),
            "{json}"
        );
        assert!(
            json.contains("\"stores\":2")
                && json.contains("\"stack\":1")
                && json.contains("\"malloc\":0")
        );
    }
}
