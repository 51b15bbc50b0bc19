//! Values to bytes.

use crate::wire::codec::Param;
use crate::wire::error::EncodeError;
use crate::wire::fields::{Fields, check_address, check_tuple};
use crate::wire::header::{HEADER_LEN, Header, MAX_MESSAGE_LEN, VERSION};
use crate::wire::message::{Body, Message};
use crate::wire::table::{Field, MessageType};

impl Body {
    /// The message type that the variant stands for.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::ErrorResponse { .. } => MessageType::ErrorResponse,
            Self::RegisterRequest => MessageType::RegisterRequest,
            Self::RegisterResponse { .. } => MessageType::RegisterResponse,
            Self::DeRegisterRequest { .. } => MessageType::DeRegisterRequest,
            Self::DeRegisterResponse { .. } => MessageType::DeRegisterResponse,
            Self::AssignRequestRsaIp(_) => MessageType::AssignRequestRsaIp,
            Self::AssignResponseRsaIp(_) => MessageType::AssignResponseRsaIp,
            Self::AssignRequestRsapIp(_) => MessageType::AssignRequestRsapIp,
            Self::AssignResponseRsapIp(_) => MessageType::AssignResponseRsapIp,
            Self::ExtendRequest { .. } => MessageType::ExtendRequest,
            Self::ExtendResponse { .. } => MessageType::ExtendResponse,
            Self::FreeRequest { .. } => MessageType::FreeRequest,
            Self::FreeResponse { .. } => MessageType::FreeResponse,
            Self::QueryRequest { .. } => MessageType::QueryRequest,
            Self::QueryResponse { .. } => MessageType::QueryResponse,
            Self::ListenRequest(_) => MessageType::ListenRequest,
            Self::ListenResponse(_) => MessageType::ListenResponse,
        }
    }
}

impl Message {
    /// The message's type.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        self.body.message_type()
    }

    /// The message as bytes: required parameters in the RFC's order, then the optional ones in the order in which the
    /// RFC lists them. In a QUERY_REQUEST the `local` of the tuples is not sent.
    ///
    /// # Errors
    ///
    /// Where a value cannot be carried, or would be refused by [`Message::parse`], or the message gets longer than 65,535
    /// bytes.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        self.check_tuples()?;
        let params = self.params();
        for (field, param) in &params {
            check_param(*field, param)?;
        }
        let length = buffer_len(&params);
        let Some(overall) = u16::try_from(length).ok().filter(|_| length <= MAX_MESSAGE_LEN) else {
            return Err(EncodeError::TooLong(length));
        };
        let mut out = Vec::with_capacity(length);
        let header = Header { version: VERSION, message_type: self.message_type().number(), length: overall };
        out.extend(header.to_bytes());
        for (_, param) in &params {
            param.emit(&mut out);
        }
        Ok(out)
    }

    /// Bytes that [`Message::encode`] gives, where it gives any.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        buffer_len(&self.params())
    }

    fn params(&self) -> Vec<(Field, Param)> {
        Fields::of(self).into_params(self.message_type())
    }

    fn check_tuples(&self) -> Result<(), EncodeError> {
        let (Body::QueryRequest { tuples, .. } | Body::QueryResponse { tuples, .. }) = &self.body else {
            return Ok(());
        };
        tuples
            .iter()
            .try_for_each(check_tuple)
            .map_err(|reason| EncodeError::BadParam { field: Field::QueryTuple, reason })
    }
}

fn buffer_len(params: &[(Field, Param)]) -> usize {
    HEADER_LEN + params.iter().map(|(_, param)| param.buffer_len()).sum::<usize>()
}

fn check_param(field: Field, param: &Param) -> Result<(), EncodeError> {
    let in_place = match param {
        Param::Address(address) if field != Field::QueryTuple => check_address(field, address),
        _ => Ok(()),
    };
    in_place.and_then(|()| param.check()).map_err(|reason| EncodeError::BadParam { field, reason })
}
