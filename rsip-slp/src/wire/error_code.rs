//! Error codes of replies (RFC 2608 section 7).

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal;)+) => {
        /// What went wrong with a request (RFC 2608 section 7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)+
            /// A number that RFC 2608 does not know, also 8, which it leaves out. Never one of the others.
            Other(u16),
        }

        impl ErrorCode {
            /// Every error that has a name.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The error of a number; nothing for 0, which is success.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    0 => None,
                    $($number => Some(Self::$name),)+
                    other => Some(Self::Other(other)),
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Other(number) => number,
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($word),)+
                    Self::Other(number) => write!(f, "error {number}"),
                }
            }
        }
    };
}

error_codes! {
    /// There is data, but not in the requested language.
    LanguageNotSupported = 1, "LANGUAGE_NOT_SUPPORTED";
    /// The message fails to obey SLP syntax.
    ParseError = 2, "PARSE_ERROR";
    /// The SrvReg has problems, a lifetime of zero for example.
    InvalidRegistration = 3, "INVALID_REGISTRATION";
    /// No scope of the request is supported.
    ScopeNotSupported = 4, "SCOPE_NOT_SUPPORTED";
    /// The SLP SPI is not supported.
    AuthenticationUnknown = 5, "AUTHENTICATION_UNKNOWN";
    /// Authentication was expected.
    AuthenticationAbsent = 6, "AUTHENTICATION_ABSENT";
    /// An authentication block is wrong.
    AuthenticationFailed = 7, "AUTHENTICATION_FAILED";
    /// The version of the header is not supported.
    VerNotSupported = 9, "VER_NOT_SUPPORTED";
    /// The agent is too sick to respond.
    InternalError = 10, "INTERNAL_ERROR";
    /// Try again, with exponential back-off.
    DaBusyNow = 11, "DA_BUSY_NOW";
    /// A mandatory extension is not understood.
    OptionNotUnderstood = 12, "OPTION_NOT_UNDERSTOOD";
    /// An incremental registration of what is not registered.
    InvalidUpdate = 13, "INVALID_UPDATE";
    /// AttrRqst or SrvTypeRqst is not supported.
    MsgNotSupported = 14, "MSG_NOT_SUPPORTED";
    /// Refreshed more often than the `min-refresh-interval` allows.
    RefreshRejected = 15, "REFRESH_REJECTED";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_errors_and_back() {
        assert_eq!(ErrorCode::from_number(0), None, "success");
        for number in 1..=u16::MAX {
            assert_eq!(ErrorCode::from_number(number).map(ErrorCode::number), Some(number));
        }
        assert_eq!(ErrorCode::from_number(8), Some(ErrorCode::Other(8)), "left out by the RFC");
        assert_eq!(ErrorCode::ALL.len(), 14);
    }
}
