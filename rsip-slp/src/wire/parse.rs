//! Bytes to values.

use super::message::{
    AttrRply, AttrRqst, Body, DaAdvert, Flags, Function, Message, NamingAuthority, SaAdvert, SrvDeReg,
    SrvReg, SrvRply, SrvRqst, SrvTypeRply, SrvTypeRqst, UrlEntry,
};
use super::reader::Reader;
use super::{ErrorCode, HEADER_LENGTH, VERSION};

/// The header, as far as a reply needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Kind of the message.
    pub function: Function,
    /// Its flags.
    pub flags: Flags,
    /// Transaction ID.
    pub xid: u16,
    /// Language tag.
    pub language: String,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// The header, where it could be read: then a unicast request can be answered.
    pub header: Option<Header>,
}

impl ParseError {
    /// The error to answer with.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self.kind {
            ParseErrorKind::Version(_) => ErrorCode::VerNotSupported,
            ParseErrorKind::MandatoryExtension(_) => ErrorCode::OptionNotUnderstood,
            _ => ErrorCode::ParseError,
        }
    }
}

/// What is wrong with bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// They end too early.
    #[error("the message ends too early")]
    Truncated,
    /// A version that is not spoken here.
    #[error("version {0}")]
    Version(u8),
    /// A function that RFC 2608 does not know.
    #[error("function {0}")]
    Function(u8),
    /// The header tells another length than there is.
    #[error("the header says {says} bytes, there are {are}")]
    Length {
        /// By the header.
        says: u32,
        /// In fact.
        are: usize,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// An authentication block is shorter than its own fixed part.
    #[error("an authentication block of {0} bytes")]
    AuthenticationBlock(u16),
    /// There is more than the message has to say.
    #[error("{0} bytes are left over")]
    TrailingBytes(usize),
    /// An extension where none can be.
    #[error("an extension at offset {0}")]
    Extension(u32),
    /// An extension that must be understood, and is not.
    #[error("mandatory extension {0:#06x} is not understood")]
    MandatoryExtension(u16),
}

impl Message {
    /// Reads one whole message.
    ///
    /// A reply with the OVERFLOW flag may be cut off: of a SrvRply the URL entries that are whole are read; any other
    /// that ends too early is an error whose header tells of the flag.
    ///
    /// # Errors
    /// When the bytes are no message.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let (header, extensions) = read_header(&mut reader, bytes)?;
        let in_header = |kind| ParseError { kind, header: Some(header.clone()) };
        let body_end = read_extensions(bytes, extensions).map_err(in_header)?;
        // Before the extensions, as if there were nothing behind.
        let body_bytes =
            bytes.get(reader.at()..body_end).ok_or_else(|| in_header(ParseErrorKind::Truncated))?;
        let mut reader = Reader::new(body_bytes);
        let body = reader.body(header.function, header.flags.overflow).map_err(in_header)?;
        // What follows an error is not looked at (RFC 2608 section 7); a reply that was cut off ends anywhere.
        if reader.left() > 0 && !body.is_error() && !header.flags.overflow {
            return Err(in_header(ParseErrorKind::TrailingBytes(reader.left())));
        }
        Ok(Self { flags: header.flags, xid: header.xid, language: header.language, body })
    }
}

/// The header and the offset of the first extension.
fn read_header(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<(Header, u32), ParseError> {
    let nameless = |kind| ParseError { kind, header: None };
    let version = reader.u8().map_err(nameless)?;
    if version < VERSION {
        // SLPv1 has another header, in which nothing stands where it is looked for here.
        return Err(nameless(ParseErrorKind::Version(version)));
    }
    let function = reader.u8().map_err(nameless)?;
    let length = reader.u24().map_err(nameless)?;
    let bits = reader.u16().map_err(nameless)?;
    let extensions = reader.u24().map_err(nameless)?;
    let xid = reader.u16().map_err(nameless)?;
    let language = reader.string().map_err(nameless)?;
    let flags = Flags {
        overflow: bits & Flags::OVERFLOW != 0,
        fresh: bits & Flags::FRESH != 0,
        request_mcast: bits & Flags::REQUEST_MCAST != 0,
    };
    let function = Function::from_number(function).ok_or(nameless(ParseErrorKind::Function(function)))?;
    let header = Header { function, flags, xid, language };
    let told = usize::try_from(length).unwrap_or(usize::MAX);
    let cut_off = flags.overflow && told > bytes.len();
    let kind = if version != VERSION {
        // Perhaps the header of that version is the same: only then its sender understands the answer.
        ParseErrorKind::Version(version)
    } else if told != bytes.len() && !cut_off {
        ParseErrorKind::Length { says: length, are: bytes.len() }
    } else {
        return Ok((header, extensions));
    };
    Err(ParseError { kind, header: Some(header) })
}

/// Passes over the extensions (RFC 2608 section 9.1); answers where the body ends.
fn read_extensions(bytes: &[u8], first: u32) -> Result<usize, ParseErrorKind> {
    if first == 0 {
        return Ok(bytes.len());
    }
    let mut offset = first;
    let mut end = HEADER_LENGTH;
    loop {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        // Forwards only, or a ring of extensions would never end.
        let rest = bytes.get(at..).filter(|_| at >= end).ok_or(ParseErrorKind::Extension(offset))?;
        let mut reader = Reader::new(rest);
        let id = reader.u16()?;
        if (0x4000..=0x7fff).contains(&id) {
            return Err(ParseErrorKind::MandatoryExtension(id));
        }
        end = at + 5;
        offset = reader.u24()?;
        if offset == 0 {
            return Ok(usize::try_from(first).unwrap_or(usize::MAX));
        }
    }
}

impl Body {
    fn is_error(&self) -> bool {
        match self {
            Self::SrvRply(reply) => reply.error.is_some(),
            Self::SrvAck { error } => error.is_some(),
            Self::AttrRply(reply) => reply.error.is_some(),
            Self::DaAdvert(advert) => advert.error.is_some(),
            Self::SrvTypeRply(reply) => reply.error.is_some(),
            Self::SrvRqst(_)
            | Self::SrvReg(_)
            | Self::SrvDeReg(_)
            | Self::AttrRqst(_)
            | Self::SrvTypeRqst(_)
            | Self::SaAdvert(_) => false,
        }
    }
}

type Parsed<T> = Result<T, ParseErrorKind>;

impl Reader<'_> {
    fn body(&mut self, function: Function, overflow: bool) -> Parsed<Body> {
        Ok(match function {
            Function::SrvRqst => Body::SrvRqst(SrvRqst {
                previous_responders: self.string()?,
                service_type: self.string()?,
                scopes: self.string()?,
                predicate: self.string()?,
                spi: self.string()?,
            }),
            Function::SrvRply => Body::SrvRply(self.srv_rply(overflow)?),
            Function::SrvReg => Body::SrvReg(self.srv_reg()?),
            Function::SrvDeReg => Body::SrvDeReg(SrvDeReg {
                scopes: self.string()?,
                entry: self.entry()?,
                tags: self.string()?,
            }),
            Function::SrvAck => Body::SrvAck { error: self.error()? },
            Function::AttrRqst => Body::AttrRqst(AttrRqst {
                previous_responders: self.string()?,
                url: self.string()?,
                scopes: self.string()?,
                tags: self.string()?,
                spi: self.string()?,
            }),
            Function::AttrRply => Body::AttrRply(self.attr_rply()?),
            Function::DaAdvert => Body::DaAdvert(self.da_advert()?),
            Function::SrvTypeRqst => Body::SrvTypeRqst(SrvTypeRqst {
                previous_responders: self.string()?,
                naming_authority: self.naming_authority()?,
                scopes: self.string()?,
            }),
            Function::SrvTypeRply => Body::SrvTypeRply(self.srv_type_rply()?),
            Function::SaAdvert => Body::SaAdvert(self.sa_advert()?),
        })
    }

    fn error(&mut self) -> Parsed<Option<ErrorCode>> {
        self.u16().map(ErrorCode::from_number)
    }

    fn entry(&mut self) -> Parsed<UrlEntry> {
        self.u8()?;
        let lifetime = self.u16()?;
        let url = self.string()?;
        self.authentication()?;
        Ok(UrlEntry { lifetime, url })
    }

    /// Passes over authentication blocks (RFC 2608 section 9.2).
    fn authentication(&mut self) -> Parsed<()> {
        for _ in 0..self.u8()? {
            self.u16()?;
            let length = self.u16()?;
            // The whole block is counted: descriptor, length, timestamp, length of the SPI.
            let rest = length.checked_sub(4).filter(|rest| *rest >= 6);
            let rest = rest.ok_or(ParseErrorKind::AuthenticationBlock(length))?;
            self.take(rest.into())?;
        }
        Ok(())
    }

    fn srv_rply(&mut self, overflow: bool) -> Parsed<SrvRply> {
        let error = self.error()?;
        if error.is_some() {
            return Ok(SrvRply { error, entries: Vec::new() });
        }
        let count = self.u16()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            match self.entry() {
                Ok(entry) => entries.push(entry),
                // What was cut off is known to be missing.
                Err(ParseErrorKind::Truncated) if overflow => break,
                Err(kind) => return Err(kind),
            }
        }
        Ok(SrvRply { error, entries })
    }

    fn srv_reg(&mut self) -> Parsed<SrvReg> {
        let entry = self.entry()?;
        let service_type = self.string()?;
        let scopes = self.string()?;
        let attributes = self.string()?;
        self.authentication()?;
        Ok(SrvReg { entry, service_type, scopes, attributes })
    }

    fn attr_rply(&mut self) -> Parsed<AttrRply> {
        let error = self.error()?;
        if error.is_some() {
            return Ok(AttrRply { error, attributes: String::new() });
        }
        let attributes = self.string()?;
        self.authentication()?;
        Ok(AttrRply { error, attributes })
    }

    fn da_advert(&mut self) -> Parsed<DaAdvert> {
        let error = self.error()?;
        if error.is_some() {
            return Ok(DaAdvert { error, ..DaAdvert::default() });
        }
        let advert = DaAdvert {
            error,
            boot_timestamp: self.u32()?,
            url: self.string()?,
            scopes: self.string()?,
            attributes: self.string()?,
            spis: self.string()?,
        };
        self.authentication()?;
        Ok(advert)
    }

    fn naming_authority(&mut self) -> Parsed<NamingAuthority> {
        Ok(match self.u16()? {
            0 => NamingAuthority::Iana,
            u16::MAX => NamingAuthority::All,
            length => NamingAuthority::Named(self.text(length)?),
        })
    }

    fn srv_type_rply(&mut self) -> Parsed<SrvTypeRply> {
        let error = self.error()?;
        if error.is_some() {
            return Ok(SrvTypeRply { error, service_types: String::new() });
        }
        Ok(SrvTypeRply { error, service_types: self.string()? })
    }

    fn sa_advert(&mut self) -> Parsed<SaAdvert> {
        let advert = SaAdvert { url: self.string()?, scopes: self.string()?, attributes: self.string()? };
        self.authentication()?;
        Ok(advert)
    }
}
