//! Attribute lists and predicates, with the examples of RFC 2608.

mod attributes;
mod predicates;
mod properties;
