//! Predicates: LDAPv3 search filters (RFC 2254) with the rules of RFC 2608 section 8.1.

use super::attributes::{Attribute, AttributeList, Value};
use super::escape::{Place, unescape};
use super::fold::fold;
use super::pattern::Pattern;

/// Filters in filters, at most: the depth is the sender's choice, the stack is ours.
const DEEPEST: usize = 32;

/// A string is no predicate: PARSE_ERROR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no predicate at {0:?}")]
pub struct PredicateError(pub String);

/// What a service must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate(Filter);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    /// Satisfied by everything: the empty predicate.
    Everything,
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Item {
        tag: String,
        test: Test,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Present,
    Equal(Value),
    Matches(Pattern),
    AtLeast(Value),
    AtMost(Value),
}

impl Predicate {
    /// Reads a predicate; the empty one is satisfied by everything.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, PredicateError> {
        let text = trim(text);
        if text.is_empty() {
            return Ok(Self(Filter::Everything));
        }
        let (filter, rest) = parse_filter(text, DEEPEST)?;
        if rest.is_empty() { Ok(Self(filter)) } else { Err(PredicateError(rest.to_owned())) }
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Filter::Everything
    }

    /// Whether a service with these attributes satisfies it.
    #[must_use]
    pub fn is_satisfied_by(&self, attributes: &AttributeList) -> bool {
        self.0.holds(attributes)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\r', '\n', '\t'])
}

/// One filter with its parentheses, and what follows.
fn parse_filter(text: &str, depth: usize) -> Result<(Filter, &str), PredicateError> {
    let wrong = || PredicateError(text.to_owned());
    let depth = depth.checked_sub(1).ok_or_else(wrong)?;
    let inner = trim(text.strip_prefix('(').ok_or_else(wrong)?);
    let (filter, rest) = match inner.as_bytes().first() {
        Some(b'&') => {
            let (filters, rest) = parse_list(inner, depth)?;
            (Filter::And(filters), rest)
        }
        Some(b'|') => {
            let (filters, rest) = parse_list(inner, depth)?;
            (Filter::Or(filters), rest)
        }
        Some(b'!') => {
            let (filter, rest) = parse_filter(trim(inner.get(1..).unwrap_or_default()), depth)?;
            (Filter::Not(Box::new(filter)), rest)
        }
        _ => {
            let end = inner.find(')').ok_or_else(wrong)?;
            let (item, rest) = inner.split_at_checked(end).ok_or_else(wrong)?;
            (parse_item(item)?, rest)
        }
    };
    let rest = trim(rest).strip_prefix(')').ok_or_else(wrong)?;
    Ok((filter, trim(rest)))
}

/// The filters after `&` or `|`: at least one.
fn parse_list(text: &str, depth: usize) -> Result<(Vec<Filter>, &str), PredicateError> {
    let mut rest = trim(text.get(1..).unwrap_or_default());
    let mut filters = Vec::new();
    while rest.starts_with('(') {
        let (filter, after) = parse_filter(rest, depth)?;
        filters.push(filter);
        rest = after;
    }
    if filters.is_empty() { Err(PredicateError(text.to_owned())) } else { Ok((filters, rest)) }
}

fn parse_item(item: &str) -> Result<Filter, PredicateError> {
    let wrong = || PredicateError(item.to_owned());
    let (left, right) = item.split_once('=').ok_or_else(wrong)?;
    let operator = left.chars().next_back();
    // `~=` (about equal) may be taken for `=` (RFC 2251 section 4.5.1); `:=` names a rule, and SLP has none.
    let tag = match operator {
        Some(':') => return Err(wrong()),
        Some('<' | '>' | '~') => left.get(..left.len() - 1).unwrap_or_default(),
        _ => left,
    };
    let tag = unescape(trim(tag), Place::Predicate).map_err(|_| wrong())?;
    if fold(&tag).is_empty() {
        return Err(wrong());
    }
    let right = trim(right);
    let ordered = matches!(operator, Some('<' | '>'));
    let test = if right.contains('*') {
        // "Wildcard matching MUST be done with the '=' filter" (RFC 2608 section 8.1).
        if ordered {
            return Err(wrong());
        }
        if right == "*" {
            Test::Present
        } else {
            Test::Matches(Pattern::parse(right, Place::Predicate).map_err(|_| wrong())?)
        }
    } else {
        let value = Value::parse(right, Place::Predicate).ok().flatten().ok_or_else(wrong)?;
        match operator {
            Some('<') => Test::AtMost(value),
            Some('>') => Test::AtLeast(value),
            _ => Test::Equal(value),
        }
    };
    Ok(Filter::Item { tag, test })
}

impl Filter {
    fn holds(&self, attributes: &AttributeList) -> bool {
        match self {
            Self::Everything => true,
            Self::And(filters) => filters.iter().all(|filter| filter.holds(attributes)),
            Self::Or(filters) => filters.iter().any(|filter| filter.holds(attributes)),
            Self::Not(filter) => filter.fails(attributes),
            Self::Item { tag, test } => attributes.get(tag).is_some_and(|attribute| test.holds(attribute)),
        }
    }

    /// Whether its negation holds. That is not the same as not holding: `(!(y=0))` is satisfied by `(y=0,1)`, since the
    /// filter is compared to each value and the results are ORed together (RFC 2608 section 8.1).
    fn fails(&self, attributes: &AttributeList) -> bool {
        match self {
            Self::Everything => false,
            Self::And(filters) => filters.iter().any(|filter| filter.fails(attributes)),
            Self::Or(filters) => filters.iter().all(|filter| filter.fails(attributes)),
            Self::Not(filter) => filter.holds(attributes),
            Self::Item { tag, test } => attributes.get(tag).is_none_or(|attribute| test.fails(attribute)),
        }
    }
}

impl Test {
    fn holds(&self, attribute: &Attribute) -> bool {
        *self == Self::Present || attribute.values().iter().any(|value| self.holds_for(value))
    }

    fn fails(&self, attribute: &Attribute) -> bool {
        let values = attribute.values();
        *self != Self::Present && (values.is_empty() || values.iter().any(|value| !self.holds_for(value)))
    }

    fn holds_for(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Present, _) => true,
            (Self::Equal(wanted), _) => wanted.matches(value),
            // A term with wildcards is a string, and strings match strings only.
            (Self::Matches(pattern), Value::String(text)) => pattern.matches(text),
            (Self::AtLeast(Value::Integer(least)), Value::Integer(value)) => value >= least,
            (Self::AtMost(Value::Integer(most)), Value::Integer(value)) => value <= most,
            (Self::AtLeast(Value::String(least)), Value::String(text)) => fold(text) >= fold(least),
            (Self::AtMost(Value::String(most)), Value::String(text)) => fold(text) <= fold(most),
            // Booleans and opaque values have no order; other types never match.
            (Self::Matches(_) | Self::AtLeast(_) | Self::AtMost(_), _) => false,
        }
    }
}
