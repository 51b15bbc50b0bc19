//! Rules as text. The long form is `ACTION [PORTS] [tcp|udp] [program=NAME] [user=NAME] [cgroup=PATH]`, in any order after the
//! action; the short form of 2002 puts a letter before the ports: `I6010-6010`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use rsip_ebpf_common::rules::CGROUP_DEPTH;

use super::{ALL_PORTS, Action, Protocol, Rule, RuleError, User};

impl Action {
    /// Its letter in the short form.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Ignore => 'I',
            Self::Lease => 'A',
            Self::Deny => 'D',
        }
    }

    /// As a default policy was shown in 2002: what is asked for is accepted.
    #[must_use]
    pub const fn policy(self) -> &'static str {
        match self {
            Self::Lease => "ACCEPT",
            Self::Ignore => "IGNORE",
            Self::Deny => "DENY",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Lease => "lease",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Action {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text.to_ascii_lowercase().as_str() {
            "ignore" => Ok(Self::Ignore),
            "lease" | "accept" => Ok(Self::Lease),
            "deny" => Ok(Self::Deny),
            _ => Err(RuleError::NoAction),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for User {
    type Err = RuleError;

    fn from_str(name: &str) -> Result<Self, RuleError> {
        let unknown = || RuleError::User(name.to_owned());
        let uid = match name.parse() {
            Ok(uid) => uid,
            Err(_) => {
                let user = nix::unistd::User::from_name(name).map_err(|_| unknown())?.ok_or_else(unknown)?;
                user.uid.as_raw()
            }
        };
        Ok(Self { uid, name: name.to_owned() })
    }
}

/// `PORT` or `FIRST-LAST`.
///
/// # Errors
///
/// It is neither.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(RuleError::Backwards(text.to_owned())),
        _ => Err(RuleError::Ports(text.to_owned())),
    }
}

pub(super) fn program(name: &str) -> Result<String, RuleError> {
    if name.is_empty() || name.contains(['/', '"', '\0', '\n']) {
        return Err(RuleError::Program(name.to_owned()));
    }
    Ok(name.to_owned())
}

pub(super) fn cgroup(path: &str) -> Result<String, RuleError> {
    let sound =
        path.starts_with('/') && !path.contains(['"', '\0', '\n']) && path.split('/').all(|p| p != "..");
    if !sound {
        return Err(RuleError::Cgroup(path.to_owned()));
    }
    // The root is a level, too.
    let (depth, most) = (path.split('/').filter(|part| !part.is_empty()).count(), CGROUP_DEPTH - 1);
    match u32::try_from(depth) {
        Ok(level) if level <= most => Ok(path.to_owned()),
        _ => Err(RuleError::Deep { path: path.to_owned(), depth, most }),
    }
}

fn once<T>(place: &mut Option<T>, value: T, what: &'static str) -> Result<(), RuleError> {
    if place.replace(value).is_some() { Err(RuleError::Twice(what)) } else { Ok(()) }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words = words(text)?;
        let (first, rest) = words.split_first().ok_or(RuleError::NoAction)?;
        let (action, mut said) = begin(first)?;
        let mut rule = Self::for_ports(action, ALL_PORTS);
        for word in rest.iter().map(String::as_str) {
            match word.split_once('=') {
                Some(("program", name)) => once(&mut rule.program, program(name)?, "the program")?,
                Some(("user", name)) => once(&mut rule.user, name.parse()?, "the user")?,
                Some(("cgroup", path)) => once(&mut rule.cgroup, cgroup(path)?, "the cgroup")?,
                Some(_) => return Err(RuleError::Unknown(word.to_owned())),
                None if word.eq_ignore_ascii_case("tcp") => {
                    once(&mut rule.protocol, Protocol::Tcp, "the protocol")?;
                }
                None if word.eq_ignore_ascii_case("udp") => {
                    once(&mut rule.protocol, Protocol::Udp, "the protocol")?;
                }
                None if word.starts_with(|c: char| c.is_ascii_digit()) => {
                    once(&mut said, ports(word)?, "the range of ports")?;
                }
                None => return Err(RuleError::Unknown(word.to_owned())),
            }
        }
        rule.ports = said.unwrap_or(ALL_PORTS);
        Ok(rule)
    }
}

/// Blanks part words, but not between quotation marks: some programs have names like `"Web Content"`.
fn words(text: &str) -> Result<Vec<String>, RuleError> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    if quoted {
        return Err(RuleError::Unknown(text.to_owned()));
    }
    words.extend(word);
    Ok(words)
}

fn quoted(text: &str) -> String {
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text.to_owned() }
}

/// The first word: an action, or its letter with ports.
fn begin(word: &str) -> Result<(Action, Option<RangeInclusive<u16>>), RuleError> {
    let letters = [Action::Ignore, Action::Lease, Action::Deny].map(|action| (action.letter(), action));
    let short = letters.into_iter().find_map(|(letter, action)| Some((action, word.strip_prefix(letter)?)));
    match short {
        Some((action, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok((action, Some(ports(rest)?)))
        }
        _ => Ok((word.parse()?, None)),
    }
}

/// The short form, with what it has beside the ports.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", self.action.letter(), self.ports.start(), self.ports.end())?;
        if let Some(protocol) = self.protocol {
            write!(f, " {protocol}")?;
        }
        if let Some(program) = &self.program {
            write!(f, " program={}", quoted(program))?;
        }
        if let Some(user) = &self.user {
            write!(f, " user={}", user.name)?;
        }
        if let Some(cgroup) = &self.cgroup {
            write!(f, " cgroup={}", quoted(cgroup))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Rule, RuleError> {
        text.parse()
    }

    #[test]
    fn reads_both_forms() {
        let short = parse("I6010-6010").expect("the form of 2002");
        assert_eq!(short, Rule::for_ports(Action::Ignore, 6010..=6010));
        assert_eq!(parse("ignore 6010"), Ok(short));
        assert_eq!(parse("deny"), Ok(Rule::for_ports(Action::Deny, ALL_PORTS)));
        assert_eq!(parse("A80-443 udp").expect("a rule").protocol, Some(Protocol::Udp));
        let long = parse("lease program=apache2 80-443 TCP user=root cgroup=/system.slice/apache2.service");
        let long = long.expect("a rule");
        assert_eq!((long.action, long.ports.clone()), (Action::Lease, 80..=443));
        assert_eq!(long.user, Some(User { uid: 0, name: "root".to_owned() }));
        let shown = "A80-443 tcp program=apache2 user=root cgroup=/system.slice/apache2.service";
        assert_eq!(long.to_string(), shown);
        assert_eq!(parse(shown), Ok(long));
        assert_eq!(parse("deny user=4711").expect("by number").user.map(|user| user.uid), Some(4711));
    }

    #[test]
    fn names_with_blanks_stand_in_quotes() {
        let rule = parse("deny program=\"Web Content\"").expect("a rule");
        assert_eq!(rule.program.as_deref(), Some("Web Content"));
        assert_eq!(rule.to_string(), "D1-65535 program=\"Web Content\"");
        assert!(parse("deny program=\"Web").is_err());
    }

    #[test]
    fn reads_ports() {
        assert_eq!(ports("80"), Ok(80..=80));
        assert_eq!(ports("8000-8099"), Ok(8000..=8099));
        for bad in ["", "0", "80-", "90-80", "65536", "-5", "+5", " 5"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("", "begins with ignore, lease or deny"),
            ("allow 80", "begins with ignore, lease or deny"),
            ("I", "begins with ignore, lease or deny"),
            ("ignore 0", "\"0\" is neither a port"),
            ("ignore 70000", "\"70000\" is neither a port"),
            ("ignore 20-10", "20-10 ends before it begins"),
            ("ignore 1-2-3", "\"1-2-3\" is neither a port"),
            ("ignore 80 81", "the range of ports is said twice"),
            ("I80 81", "the range of ports is said twice"),
            ("ignore tcp udp", "the protocol is said twice"),
            ("ignore sctp", "\"sctp\" is no part of a rule"),
            ("ignore uid=0", "\"uid=0\" is no part of a rule"),
            ("ignore program=/usr/sbin/sshd", "cannot be the name of a program"),
            ("ignore program=", "cannot be the name of a program"),
            ("ignore user=nobody-of-that-name", "no user"),
            ("ignore cgroup=system.slice", "no path in the cgroup tree"),
            ("ignore cgroup=/a/../b", "no path in the cgroup tree"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(rule in crate::rules::set::tests::rule()) {
            prop_assert_eq!(parse(&rule.to_string()), Ok(rule));
        }

        #[test]
        fn no_text_makes_it_fail(text in "[ IADa-z0-9=/.-]{0,40}") {
            if let Ok(rule) = parse(&text) {
                prop_assert_eq!(parse(&rule.to_string()), Ok(rule));
            }
        }
    }

    #[test]
    fn names_no_cgroup_that_the_programs_do_not_look_for() {
        let rule = |depth: usize| format!("ignore cgroup={}", "/a".repeat(depth)).parse::<Rule>();
        assert!(rule(23).is_ok());
        let error = rule(24).expect_err("too deep").to_string();
        assert!(error.contains("is 24 levels below the root") && error.contains("23 at most"), "{error}");
        assert!("ignore cgroup=/".parse::<Rule>().is_ok(), "the root itself");
    }
}
