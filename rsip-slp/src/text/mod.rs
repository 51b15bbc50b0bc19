//! What stands in the strings of messages (RFC 2608 sections 4 to 6): URLs, scope lists, attribute lists, tag lists,
//! predicates, previous responders.
//!
//! All strings are compared without regard to case and with white space folded (section 6.4), but for URLs.

mod attributes;
mod escape;
mod fold;
mod list;
mod pattern;
mod predicate;
mod url;

pub use attributes::{Attribute, AttributeError, AttributeList, Value};
pub use fold::fold;
pub use list::{ListError, ScopeList, TagList, previous_responders};
pub use predicate::{Predicate, PredicateError};
pub use url::{ServiceUrl, UrlError, type_matches};
