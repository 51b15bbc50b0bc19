//! Strings with wildcards: `*` stands for any characters (RFC 2608 section 6.4).

use super::escape::{EscapeError, Place, unescape};
use super::fold::{fold, fold_open};

/// The parts between the stars, folded. One part: no star.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<String>);

impl Pattern {
    pub(super) fn parse(text: &str, place: Place) -> Result<Self, EscapeError> {
        let parts: Vec<String> =
            text.split('*').map(|part| unescape(part, place)).collect::<Result<_, _>>()?;
        let last = parts.len().saturating_sub(1);
        // White space at the ends of the whole means nothing; beside a star it does.
        let fold_part = |(number, part): (usize, &String)| {
            let folded = fold_open(part);
            let folded = if number == 0 { folded.trim_start_matches(' ').to_owned() } else { folded };
            if number == last { folded.trim_end_matches(' ').to_owned() } else { folded }
        };
        Ok(Self(parts.iter().enumerate().map(fold_part).collect()))
    }

    /// Whether it is the empty string.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0.as_slice(), [only] if only.is_empty())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let text = fold(text);
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| *only == text);
        };
        let Some(rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()))
        else {
            return false;
        };
        // The first place for each part leaves the most room for those after it.
        let found =
            middle.iter().try_fold(rest, |rest, part| rest.split_once(part.as_str()).map(|(_, after)| after));
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern, Place::Predicate).expect("a pattern").matches(text)
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("*", "") && matches("**", "x") && matches("a*", "A") && matches("*c", "abc"));
        assert!(matches("a*b*c", "a-b-b-c") && matches("a*b*c", "abc"));
        assert!(!matches("a*a", "a") && !matches("ab*bc", "abc") && !matches("a*b*c", "ac"));
        assert!(!matches("a", "ab") && !matches("a*", "ba"));
    }

    #[test]
    fn blanks_beside_a_star_count() {
        assert!(matches(" Some * string ", "some odd  string"));
        assert!(!matches("some *", "something"));
    }

    #[test]
    fn an_escaped_star_is_a_star() {
        assert!(matches("a\\2ab", "a*b"));
        assert!(!matches("a\\2ab", "axb"));
    }
}
