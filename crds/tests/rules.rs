//! Each CEL rule, by the validator of kube: what it takes, what it refuses, and with which message.
#![allow(clippy::unwrap_used)]

mod cases;

use crds::{AggregationWindow, Batch, DataShareProcessor, KeyRing, Peer};
use serde_json::Value;

/// The messages of all refusals, one a line.
fn refusals(case: &cases::Case) -> String {
    macro_rules! check {
        ($kind:ty) => {{
            let new: $kind = serde_json::from_value(case.object()).unwrap();
            match case.old() {
                None => new.validate_cel(),
                Some(old) => new.validate_cel_update(&serde_json::from_value::<$kind>(old).unwrap()),
            }
        }};
    }
    let result = match case.object()["kind"].as_str().unwrap() {
        "DataShareProcessor" => check!(DataShareProcessor),
        "Batch" => check!(Batch),
        "AggregationWindow" => check!(AggregationWindow),
        "KeyRing" => check!(KeyRing),
        "Peer" => check!(Peer),
        other => panic!("{other}"),
    };
    result.err().map_or_else(String::new, |errors| errors.to_string())
}

#[test]
fn good_objects_are_taken() {
    for case in cases::good() {
        let found = refusals(&case);
        assert!(found.is_empty(), "{}: {found}", case.name);
    }
}

#[test]
fn bad_objects_are_refused_with_a_message_that_helps() {
    for case in cases::refused_by_rule() {
        let found = refusals(&case);
        assert!(
            found.contains(case.message),
            "{}: {found:?} holds not {:?}",
            case.name,
            case.message
        );
    }
}

/// A rule without a case would be untested.
#[test]
fn every_rule_has_a_case() {
    let mut messages = Vec::new();
    for definition in crds::definitions::definitions() {
        collect(&serde_json::to_value(definition).unwrap(), &mut messages);
    }
    assert!(messages.len() > 15, "{messages:?}");
    let cases = cases::refused_by_rule();
    for message in messages {
        assert!(
            cases.iter().any(|case| message.contains(case.message)),
            "no case for the rule: {message}"
        );
    }
}

fn collect(value: &Value, messages: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for rule in object
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                messages.push(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            object.values().for_each(|value| collect(value, messages));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, messages)),
        _ => {}
    }
}
