//! Strings as they are compared (RFC 2608 section 6.4).

/// The form in which two strings are equal when SLP calls them so: lower case, runs of white space one blank, none at
/// the ends.
#[must_use]
pub fn fold(text: &str) -> String {
    fold_open(text).trim_matches(' ').to_owned()
}

/// The same, but white space at the ends counts as one blank: for a part of a string.
pub(super) fn fold_open(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ' ' | '\r' | '\n' | '\t') {
            if !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else {
            folded.extend(c.to_lowercase());
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_and_white_space_as_in_the_rfcs_example() {
        assert_eq!(fold("  Some String  "), fold("SOME    STRING"));
        assert_eq!(fold("a\r\n\tb"), "a b");
        assert_ne!(fold("a b"), fold("ab"));
        assert_eq!(fold("ÄRGER"), "ärger", "beyond ASCII too");
        assert_eq!(fold(" \t "), "");
    }

    #[test]
    fn a_part_of_a_string_keeps_a_blank_at_its_ends() {
        assert_eq!(fold_open("  A  b "), " a b ");
    }
}
