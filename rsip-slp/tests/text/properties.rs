//! What holds for all strings.

use proptest::prelude::*;
use rsip_slp::strategies;
use rsip_slp::text::{AttributeList, Predicate, ScopeList, ServiceUrl, TagList, fold};

proptest! {
    #[test]
    fn a_list_that_is_written_can_be_read(list in strategies::attributes()) {
        prop_assert_eq!(AttributeList::parse(&list.to_string()), Ok(list));
    }

    #[test]
    fn generated_predicates_can_be_read(text in strategies::predicate(), list in strategies::attributes()) {
        let predicate = Predicate::parse(&text);
        prop_assert!(predicate.is_ok(), "{}: {:?}", text, predicate);
        // Either it holds, or its negation does, or both do (several values); never neither.
        let negated = Predicate::parse(&format!("(!{text})")).expect("a predicate");
        prop_assert!(predicate.is_ok_and(|predicate| predicate.is_satisfied_by(&list)) || negated.is_satisfied_by(&list));
    }

    #[test]
    fn any_text_is_taken(text in "\\PC{0,60}|[()&|!<>=~*,a-c0-9 \\\\]{0,60}") {
        if let Ok(list) = AttributeList::parse(&text) {
            prop_assert_eq!(AttributeList::parse(&list.to_string()), Ok(list));
        }
        if let Ok(scopes) = ScopeList::parse(&text) {
            prop_assert_eq!(ScopeList::parse(&scopes.to_string()), Ok(scopes));
        }
        if let Ok(url) = ServiceUrl::parse(&text) {
            prop_assert_eq!(url.to_string(), text.clone());
        }
        let attributes = AttributeList::parse("(a=1,2),(b=x),c").expect("a list");
        if let Ok(predicate) = Predicate::parse(&text) {
            prop_assert!(!predicate.is_empty() || predicate.is_satisfied_by(&attributes));
        }
        if let Ok(tags) = TagList::parse(&text) {
            prop_assert!(attributes.select(&tags).iter().all(|attribute| tags.selects(attribute.tag())));
        }
        prop_assert_eq!(fold(&fold(&text)), fold(&text));
    }
}
