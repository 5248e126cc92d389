//! As much DER as is needed to put an issuer's exact name into a certificate: reading one element, writing a few.
//!
//! `rcgen` rebuilds names from their parts and loses repeated ones (`DC=corp, DC=example`), but a name must be the same
//! byte for byte in a certificate and in its issuer (RFC 5280, section 7.1, and what verifiers really compare).

/// Tag of a SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// Tag of the version in a TBSCertificate.
pub(crate) const VERSION: u8 = 0xa0;
/// Tag of an OBJECT IDENTIFIER.
pub(crate) const OID: u8 = 0x06;
/// The only encoding of NULL.
pub(crate) const NULL: &[u8] = &[0x05, 0];
/// Tag of a BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;

/// One element: tag, whole encoding, content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) whole: &'a [u8],
    pub(crate) content: &'a [u8],
}

/// Reads the first element and what follows it. `None` for anything but definite lengths of at most four bytes.
pub(crate) fn read(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    let whole = input.get(..input.len() - after.len())?;
    Some((Element { tag, whole, content }, after))
}

/// Writes an element whose content is these pieces one after the other.
pub(crate) fn write(tag: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            let digits = digits.get(zeros..).unwrap_or_default();
            // At most eight digits, so the count fits in seven bits.
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend_from_slice(digits);
        }
    }
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_use_the_short_form_up_to_127() {
        for (length, header) in [(0, &[0x30, 0][..]), (127, &[0x30, 0x7f]), (128, &[0x30, 0x81, 0x80])] {
            assert_eq!(&write(SEQUENCE, &[&vec![7; length]])[..header.len()], header);
        }
        assert_eq!(&write(SEQUENCE, &[&vec![7; 65_536]])[..5], [0x30, 0x83, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in any::<u8>(), content in prop::collection::vec(any::<u8>(), 0..400), rest in any::<[u8; 3]>()) {
            let mut bytes = write(tag, &[&content]);
            let length = bytes.len();
            bytes.extend_from_slice(&rest);
            let (element, after) = read(&bytes).unwrap();
            prop_assert_eq!(element, Element { tag, whole: &bytes[..length], content: &content });
            prop_assert_eq!(after, rest);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((element, rest)) = read(&bytes) {
                prop_assert_eq!(element.whole.len() + rest.len(), bytes.len());
            }
        }
    }
}
