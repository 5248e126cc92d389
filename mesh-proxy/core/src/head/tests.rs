use proptest::prelude::*;

use super::*;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn lines(head: &Head) -> Vec<String> {
    head.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
}

fn mk_request(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::request();
    for (name, value) in fields {
        head.append(*name, value.as_bytes()).unwrap();
    }
    head
}

#[test]
fn a_field_record_is_16_bytes() {
    assert_eq!(size_of::<Field>(), 16);
}

#[test]
fn request_parts_are_stored_and_split() {
    let mut head = Head::request();
    head.set_method(b"PURGE").unwrap();
    head.set_target(b"/a/b?x=1?y").unwrap();
    head.set_scheme(b"HTTPS").unwrap();
    head.set_authority(b"Shop.Example:8080").unwrap();
    assert_eq!((head.method(), text(head.method_text())), (Method::Other, "PURGE"));
    assert_eq!((text(head.path()), text(head.query().unwrap())), ("/a/b", "x=1?y"));
    assert_eq!(text(head.scheme().unwrap()), "https");
    assert_eq!((text(head.authority()), text(head.host_lower())), ("Shop.Example:8080", "shop.example:8080"));
    head.set_target(b"/plain").unwrap();
    assert_eq!((text(head.path()), head.query()), ("/plain", None));
    head.set_target(b"/q?").unwrap();
    assert_eq!(head.query(), Some(&b""[..]));
}

#[test]
fn pseudo_fields_map_to_parts() {
    let mut head = Head::request();
    for (name, value) in
        [(":method", "POST"), (":path", "/x"), (":authority", "h"), (":scheme", "http"), (":protocol", "websocket")]
    {
        assert_eq!(head.get(name).filter(|_| name != ":method"), None);
        head.set(name, value.as_bytes()).unwrap();
        assert_eq!(head.get(name).map(text), Some(value));
        assert_eq!(head.get_all(name).count(), 1);
    }
    assert_eq!(head.get("host"), Some(&b"h"[..]));
    assert_eq!(lines(&head), ["host: h"]);
    assert_eq!(head.set(":status", b"200"), Err(FieldError::Name));
    assert_eq!(head.append(":foo", b"1"), Err(FieldError::Name));

    let mut head = Head::response();
    assert_eq!(head.get(":status"), None);
    head.set(":status", b"404").unwrap();
    assert_eq!((head.status(), head.get(KnownName::PseudoStatus)), (404, Some(&b"404"[..])));
    for bad in ["99", "1000", "20x", "", "-1"] {
        assert_eq!(head.set(":status", bad.as_bytes()), Err(FieldError::Value), "{bad}");
    }
    assert_eq!(head.set(":path", b"/"), Err(FieldError::Name));
}

#[test]
fn lookups_ignore_case_and_keep_order() {
    let head = mk_request(&[("X-Foo", "1"), ("Via", "a"), ("x-foo", "2"), ("VIA", "b")]);
    assert_eq!(head.get("x-FOO").map(text), Some("1"));
    assert_eq!(head.get_all("x-foo").map(text).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(head.get_all(KnownName::Via).map(text).collect::<Vec<_>>(), ["a", "b"]);
    assert!(!head.contains(KnownName::Te) && !head.contains("x-fo"));
    assert_eq!(head.len(), 4);
}

#[test]
fn set_replaces_in_place_and_drops_duplicates() {
    let mut head = mk_request(&[("a", "1"), ("via", "x"), ("b", "2"), ("via", "y")]);
    head.set("Via", b"z").unwrap();
    head.set("a", b"9").unwrap();
    head.set("c", b"3").unwrap();
    assert_eq!(lines(&head), ["a: 9", "via: z", "b: 2", "c: 3"]);
}

#[test]
fn remove_forgets_all_of_a_name() {
    let mut head = mk_request(&[("te", "a"), ("x", "1"), ("TE", "b"), ("host", "H")]);
    assert!(head.remove("Te") && !head.remove("te") && head.remove("X") && !head.remove("x"));
    assert_eq!((head.get(KnownName::Te), head.len()), (None, 1));
    assert!(head.remove("host"));
    assert!(head.is_empty() && head.host_lower().is_empty() && head.authority().is_empty());
    head.append("te", b"c").unwrap();
    assert_eq!(head.get("te").map(text), Some("c"));
}

#[test]
fn retain_keeps_the_presence_mask_true() {
    let mut head = mk_request(&[("te", "a"), ("host", "h"), ("via", "v")]);
    head.retain(|field| field.known == Some(KnownName::Via));
    assert_eq!(lines(&head), ["via: v"]);
    assert!(!head.contains("te") && !head.contains("host") && head.contains("via"));
}

#[test]
fn lists_grow_in_the_first_field() {
    let mut head = mk_request(&[("X-Forwarded-For", "1.1.1.1"), ("y", "")]);
    head.append_to_list("x-forwarded-for", b"2.2.2.2").unwrap();
    head.append_to_list("y", b"v").unwrap();
    head.append_to_list("z", b"new").unwrap();
    assert_eq!(lines(&head), ["x-forwarded-for: 1.1.1.1, 2.2.2.2", "y: v", "z: new"]);
    assert_eq!(head.append_to_list("z", b"a\nb"), Err(FieldError::Value));
}

#[test]
fn there_is_one_host() {
    let mut head = mk_request(&[("host", "A")]);
    assert_eq!(head.append("Host", b"b"), Err(FieldError::Value));
    head.set_authority(b"C:1").unwrap();
    assert_eq!((lines(&head), text(head.host_lower())), (vec!["host: C:1".to_owned()], "c:1"));
    assert_eq!(head.set_authority(b"a b"), Err(FieldError::Value));
    assert_eq!(text(head.authority()), "C:1");
}

#[test]
fn invalid_input_is_refused_and_changes_nothing() {
    let mut head = mk_request(&[("a", "1")]);
    let before = head.clone();
    assert_eq!(head.append("a b", b"1"), Err(FieldError::Name));
    assert_eq!(head.append("", b"1"), Err(FieldError::Name));
    assert_eq!(head.append("x", b"1\r\nevil: 1"), Err(FieldError::Value));
    assert_eq!(head.set("a", b"\0"), Err(FieldError::Value));
    assert_eq!(head.set_target(b"/a b"), Err(FieldError::Value));
    assert_eq!(head.set_target(b"a"), Err(FieldError::Value));
    assert_eq!(head.set_target(b"/a#f"), Err(FieldError::Value));
    assert_eq!(head.set_method(b"GE T"), Err(FieldError::Value));
    assert_eq!(head.set_scheme(b"1http"), Err(FieldError::Value));
    assert_eq!(head.append("x", &vec![b'a'; MAX_ARENA_BYTES]), Err(FieldError::TooLarge));
    assert_eq!(head, before);
}

#[test]
fn clear_keeps_memory_and_forgets_content() {
    let mut head = mk_request(&[("a", "1"), ("host", "H")]);
    head.set_target(b"/x").unwrap();
    let memory = head.memory_bytes();
    head.clear();
    assert_eq!(head, Head::request());
    assert_eq!((head.memory_bytes(), head.contains("host")), (memory, false));
    head.reset(Kind::Trailers);
    assert_eq!(head, Head::trailers());
    head.shrink_to(0);
    assert_eq!(head.memory_bytes(), 0);
}

#[test]
fn credentials_are_not_in_debug_output() {
    let head = mk_request(&[("authorization", "Bearer s3cret"), ("x", "shown")]);
    let shown = format!("{head:?}");
    assert!(shown.contains("shown") && !shown.contains("s3cret"), "{shown}");
}

#[derive(Clone, Debug)]
enum Edit {
    Set(String, String),
    Append(String, String),
    List(String, String),
    Remove(String),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let name = prop::sample::select(vec!["te", "TE", "via", "x-a", "X-A", "x-b", "x-request-id", "cookie"]);
    let pair = || (name.clone().prop_map(str::to_owned), "[a-z]{0,4}");
    prop::collection::vec(
        prop_oneof![
            pair().prop_map(|(name, value)| Edit::Set(name, value)),
            pair().prop_map(|(name, value)| Edit::Append(name, value)),
            pair().prop_map(|(name, value)| Edit::List(name, value)),
            pair().prop_map(|(name, _)| Edit::Remove(name)),
        ],
        0..40,
    )
}

proptest! {
    /// A plain list of pairs is the specification of edits.
    #[test]
    fn edits_agree_with_a_plain_list(edits in edits()) {
        let mut head = Head::request();
        let mut model: Vec<(String, String)> = Vec::new();
        for edit in edits {
            let same = |name: &str| { let name = name.to_owned(); move |pair: &(String, String)| pair.0.eq_ignore_ascii_case(&name) };
            match edit {
                Edit::Set(name, value) => {
                    head.set(name.as_str(), value.as_bytes()).unwrap();
                    if let Some(place) = model.iter().position(same(&name)) {
                        let mut seen = false;
                        model.retain(|pair| !same(&name)(pair) || !std::mem::replace(&mut seen, true));
                        model[place].1 = value;
                    } else {
                        model.push((name, value));
                    }
                }
                Edit::Append(name, value) => {
                    head.append(name.as_str(), value.as_bytes()).unwrap();
                    model.push((name, value));
                }
                Edit::List(name, value) => {
                    head.append_to_list(name.as_str(), value.as_bytes()).unwrap();
                    match model.iter_mut().find(|pair| same(&name)(pair)) {
                        Some(pair) if pair.1.is_empty() => pair.1 = value,
                        Some(_) if value.is_empty() => {}
                        Some(pair) => pair.1 = format!("{}, {value}", pair.1),
                        None => model.push((name, value)),
                    }
                }
                Edit::Remove(name) => {
                    let had = model.iter().any(same(&name));
                    prop_assert_eq!(head.remove(name.as_str()), had);
                    model.retain(|pair| !same(&name)(pair));
                }
            }
            for name in ["te", "via", "x-a", "x-b", "x-request-id", "cookie"] {
                let expect: Vec<_> = model.iter().filter(|pair| same(name)(pair)).map(|pair| pair.1.as_bytes()).collect();
                prop_assert_eq!(head.get(name), expect.first().copied());
                prop_assert_eq!(head.get_all(name).collect::<Vec<_>>(), expect);
            }
        }
        let expect: Vec<_> = model.iter().map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase())).collect();
        let got: Vec<_> = lines(&head).iter().map(|line| { let (name, value) = line.split_once(": ").unwrap(); format!("{}: {value}", name.to_ascii_lowercase()) }).collect();
        prop_assert_eq!(got, expect);
        let mut out = Vec::new();
        head.write_lines(&mut out, |_| false);
        let written: String = lines(&head).concat();
        prop_assert_eq!(text(&out).replace("\r\n", ""), written);
    }
}
