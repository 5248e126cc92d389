//! Objects with one field spoilt: nothing panics, and what is made can be sent and is accepted by the proxy.

use mesh_api::object::AnyObject;
use mesh_api_xds::codec;
use mesh_api_xds::ir::Resource;
use mesh_proxy_core::plan::{Delta, Plan};
use meshd_core::proxy::Flavor;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::{Translator, Wanted};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{Case, mk_world};
use crate::golden::resources;

/// What a field may be spoilt with: empty, extreme, of other syntax.
fn any_spoiler() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("")),
        Just(json!("*")),
        Just(json!("~/*")),
        Just(json!("*.example.com")),
        Just(json!("a.b.c")),
        Just(json!("UPPER_case")),
        Just(json!("ünï\u{0}cødé\r\n")),
        Just(json!("x".repeat(5000))),
        Just(json!("[a-z")),
        Just(json!("(a*)*b")),
        Just(json!("%REQ(X)% 100%")),
        Just(json!("10.0.0.0/8")),
        Just(json!("::1")),
        Just(json!("0s")),
        Just(json!("0.0005s")),
        Just(json!("315576000000s")),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(65536)),
        Just(json!(4_294_967_295_u32)),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(Value::Null),
    ]
}

/// Places of a value: itself and all below.
fn places(value: &Value, at: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    all.push(at.clone());
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => vec![],
    };
    for (step, value) in below {
        at.push(step);
        places(value, at, all);
        at.pop();
    }
}

/// The same with another value at a place; twice in a list when the place is an item and `double`.
fn spoilt(value: &Value, place: &[String], with: &Value, double: bool) -> Value {
    let Some((step, rest)) = place.split_first() else { return with.clone() };
    let mut value = value.clone();
    match &mut value {
        Value::Object(map) => {
            let inner = spoilt(&map[step], rest, with, double);
            map.insert(step.clone(), inner);
        }
        Value::Array(list) => {
            let index: usize = step.parse().unwrap();
            if rest.is_empty() && double {
                list.push(list[index].clone());
            } else {
                list[index] = spoilt(&list[index], rest, with, double);
            }
        }
        _ => {}
    }
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_field_breaks_nothing(
        case in any::<prop::sample::Index>(),
        object in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        with in any_spoiler(),
        double in proptest::bool::weighted(0.2),
    ) {
        let cases = Case::all();
        let case = case.get(&cases);
        let index = object.index(case.objects.len());
        let original = &case.objects[index];
        let value = serde_json::to_value(original).unwrap();
        let mut all = Vec::new();
        places(&value, &mut Vec::new(), &mut all);
        let place = place.get(&all);
        // Only what can be read at all comes this far.
        let Ok(changed) = AnyObject::from_value(original.kind(), &spoilt(&value, place, &with, double)) else { return Ok(()) };
        let mut objects = case.objects.clone();
        objects[index] = changed;
        let snapshot = Snapshot::build(&mk_world(&objects), 1);
        let _names_what_is_wrong = snapshot.findings();
        for proxy in &case.proxies {
            let view = proxy.view();
            let translation = Translator::<Resource>::default().translate(&snapshot, &view, Wanted::all());
            let made: Vec<Resource> = resources(&translation).iter().map(|r| Resource::clone(r)).collect();
            for resource in &made {
                let place = format!("{} {place:?} {with}: {}", case.name(), resource.name());
                let encoded = codec::encode(resource).map_err(|error| TestCaseError::fail(format!("{place}: {error}")))?;
                let decoded = codec::decode(codec::type_of(resource), &encoded.bytes);
                let decoded = decoded.map_err(|error| TestCaseError::fail(format!("{place}: {error}")))?;
                prop_assert!(decoded == *resource, "{}: {:?} {:?}", place, decoded, resource);
            }
            if view.flavor == Flavor::Lateen {
                let (_, rejected) = Plan::next(&Plan::empty(), &Delta { upserts: made, ..Delta::default() });
                prop_assert!(rejected.is_empty(), "{} {:?} {}: {:#?}", case.name(), place, with, rejected);
            }
        }
    }
}
