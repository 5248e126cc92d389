//! Nonces of one stream.

/// Issues nonces; each is unique on its stream.
#[derive(Debug, Default)]
pub(super) struct Nonces(u64);

impl Nonces {
    /// The next nonce.
    pub(super) const fn issue(&mut self) -> Nonce {
        self.0 += 1;
        Nonce(self.0)
    }
}

/// A response's nonce, kept as a number: a session remembers up to two for each type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce(u64);

impl Nonce {
    /// The text on the wire.
    pub(super) fn text(self) -> String {
        format!("{:x}", self.0)
    }

    /// Whether `text` is this nonce.
    pub(super) fn is(self, text: &str) -> bool {
        // Only the canonical text: `from_str_radix` alone would accept a sign and leading zeros.
        u64::from_str_radix(text, 16) == Ok(self.0) && !text.starts_with(['+', '0'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_recognised_only_in_its_own_text() {
        let mut nonces = Nonces::default();
        let (first, second) = (nonces.issue(), nonces.issue());
        assert!(first.is(&first.text()));
        for other in [second.text(), "01".into(), "+1".into(), String::new(), "x".into()] {
            assert!(!first.is(&other), "{other}");
        }
    }
}
