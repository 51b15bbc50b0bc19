//! Values to bytes.

use super::message::{
    AttrRply, AttrRqst, Body, DaAdvert, Flags, Message, NamingAuthority, SaAdvert, SrvDeReg, SrvReg, SrvRply,
    SrvRqst, SrvTypeRply, SrvTypeRqst, UrlEntry,
};
use super::{ErrorCode, LENGTH_AT, MAX_LENGTH, VERSION};

/// Why a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string is longer than its length field can tell.
    #[error("{field} is {length} bytes long, at most {most} can be told")]
    TooLong {
        /// Which string.
        field: &'static str,
        /// Bytes that it has.
        length: usize,
        /// Bytes that it may have.
        most: usize,
    },
    /// More URL entries than their count can tell.
    #[error("{0} URL entries, at most 65535 can be told")]
    TooMany(usize),
    /// The message is longer than its length field can tell.
    #[error("the message is {0} bytes long, at most {MAX_LENGTH} can be told")]
    Huge(usize),
    /// A naming authority without a name, which would read as IANA.
    #[error("the naming authority has no name")]
    Nameless,
}

impl Message {
    /// The bytes of the message.
    ///
    /// # Errors
    /// When something is longer than RFC 2608's length fields can tell.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer(vec![VERSION, self.body.function().number(), 0, 0, 0]);
        writer.u16(self.flags.bits());
        // No extension is ever written.
        writer.0.extend([0; 3]);
        writer.u16(self.xid);
        writer.string("language tag", &self.language)?;
        writer.body(&self.body)?;
        let mut bytes = writer.0;
        let length = bytes.len();
        let in_three_bytes = u32::try_from(length).ok().filter(|length| *length <= MAX_LENGTH);
        let [_, high, middle, low] = in_three_bytes.ok_or(EncodeError::Huge(length))?.to_be_bytes();
        for (byte, value) in bytes.iter_mut().skip(LENGTH_AT).zip([high, middle, low]) {
            *byte = value;
        }
        Ok(bytes)
    }

    /// The bytes of a reply in a datagram of at most `limit` bytes (1400 by default, RFC 2608 section 6.1). What does not
    /// fit is left out at its end, whole URL entries and whole attributes, and OVERFLOW is set.
    ///
    /// # Errors
    /// As [`Message::encode`].
    pub fn encode_datagram(&self, limit: usize) -> Result<Vec<u8>, EncodeError> {
        let bytes = self.encode()?;
        if bytes.len() <= limit {
            return Ok(bytes);
        }
        let excess = bytes.len() - limit;
        let mut short = Self { flags: Flags { overflow: true, ..self.flags }, ..self.clone() };
        match &mut short.body {
            Body::SrvRply(reply) => drop_entries(&mut reply.entries, excess),
            Body::AttrRply(reply) => shorten(&mut reply.attributes, excess),
            Body::SrvTypeRply(reply) => shorten(&mut reply.service_types, excess),
            Body::DaAdvert(advert) => shorten(&mut advert.attributes, excess),
            Body::SaAdvert(advert) => shorten(&mut advert.attributes, excess),
            // Requests are not cut: the flag makes no sense in them.
            _ => {}
        }
        short.encode()
    }
}

fn drop_entries(entries: &mut Vec<UrlEntry>, mut excess: usize) {
    while excess > 0 {
        let Some(entry) = entries.pop() else { return };
        // Reserved, lifetime, URL length, URL, number of authentication blocks.
        excess = excess.saturating_sub(6 + entry.url.len());
    }
}

/// Leaves out at least `excess` bytes, and ends before a comma that stands between items.
fn shorten(list: &mut String, excess: usize) {
    let keep = list.len().saturating_sub(excess);
    let mut depth = 0_usize;
    let mut end = 0;
    // What ends where the list ends was too long by at least a byte.
    for (at, byte) in list.bytes().enumerate().take(keep + 1) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => end = at,
            _ => {}
        }
    }
    list.truncate(end);
}

impl Flags {
    pub(super) const OVERFLOW: u16 = 0x8000;
    pub(super) const FRESH: u16 = 0x4000;
    pub(super) const REQUEST_MCAST: u16 = 0x2000;

    fn bits(self) -> u16 {
        let bit = |set: bool, bit: u16| if set { bit } else { 0 };
        bit(self.overflow, Self::OVERFLOW)
            | bit(self.fresh, Self::FRESH)
            | bit(self.request_mcast, Self::REQUEST_MCAST)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn string(&mut self, field: &'static str, text: &str) -> Result<(), EncodeError> {
        self.string_up_to(field, text, u16::MAX)
    }

    fn string_up_to(&mut self, field: &'static str, text: &str, most: u16) -> Result<(), EncodeError> {
        let too_long = || EncodeError::TooLong { field, length: text.len(), most: most.into() };
        let length = u16::try_from(text.len()).ok().filter(|length| *length <= most).ok_or_else(too_long)?;
        self.u16(length);
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn error(&mut self, error: Option<ErrorCode>) {
        self.u16(error.map_or(0, ErrorCode::number));
    }

    fn no_authentication(&mut self) {
        self.u8(0);
    }

    fn entry(&mut self, entry: &UrlEntry) -> Result<(), EncodeError> {
        self.u8(0);
        self.u16(entry.lifetime);
        self.string("URL", &entry.url)?;
        self.no_authentication();
        Ok(())
    }

    fn body(&mut self, body: &Body) -> Result<(), EncodeError> {
        match body {
            Body::SrvRqst(request) => self.srv_rqst(request),
            Body::SrvRply(reply) => self.srv_rply(reply),
            Body::SrvReg(registration) => self.srv_reg(registration),
            Body::SrvDeReg(end) => self.srv_de_reg(end),
            Body::SrvAck { error } => {
                self.error(*error);
                Ok(())
            }
            Body::AttrRqst(request) => self.attr_rqst(request),
            Body::AttrRply(reply) => self.attr_rply(reply),
            Body::DaAdvert(advert) => self.da_advert(advert),
            Body::SrvTypeRqst(request) => self.srv_type_rqst(request),
            Body::SrvTypeRply(reply) => self.srv_type_rply(reply),
            Body::SaAdvert(advert) => self.sa_advert(advert),
        }
    }

    fn srv_rqst(&mut self, request: &SrvRqst) -> Result<(), EncodeError> {
        self.string("PRList", &request.previous_responders)?;
        self.string("service type", &request.service_type)?;
        self.string("scope list", &request.scopes)?;
        self.string("predicate", &request.predicate)?;
        self.string("SLP SPI", &request.spi)
    }

    fn srv_rply(&mut self, reply: &SrvRply) -> Result<(), EncodeError> {
        self.error(reply.error);
        let count = reply.entries.len();
        self.u16(u16::try_from(count).map_err(|_| EncodeError::TooMany(count))?);
        reply.entries.iter().try_for_each(|entry| self.entry(entry))
    }

    fn srv_reg(&mut self, registration: &SrvReg) -> Result<(), EncodeError> {
        self.entry(&registration.entry)?;
        self.string("service type", &registration.service_type)?;
        self.string("scope list", &registration.scopes)?;
        self.string("attribute list", &registration.attributes)?;
        self.no_authentication();
        Ok(())
    }

    fn srv_de_reg(&mut self, end: &SrvDeReg) -> Result<(), EncodeError> {
        self.string("scope list", &end.scopes)?;
        self.entry(&end.entry)?;
        self.string("tag list", &end.tags)
    }

    fn attr_rqst(&mut self, request: &AttrRqst) -> Result<(), EncodeError> {
        self.string("PRList", &request.previous_responders)?;
        self.string("URL", &request.url)?;
        self.string("scope list", &request.scopes)?;
        self.string("tag list", &request.tags)?;
        self.string("SLP SPI", &request.spi)
    }

    fn attr_rply(&mut self, reply: &AttrRply) -> Result<(), EncodeError> {
        self.error(reply.error);
        self.string("attribute list", &reply.attributes)?;
        self.no_authentication();
        Ok(())
    }

    fn da_advert(&mut self, advert: &DaAdvert) -> Result<(), EncodeError> {
        self.error(advert.error);
        self.u32(advert.boot_timestamp);
        self.string("URL", &advert.url)?;
        self.string("scope list", &advert.scopes)?;
        self.string("attribute list", &advert.attributes)?;
        self.string("SLP SPI list", &advert.spis)?;
        self.no_authentication();
        Ok(())
    }

    fn srv_type_rqst(&mut self, request: &SrvTypeRqst) -> Result<(), EncodeError> {
        self.string("PRList", &request.previous_responders)?;
        match &request.naming_authority {
            NamingAuthority::Iana => self.u16(0),
            NamingAuthority::Named(name) if name.is_empty() => return Err(EncodeError::Nameless),
            // The greatest length stands for all authorities.
            NamingAuthority::Named(name) => self.string_up_to("naming authority", name, u16::MAX - 1)?,
            NamingAuthority::All => self.u16(u16::MAX),
        }
        self.string("scope list", &request.scopes)
    }

    fn srv_type_rply(&mut self, reply: &SrvTypeRply) -> Result<(), EncodeError> {
        self.error(reply.error);
        self.string("service type list", &reply.service_types)
    }

    fn sa_advert(&mut self, advert: &SaAdvert) -> Result<(), EncodeError> {
        self.string("URL", &advert.url)?;
        self.string("scope list", &advert.scopes)?;
        self.string("attribute list", &advert.attributes)?;
        self.no_authentication();
        Ok(())
    }
}
