//! Cuts JSON into parts that are read one by one, so that one broken object of a list leaves its neighbours alone and no
//! object goes through an untyped value.
//!
//! Only brackets and strings are looked at: whether a part is JSON at all is for those to say who read it.

/// The fields of an object: names as they are written (without quotes) and values as text. `None` when the brackets do not
/// match, or it is not an object.
pub(super) fn fields(json: &str) -> Option<Vec<(&str, &str)>> {
    let mut cursor = Cursor { json, at: 0 };
    cursor.open(b'{')?;
    let mut fields = Vec::new();
    while !cursor.close(b'}')? {
        let name = cursor.value()?;
        let name = name.strip_prefix('"')?.strip_suffix('"')?;
        cursor.expect(b':')?;
        fields.push((name, cursor.value()?));
    }
    Some(fields)
}

/// The elements of a list, or none of `null`. `None` when the brackets do not match, or it is not a list.
pub(super) fn elements(json: &str) -> Option<Vec<&str>> {
    if json.trim_ascii() == "null" {
        return Some(Vec::new());
    }
    let mut cursor = Cursor { json, at: 0 };
    cursor.open(b'[')?;
    let mut elements = Vec::new();
    while !cursor.close(b']')? {
        elements.push(cursor.value()?);
    }
    Some(elements)
}

struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.as_bytes().get(self.at..)?;
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.json.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn open(&mut self, bracket: u8) -> Option<()> {
        self.expect(bracket)
    }

    /// Whether the end is reached; takes the comma before what follows.
    fn close(&mut self, bracket: u8) -> Option<bool> {
        match self.peek()? {
            byte if byte == bracket => {
                self.at += 1;
                Some(true)
            }
            b',' => {
                self.at += 1;
                Some(false)
            }
            _ => Some(false),
        }
    }

    fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.json.as_bytes().get(self.at)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' | b':' if depth == 0 => break,
                byte if depth == 0 && byte.is_ascii_whitespace() => break,
                _ => self.at += 1,
            }
        }
        // Every step above moves over ASCII or within a character, and ends before ASCII: this is a border of characters.
        let value = self.json.get(start..self.at)?;
        (!value.is_empty()).then_some(value)
    }

    /// Moves behind a string.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.json.as_bytes().get(self.at)? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_objects_are_cut_where_their_parts_end() {
        let json =
            r#" {"kind":"List", "metadata":{"a":"}]\"","b":[1,{"c":2}]} ,"items" : [ {"x":"[,"} , 3,"é\\",null] } "#;
        let fields = fields(json).unwrap();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["kind", "metadata", "items"]);
        assert_eq!(fields[1].1, r#"{"a":"}]\"","b":[1,{"c":2}]}"#);
        assert_eq!(elements(fields[2].1).unwrap(), [r#"{"x":"[,"}"#, "3", r#""é\\""#, "null"]);
        assert_eq!(elements("[]"), Some(vec![]));
        assert_eq!(elements("null"), Some(vec![]));
    }

    #[test]
    fn the_parts_of_what_serde_writes_are_what_serde_reads() {
        let value = serde_json::json!({
            "items": [{"a": "\"\\\u{1F980}\n", "b": [[], {}, [{}]], "c": -1.5e3, "d": true}, "x", [], null],
            "metadata": {"continue": "a,b:{c}"},
        });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let fields = fields(&text).unwrap();
            for (name, part) in &fields {
                assert_eq!(serde_json::from_str::<serde_json::Value>(part).unwrap(), value[*name]);
            }
            let items = elements(fields[0].1).unwrap();
            let read: Vec<serde_json::Value> = items.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            assert_eq!(serde_json::Value::from(read), value["items"]);
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let text = r#"{"items":[{"a":"b\""},[1,2]],"x":"y"}"#;
        assert!(fields(text).is_some());
        for end in 0..text.len() {
            assert_eq!(fields(&text[..end]), None, "{}", &text[..end]);
        }
        for hostile in ["", "[", "]", "{]", "{\"a\"}", "{:}", "{\"a\":}", "\"", "\\"] {
            assert_eq!(fields(hostile), None, "{hostile}");
        }
    }
}
