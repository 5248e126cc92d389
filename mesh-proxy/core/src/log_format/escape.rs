//! Keeps values of strangers from breaking a log line: controls never reach the file, whatever a peer sent.

/// Where a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A line of text.
    Text,
    /// A JSON string.
    Json,
}

impl Style {
    /// Appends `value` so that it cannot be taken for anything but a value.
    pub(super) fn escape(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Text => text(value, out),
            Self::Json => json(value, out),
        }
    }
}

/// Appends `value` for a text line: controls (C0, DEL, C1) and bytes that are not UTF-8 as `\xNN`, the rest as it is.
fn text(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut buffer = [0; 4];
                character.encode_utf8(&mut buffer).bytes().for_each(|byte| hex(byte, out));
            } else {
                push(character, out);
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(*byte, out));
    }
}

/// Appends `value` as the inside of a JSON string (RFC 8259 section 7). Bytes that are not UTF-8 become U+FFFD.
fn json(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                character if character.is_control() => {
                    out.extend_from_slice(b"\\u00");
                    digits(u8::try_from(u32::from(character)).unwrap_or_default(), out);
                }
                character => push(character, out),
            }
        }
        if !chunk.invalid().is_empty() {
            push(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn push(character: char, out: &mut Vec<u8>) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    digits(byte, out);
}

fn digits(byte: u8, out: &mut Vec<u8>) {
    for nibble in [byte >> 4, byte & 15] {
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}
