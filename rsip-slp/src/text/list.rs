//! Lists of strings with commas between: scopes, tags, previous responders.

use std::fmt;
use std::net::Ipv4Addr;

use super::escape::{Place, escape, unescape};
use super::fold::fold;
use super::pattern::Pattern;

/// A list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{item:?} cannot be {what}")]
pub struct ListError {
    /// The item that is wrong.
    pub item: String,
    /// What it should be.
    pub what: &'static str,
}

/// Scopes (RFC 2608 sections 6.4.1 and 11): sets of services. Each is in it once, whatever its case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeList(Vec<String>);

impl ScopeList {
    /// The scope of whoever has none configured: `DEFAULT`.
    #[must_use]
    pub fn default_scope() -> Self {
        Self(vec!["DEFAULT".to_owned()])
    }

    /// Reads a list as it stands in a message; an empty string is an empty list.
    ///
    /// # Errors
    /// When a scope is empty, or not escaped as it must be.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        let mut scopes = Self::default();
        if text.trim().is_empty() {
            return Ok(scopes);
        }
        for item in text.split(',') {
            let wrong = || ListError { item: item.to_owned(), what: "a scope" };
            let scope = unescape(item, Place::Scopes).map_err(|_| wrong())?;
            if fold(&scope).is_empty() {
                return Err(wrong());
            }
            scopes.insert(scope.trim());
        }
        Ok(scopes)
    }

    /// A list of names as people write them, without escapes.
    ///
    /// # Errors
    /// When a name is empty.
    pub fn from_names<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, ListError> {
        let mut scopes = Self::default();
        for name in names {
            let name = name.as_ref().trim();
            if name.is_empty() {
                return Err(ListError { item: name.to_owned(), what: "a scope" });
            }
            scopes.insert(name);
        }
        Ok(scopes)
    }

    fn insert(&mut self, scope: &str) {
        if !self.contains(scope) {
            self.0.push(scope.to_owned());
        }
    }

    /// Whether it names this scope.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        let scope = fold(scope);
        self.0.iter().any(|own| fold(own) == scope)
    }

    /// What is in both, as it is written here.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|scope| other.contains(scope)).cloned().collect())
    }

    /// What is here and not there.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|scope| !other.contains(scope)).cloned().collect())
    }

    /// Whether a scope is in both.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().any(|scope| other.contains(scope))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes, without escapes.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// As it stands in a message.
impl fmt::Display for ScopeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, scope) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{}", escape(scope, Place::Scopes))?;
        }
        Ok(())
    }
}

/// Tags of attributes, with wildcards (RFC 2608 section 9.4). An empty list stands for all attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagList(Vec<Pattern>);

impl TagList {
    /// Reads a list as it stands in a message.
    ///
    /// # Errors
    /// When a tag is empty, or not escaped as it must be.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let pattern = |item: &str| {
            let wrong = || ListError { item: item.to_owned(), what: "a tag" };
            let pattern = Pattern::parse(item, Place::Attributes).map_err(|_| wrong())?;
            if pattern.is_empty() { Err(wrong()) } else { Ok(pattern) }
        };
        text.split(',').map(pattern).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it asks for the attribute with this tag.
    #[must_use]
    pub fn selects(&self, tag: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(tag))
    }
}

/// The addresses of a PRList. What is no IPv4 address is passed over (RFC 2608 section 8.1).
pub fn previous_responders(text: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
    text.split(',').filter_map(|item| item.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> ScopeList {
        ScopeList::parse(text).expect("a scope list")
    }

    #[test]
    fn scopes_are_compared_without_regard_to_case() {
        let own = scopes("DEFAULT,Building 32");
        assert!(own.contains("default") && own.contains("BUILDING   32"));
        assert!(own.intersects(&scopes("x,default")));
        assert!(!own.intersects(&scopes("x")));
        assert_eq!(own.intersection(&scopes("building 32")).to_string(), "Building 32");
        assert_eq!(own.difference(&scopes("building 32")).to_string(), "DEFAULT");
        assert_eq!(scopes("a,A,b").to_string(), "a,b");
    }

    #[test]
    fn scopes_are_escaped_as_section_6_4_1_says() {
        let odd = ScopeList::from_names(["a,b", "c*", "d;+"]).expect("names");
        assert_eq!(odd.to_string(), "a\\2cb,c\\2a,d\\3b\\2b");
        assert_eq!(scopes(&odd.to_string()), odd);
        for wrong in ["a(b", "a*", "a,,b", ",", "\\41", "a,"] {
            assert!(ScopeList::parse(wrong).is_err(), "{wrong}");
        }
        assert!(ScopeList::from_names([" "]).is_err());
        assert!(scopes("").is_empty() && scopes("  ").is_empty());
    }

    #[test]
    fn a_tag_list_selects_by_wildcards_as_in_the_rfcs_example() {
        let bob = TagList::parse("*bob*").expect("a tag list");
        for tag in ["some bob I know", "bigbob", "bobby", "BOB"] {
            assert!(bob.selects(tag), "{tag}");
        }
        assert!(!bob.selects("bo b"));
        let several = TagList::parse("resolution,loc*").expect("a tag list");
        assert!(several.selects("Resolution") && several.selects("location-description"));
        assert!(!several.selects("resolutions") && !several.selects("protocol"));
        assert!(TagList::parse("").expect("all").selects("anything"));
        assert!(TagList::parse("a,,b").is_err() && TagList::parse("a(").is_err());
    }

    #[test]
    fn previous_responders_that_are_no_addresses_are_passed_over() {
        let list: Vec<_> = previous_responders("10.0.0.1, 10.0.0.2 ,gateway,::1,10.0.0.300,").collect();
        assert_eq!(list, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(previous_responders("").count(), 0);
    }
}
