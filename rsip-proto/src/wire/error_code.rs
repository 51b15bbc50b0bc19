//! The error numbers of RFC 3103 appendix A, with their names.

use std::fmt;

macro_rules! error_codes {
    ($($number:literal $variant:ident $name:literal $text:literal;)+) => {
        /// Error parameter (RFC 3103 section 8.8 and appendix A; 401 to 403: RFC 3104).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!($number, ": ", $text, ".")] $variant,)+
            /// A number that no RFC defines.
            Other(u16),
        }

        impl ErrorCode {
            /// Every code that has a name.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ Self::Other(number) => number }
            }

            /// The code of a number from the wire.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number { $($number => Self::$variant,)+ other => Self::Other(other) }
            }

            /// The RFC's name, in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Other(_) => "UNDEFINED" }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ Self::Other(_) => "no RFC defines this number" }
            }
        }
    };
}

error_codes! {
    101 UnknownError "UNKNOWN_ERROR" "unidentified error";
    102 UseTcp "USE_TCP" "the gateway speaks RSIP over TCP only";
    103 FlowPolicyViolation "FLOW_POLICY_VIOLATION" "the request has too little detail for the flow policy";
    104 InternalServerError "INTERNAL_SERVER_ERROR" "fault inside the gateway";
    105 MessageCounterRequired "MESSAGE_COUNTER_REQUIRED" "message counter missing";
    106 UnsupportedRsipVersion "UNSUPPORTED_RSIP_VERSION" "RSIP version not supported";
    201 MissingParam "MISSING_PARAM" "a required parameter is missing";
    202 DuplicateParam "DUPLICATE_PARAM" "a parameter is repeated illegally";
    203 ExtraParam "EXTRA_PARAM" "a parameter does not belong in this message";
    204 IllegalParam "ILLEGAL_PARAM" "parameter type not understood";
    205 BadParam "BAD_PARAM" "a parameter is malformed";
    206 IllegalMessage "ILLEGAL_MESSAGE" "message type not understood";
    207 BadMessage "BAD_MESSAGE" "message malformed";
    208 UnsupportedMessage "UNSUPPORTED_MESSAGE" "optional message not supported here";
    301 RegisterFirst "REGISTER_FIRST" "the host is not registered";
    302 AlreadyRegistered "ALREADY_REGISTERED" "the host is registered already";
    303 AlreadyUnregistered "ALREADY_UNREGISTERED" "the host is unregistered already";
    304 RegistrationDenied "REGISTRATION_DENIED" "the gateway does not register this host";
    305 BadClientId "BAD_CLIENT_ID" "wrong client ID";
    306 BadBindId "BAD_BIND_ID" "no such binding of this host";
    307 BadTunnelType "BAD_TUNNEL_TYPE" "tunnel type not possible for this host";
    308 LocalAddrUnavailable "LOCAL_ADDR_UNAVAILABLE" "no public address is available now";
    309 LocalAddrportUnavailable "LOCAL_ADDRPORT_UNAVAILABLE" "not enough public ports are available now";
    310 LocalAddrInuse "LOCAL_ADDR_INUSE" "the public address is in use";
    311 LocalAddrportInuse "LOCAL_ADDRPORT_INUSE" "the public port is in use";
    312 LocalAddrUnallowed "LOCAL_ADDR_UNALLOWED" "the public address is not allowed for this host";
    313 LocalAddrportUnallowed "LOCAL_ADDRPORT_UNALLOWED" "the public port is not allowed for this host";
    314 RemoteAddrUnallowed "REMOTE_ADDR_UNALLOWED" "the remote address is not allowed";
    315 RemoteAddrportUnallowed "REMOTE_ADDRPORT_UNALLOWED" "the remote address and port are not allowed";
    401 IpsecUnallowed "IPSEC_UNALLOWED" "IPsec is not allowed for this host";
    402 IpsecSpiUnavailable "IPSEC_SPI_UNAVAILABLE" "no SPI is available now";
    403 IpsecSpiInuse "IPSEC_SPI_INUSE" "the SPI is in use";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.number(), self.name(), self.text())
    }
}
