//! Service URLs (RFC 2608 section 4, RFC 2609).

use std::fmt;
use std::net::Ipv4Addr;

use super::fold::fold;

/// `service:rsip://10.0.0.1:4555`: a service type and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceUrl {
    /// `service:rsip`.
    pub service_type: String,
    /// A host name, or an IPv4 address with dots.
    pub host: String,
    /// The port, if one is named.
    pub port: Option<u16>,
    /// What follows, with its `/` or `;`.
    pub path: String,
}

/// Why a string is no service URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no service URL: {why}")]
pub struct UrlError {
    /// The string.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl ServiceUrl {
    /// The URL of a service at an address.
    #[must_use]
    pub fn new(service_type: &str, address: Ipv4Addr, port: Option<u16>) -> Self {
        Self { service_type: service_type.to_owned(), host: address.to_string(), port, path: String::new() }
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// When it names no type, no host, or a port that is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let wrong = |why| UrlError { url: text.to_owned(), why };
        let (service_type, rest) = text.split_once("://").ok_or(wrong("there is no ://"))?;
        if service_type.is_empty() || service_type.contains(|c: char| !c.is_ascii_graphic() || c == '/') {
            return Err(wrong("there is no service type before ://"));
        }
        let end = rest.find(['/', ';', '?', '#']).unwrap_or(rest.len());
        let (site, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) = match site.split_once(':') {
            Some((host, port)) => {
                // `parse` would take a sign.
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
                (host, Some(port.ok_or(wrong("the port is no number from 1 to 65535"))?))
            }
            None => (site, None),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(wrong("there is no host name or IPv4 address after ://"));
        }
        Ok(Self { service_type: service_type.to_owned(), host: host.to_owned(), port, path: path.to_owned() })
    }

    /// The host, if it is an address.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service_type, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

/// Whether a request for services of type `wanted` is for those registered as `registered`: the same type, or the
/// abstract type of a concrete one (RFC 2608 section 4.1).
#[must_use]
pub fn type_matches(registered: &str, wanted: &str) -> bool {
    let (registered, wanted) = (fold(registered), fold(wanted));
    let is_abstract =
        wanted.strip_prefix("service:").is_some_and(|rest| !rest.is_empty() && !rest.contains(':'));
    let below = || registered.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with(':'));
    registered == wanted || (is_abstract && below())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_template_shows() {
        let url = ServiceUrl::parse("service:rsip://gateway.mydomain:4455").expect("a URL");
        assert_eq!((url.service_type.as_str(), url.host.as_str()), ("service:rsip", "gateway.mydomain"));
        assert_eq!((url.port, url.address()), (Some(4455), None));
        let url = ServiceUrl::parse("service:rsip://10.0.0.1").expect("a URL");
        assert_eq!((url.port, url.address()), (None, Some(Ipv4Addr::new(10, 0, 0, 1))));
        let url = ServiceUrl::parse("service:printer:lpr://igore.wco.ftp.com:515/draft").expect("a URL");
        assert_eq!((url.service_type.as_str(), url.path.as_str()), ("service:printer:lpr", "/draft"));
    }

    #[test]
    fn what_is_read_prints_the_same() {
        for text in ["service:rsip://10.0.0.1:4555", "service:x.org:y://h/p;a=b", "http://h"] {
            assert_eq!(ServiceUrl::parse(text).expect("a URL").to_string(), text);
        }
    }

    #[test]
    fn refuses_what_leads_nowhere() {
        for text in [
            "",
            "service:rsip",
            "service:rsip:10.0.0.1",
            "://h",
            "service:rsip://",
            "service:rsip://:4555",
            "service:rsip://h:",
            "service:rsip://h:0",
            "service:rsip://h:+5",
            "service:rsip://h:65536",
            "service:rsip://[::1]:4555",
            "service:rsip://u@h",
            "service:rsip://h h",
            "service:rsip:///path",
        ] {
            assert!(ServiceUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_abstract_type_stands_for_its_concrete_types() {
        assert!(type_matches("service:rsip", "SERVICE:RSIP"));
        assert!(type_matches("service:printer:lpr", "service:printer"));
        assert!(type_matches("service:printer:lpr", "service:printer:lpr"));
        assert!(!type_matches("service:printer:lpr", "service:printer:http"));
        assert!(!type_matches("service:rsip", "service:rsi"));
        assert!(!type_matches("service:rsip", "service"));
        assert!(!type_matches("service:rsip", ""));
        assert!(!type_matches("service:x.one", "service:x"));
    }
}
