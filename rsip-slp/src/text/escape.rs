//! Escapes: a backslash and two hexadecimal digits (RFC 2608 section 6.4).

/// Reserved everywhere.
const RESERVED: &str = "(),\\!<=>~";
/// Reserved in scopes, too (section 6.4.1).
const RESERVED_IN_SCOPES: &str = ";*+";

/// Why a string cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EscapeError {
    /// Not followed by two hexadecimal digits.
    NotHex,
    /// Stands for a character that must not be escaped.
    NotReserved(char),
    /// A reserved character that is not escaped.
    Reserved(char),
}

/// In what a string stands, which tells what is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Attribute lists and tag lists.
    Attributes,
    /// Scope lists.
    Scopes,
    /// Predicates, where a literal star must be escaped, and line ends are white space.
    Predicate,
}

impl Place {
    fn reserves(self, c: char) -> bool {
        RESERVED.contains(c)
            || c.is_ascii_control()
            || match self {
                Self::Attributes => false,
                Self::Scopes => RESERVED_IN_SCOPES.contains(c),
                Self::Predicate => c == '*',
            }
    }
}

/// White space that the folding of strings knows is taken though it is a control character: lists are wrapped into
/// lines in practice, and in the RFC's own examples.
fn is_white(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\t')
}

/// Restores escaped characters.
pub(super) fn unescape(text: &str, place: Place) -> Result<String, EscapeError> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\\' {
            let mut digit = || rest.next().and_then(|digit| digit.to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(EscapeError::NotHex) };
            let escaped = char::from_u32(high << 4 | low).ok_or(EscapeError::NotHex)?;
            if !place.reserves(escaped) {
                return Err(EscapeError::NotReserved(escaped));
            }
            plain.push(escaped);
        } else if place.reserves(c) && !is_white(c) {
            return Err(EscapeError::Reserved(c));
        } else {
            plain.push(c);
        }
    }
    Ok(plain)
}

/// Escapes what is reserved.
pub(super) fn escape(plain: &str, place: Place) -> String {
    let mut text = String::with_capacity(plain.len());
    for c in plain.chars() {
        if place.reserves(c) {
            text.push_str(&format!("\\{:02x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comma_is_2c_and_not_29() {
        assert_eq!(escape("a,b", Place::Attributes), "a\\2cb");
        assert_eq!(unescape("a\\2Cb\\5c", Place::Attributes), Ok("a,b\\".to_owned()));
    }

    #[test]
    fn only_what_is_reserved_is_escaped() {
        assert_eq!(unescape("\\41", Place::Attributes), Err(EscapeError::NotReserved('A')));
        assert_eq!(unescape("\\2a", Place::Attributes), Err(EscapeError::NotReserved('*')));
        assert_eq!(unescape("\\2a", Place::Scopes), Ok("*".to_owned()));
        assert_eq!(unescape("\\4", Place::Attributes), Err(EscapeError::NotHex));
        assert_eq!(unescape("\\zz", Place::Attributes), Err(EscapeError::NotHex));
        assert_eq!(unescape("\\ffx", Place::Attributes), Err(EscapeError::NotReserved('ÿ')));
        assert_eq!(unescape("a=b", Place::Attributes), Err(EscapeError::Reserved('=')));
    }

    #[test]
    fn what_is_escaped_can_be_read_again() {
        let all: String = (0..=0x2000).filter_map(char::from_u32).collect();
        for place in [Place::Attributes, Place::Scopes, Place::Predicate] {
            assert_eq!(unescape(&escape(&all, place), place), Ok(all.clone()));
        }
    }
}
