//! Attribute lists.

use rsip_slp::text::{Attribute, AttributeError, AttributeList, TagList, Value};

fn list(text: &str) -> AttributeList {
    AttributeList::parse(text).expect("an attribute list")
}

fn values(text: &str) -> Vec<Value> {
    list(text).get("a").expect("the attribute").values().to_vec()
}

const IGORE: &str = "(Name=Igore),(Description=For developers only),
    (Protocol=LPR),(location-description=12th floor),
    (Operator=James Dornan \\3cdornan@monster\\3e),
    (media-size=na-letter),(resolution=res-600),x-OK";

#[test]
fn reads_the_rfcs_printer() {
    let igore = list(IGORE);
    let operator = igore.get("operator").expect("an operator").values();
    assert_eq!(operator, [Value::String("James Dornan <dornan@monster>".to_owned())]);
    assert_eq!(igore.get("X-ok").map(|keyword| keyword.values().len()), Some(0));
    let selected = igore.select(&TagList::parse("resolution,loc*").expect("tags"));
    assert_eq!(selected.to_string(), "(location-description=12th floor),(resolution=res-600)");
}

#[test]
fn values_have_the_types_that_they_look_like() {
    let string = |text: &str| Value::String(text.to_owned());
    assert_eq!(values("(a=true,FALSE)"), [Value::Boolean(true), Value::Boolean(false)]);
    assert_eq!(values("(a=-2147483648,2147483647, 7 )"), [i32::MIN, i32::MAX, 7].map(Value::Integer));
    assert_eq!(values("(a=2147483648,-,--1,+1,1.5)"), ["2147483648", "-", "--1", "+1", "1.5"].map(string));
    assert_eq!(values("(a=\\ff\\00\\FF)"), [Value::Opaque(vec![0, 255])]);
    assert_eq!(values("(a=  two   words )"), [string("two   words")]);
    assert_eq!(values("(a=\\28x\\29\\2c\\5c)"), [string("(x),\\")]);
    assert_eq!(list("(load=12)").integer("LOAD"), Some(12));
    assert_eq!(list("(load=12,13)").integer("load"), None);
    assert_eq!(list("").iter().count(), 0);
}

#[test]
fn values_of_one_tag_are_of_one_type() {
    let mixed = AttributeList::parse("(x=4,true,sue,\\ff\\00\\00)");
    assert_eq!(mixed, Err(AttributeError::MixedTypes("x".to_owned())));
    assert!(matches!(AttributeList::parse("(x=4),(X=sue)"), Err(AttributeError::MixedTypes(_))));
    assert!(Attribute::new("x", vec![Value::Integer(1), Value::Boolean(true)]).is_err());
}

#[test]
fn a_tag_that_comes_twice_has_all_values_once() {
    assert_eq!(list("(A=a a,b),(a=A   A,c)").to_string(), "(A=a a,b,c)");
}

#[test]
fn what_is_no_list_is_refused() {
    for text in [
        "(a=1",
        "a=1",
        "(a)",
        "(=1)",
        "(a=)",
        "(a=1,)",
        "(a=1)(b=2)",
        "(a=1),",
        ",(a=1)",
        "(a=b=c)",
        "(a=\\41)",
        "(a=\\4)",
        "(a=\\ff)",
        "(a=\\ff00)",
        "(a=\\ff\\0)",
        "(a=\\ff\\0g)",
        "(a*=1)",
        "(a=1)x",
        "()",
        "a<b",
        "(a=1\u{1})",
    ] {
        assert!(matches!(AttributeList::parse(text), Err(AttributeError::Syntax(_))), "{text}");
    }
}

#[test]
fn one_tag_replaces_another() {
    let mut attributes = list("(a=1),(b=2)");
    attributes.set(Attribute::new("A", vec![Value::Integer(3)]).expect("an attribute"));
    assert_eq!(attributes.to_string(), "(A=3),(b=2)");
    assert!(Attribute::new("", vec![]).is_err());
    assert!(Attribute::new("a*", vec![]).is_err());
}
