//! Attribute lists (RFC 2608 section 5): `(tag=value,value),(tag=value),keyword`.

use std::fmt;

use super::escape::{EscapeError, Place, escape, unescape};
use super::fold::fold;
use super::list::TagList;

/// A value. Its type is told by how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`, in any case.
    Boolean(bool),
    /// Digits, perhaps with a minus, in the range of 32 bits.
    Integer(i32),
    /// Anything else; without escapes. To make one use [`Value::from_text`], since `"12"` is an integer on the wire.
    String(String),
    /// Bytes: `\ff` and each byte escaped.
    Opaque(Vec<u8>),
}

impl Value {
    /// The value that a text without escapes stands for; nothing for an empty one, which no value is.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let trimmed = text.trim_matches([' ', '\r', '\n', '\t']);
        if trimmed.is_empty() {
            return None;
        }
        if trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false") {
            return Some(Self::Boolean(trimmed.eq_ignore_ascii_case("true")));
        }
        let digits = trimmed.strip_prefix('-').unwrap_or(trimmed);
        let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match trimmed.parse::<i32>() {
            Ok(integer) if is_integer => Some(Self::Integer(integer)),
            _ => Some(Self::String(trimmed.to_owned())),
        }
    }

    /// The value that stands on the wire.
    pub(super) fn parse(text: &str, place: Place) -> Result<Option<Self>, EscapeError> {
        let trimmed = text.trim_matches([' ', '\r', '\n', '\t']);
        if let Some(opaque) = opaque(trimmed) {
            return opaque.map(Self::Opaque).map(Some);
        }
        Ok(Self::from_text(&unescape(trimmed, place)?))
    }

    /// Whether both have the same type, without which they are never equal.
    fn same_type(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Equality as SLP sees it.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(one), Self::String(other)) => fold(one) == fold(other),
            _ => self == other,
        }
    }
}

/// The bytes of an opaque value; nothing where the text is none.
fn opaque(text: &str) -> Option<Result<Vec<u8>, EscapeError>> {
    let mark = text.get(..3)?;
    if !mark.eq_ignore_ascii_case("\\ff") {
        return None;
    }
    let escapes = text.get(3..).unwrap_or_default().split('\\');
    // Each byte begins with its backslash: nothing stands before the first.
    let mut escapes = escapes.peekable();
    if escapes.next() != Some("") || escapes.peek().is_none() {
        return Some(Err(EscapeError::NotHex));
    }
    let byte = |digits: &str| {
        let is_hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or(EscapeError::NotHex)
    };
    Some(escapes.map(byte).collect())
}

/// As it stands in an attribute list.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::String(value) => f.write_str(&escape(value, Place::Attributes)),
            Self::Opaque(bytes) => {
                f.write_str("\\ff")?;
                bytes.iter().try_for_each(|byte| write!(f, "\\{byte:02x}"))
            }
        }
    }
}

/// A tag and its values, which are all of one type; without values it is a keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    tag: String,
    values: Vec<Value>,
}

/// Why an attribute list cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// It is no attribute list: PARSE_ERROR.
    #[error("{0:?} is no attribute")]
    Syntax(String),
    /// Values of several types under one tag: INVALID_REGISTRATION.
    #[error("the values of {0:?} are of several types")]
    MixedTypes(String),
}

impl Attribute {
    /// An attribute.
    ///
    /// # Errors
    /// When the tag cannot be one, or the values are of several types.
    pub fn new(tag: &str, values: Vec<Value>) -> Result<Self, AttributeError> {
        let tag = tag.trim_matches([' ', '\r', '\n', '\t']);
        if tag.is_empty() || tag.contains(['*', '\r', '\n', '\t']) {
            return Err(AttributeError::Syntax(tag.to_owned()));
        }
        if values.windows(2).any(|pair| matches!(pair, [one, other] if !one.same_type(other))) {
            return Err(AttributeError::MixedTypes(tag.to_owned()));
        }
        Ok(Self { tag: tag.to_owned(), values })
    }

    /// Its name.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Its values; none: a keyword.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = escape(&self.tag, Place::Attributes);
        let Some((first, others)) = self.values.split_first() else { return f.write_str(&tag) };
        write!(f, "({tag}={first}")?;
        others.iter().try_for_each(|value| write!(f, ",{value}"))?;
        f.write_str(")")
    }
}

/// Attributes of a service or an agent, each tag once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeList(Vec<Attribute>);

impl AttributeList {
    /// Reads a list as it stands in a message; an empty string is an empty list. A tag that is there twice has the
    /// values of both.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, AttributeError> {
        let mut list = Self::default();
        let mut rest = text.trim_matches([' ', '\r', '\n', '\t']);
        if rest.is_empty() {
            return Ok(list);
        }
        loop {
            let (item, after) = next_item(rest).ok_or_else(|| AttributeError::Syntax(rest.to_owned()))?;
            list.merge(parse_attribute(item)?)?;
            match after {
                None => return Ok(list),
                Some(after) => rest = after,
            }
        }
    }

    /// The attribute with this tag.
    #[must_use]
    pub fn get(&self, tag: &str) -> Option<&Attribute> {
        let tag = fold(tag);
        self.0.iter().find(|attribute| fold(&attribute.tag) == tag)
    }

    /// The one integer of an attribute, if it is one.
    #[must_use]
    pub fn integer(&self, tag: &str) -> Option<i32> {
        match self.get(tag)?.values() {
            [Value::Integer(value)] => Some(*value),
            _ => None,
        }
    }

    /// Puts an attribute in; the one with the same tag gives way.
    pub fn set(&mut self, attribute: Attribute) {
        let tag = fold(&attribute.tag);
        match self.0.iter_mut().find(|own| fold(&own.tag) == tag) {
            Some(own) => *own = attribute,
            None => self.0.push(attribute),
        }
    }

    fn merge(&mut self, attribute: Attribute) -> Result<(), AttributeError> {
        let Some(own) = self.get(&attribute.tag) else {
            self.0.push(attribute);
            return Ok(());
        };
        let mut values = own.values.clone();
        for value in attribute.values {
            if !values.iter().any(|own| own.matches(&value)) {
                values.push(value);
            }
        }
        let merged = Attribute::new(&own.tag.clone(), values)?;
        self.set(merged);
        Ok(())
    }

    /// Those that a tag list asks for.
    #[must_use]
    pub fn select(&self, tags: &TagList) -> Self {
        Self(self.0.iter().filter(|attribute| tags.selects(&attribute.tag)).cloned().collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The attributes, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter()
    }
}

/// As it stands in a message.
impl fmt::Display for AttributeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, attribute) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{attribute}")?;
        }
        Ok(())
    }
}

/// The first item of a list, and what follows its comma.
fn next_item(text: &str) -> Option<(&str, Option<&str>)> {
    let text = text.trim_start_matches([' ', '\r', '\n', '\t']);
    // A parenthesis that is not escaped ends the attribute, whatever is in it.
    let end = if text.starts_with('(') { text.find(')')? + 1 } else { text.find(',').unwrap_or(text.len()) };
    let (item, rest) = text.split_at_checked(end)?;
    let rest = rest.trim_start_matches([' ', '\r', '\n', '\t']);
    if rest.is_empty() { Some((item, None)) } else { rest.strip_prefix(',').map(|rest| (item, Some(rest))) }
}

fn parse_attribute(item: &str) -> Result<Attribute, AttributeError> {
    let syntax = || AttributeError::Syntax(item.to_owned());
    let unescaped = |tag: &str| unescape(tag, Place::Attributes).map_err(|_| syntax());
    let Some(inner) = item.strip_prefix('(').and_then(|item| item.strip_suffix(')')) else {
        return Attribute::new(&unescaped(item)?, Vec::new());
    };
    let (tag, values) = inner.split_once('=').ok_or_else(syntax)?;
    let value = |text: &str| Value::parse(text, Place::Attributes).ok().flatten().ok_or_else(syntax);
    Attribute::new(&unescaped(tag)?, values.split(',').map(value).collect::<Result<_, _>>()?)
}
