//! tshark's PDML (an XML tree of packets, layers and fields) to [`Decoded`] messages.
//!
//! Only the layer `rsip` and what the decoder finds wrong are kept. A packet without that layer gives `None`.

use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::judge::decoded::{Decoded, Parameter, Shown};
use crate::judge::ours::{VALUE, VENDOR_VALUE};
use crate::packet::CaptureError;

/// Reads packets one at a time: a whole run's PDML is far larger than what is in it.
pub struct Packets<R> {
    xml: Reader<R>,
    buffer: Vec<u8>,
}

/// The attributes of `<field>` and `<proto>` that say something to us.
#[derive(Debug, Default)]
struct Attributes {
    name: String,
    show: String,
    showname: String,
    /// The bytes, in hex.
    value: String,
    /// Where in the packet it begins.
    pos: usize,
    size: usize,
}

impl<R: BufRead> Packets<R> {
    /// Packets out of tshark's output.
    pub fn new(output: R) -> Self {
        Self { xml: Reader::from_reader(output), buffer: Vec::new() }
    }

    /// The next packet, if there is one: its RSIP message, if it has one.
    ///
    /// # Errors
    /// Where the XML is not as expected.
    pub fn next_packet(&mut self) -> Result<Option<Option<Decoded>>, CaptureError> {
        loop {
            match self.event()? {
                Some(Tag::Open(name, _)) if name == "packet" => return self.packet().map(Some),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn packet(&mut self) -> Result<Option<Decoded>, CaptureError> {
        let mut decoded: Option<Decoded> = None;
        let mut complaints = Vec::new();
        // How deep in the layer `rsip`: 1 in it, 2 in a parameter; and where it begins.
        let mut depth = 0_usize;
        let mut start = 0_usize;
        loop {
            match self.event()?.ok_or_else(|| unexpected(&"it ends inside a packet"))? {
                Tag::Open(element, attributes) if depth > 0 => {
                    if element == "field"
                        && let Some(decoded) = &mut decoded
                    {
                        put(decoded, depth, start, attributes, true, &mut complaints);
                    }
                    depth += 1;
                }
                Tag::Open(element, attributes) if element == "proto" => {
                    if attributes.name == "rsip" {
                        // Two in one packet would be two messages in one datagram.
                        if decoded.is_some() {
                            complaints.push("a second message in the packet".to_owned());
                        }
                        decoded.get_or_insert_default();
                        depth = 1;
                        start = attributes.pos;
                    } else if attributes.name.starts_with("_ws.") {
                        complaints.push(attributes.showname);
                    }
                }
                Tag::Empty(element, attributes) if depth > 0 && element == "field" => {
                    if let Some(decoded) = &mut decoded {
                        put(decoded, depth, start, attributes, false, &mut complaints);
                    }
                }
                Tag::Close(element) => {
                    depth = depth.saturating_sub(1);
                    if element == "packet" {
                        if let Some(decoded) = &mut decoded {
                            decoded.complaints = complaints;
                        }
                        return Ok(decoded);
                    }
                }
                Tag::Open(..) | Tag::Empty(..) => {}
            }
        }
    }

    /// The next tag; `None` at the end.
    fn event(&mut self) -> Result<Option<Tag>, CaptureError> {
        loop {
            self.buffer.clear();
            let event = self.xml.read_event_into(&mut self.buffer).map_err(|error| unexpected(&error))?;
            return Ok(Some(match event {
                Event::Start(tag) => Tag::Open(name(&tag), attributes(&tag)?),
                Event::Empty(tag) => Tag::Empty(name(&tag), attributes(&tag)?),
                Event::End(tag) => Tag::Close(tag.name().as_ref().to_owned()),
                Event::Eof => return Ok(None),
                _ => continue,
            }));
        }
    }
}

/// Files a field where it belongs: a line without a name is a parameter, all below it belongs to that.
fn put(
    decoded: &mut Decoded,
    depth: usize,
    start: usize,
    attributes: Attributes,
    has_children: bool,
    complaints: &mut Vec<String>,
) {
    let Attributes { name, show, showname, value, pos, size } = attributes;
    let offset = pos.saturating_sub(start);
    if name.starts_with("_ws.") {
        complaints.push(if showname.is_empty() { show } else { showname });
        return;
    }
    let shown = match name.as_str() {
        // The text of bytes is a shortened form of them.
        VALUE => Shown::new(VALUE, value, ""),
        // Only its place is told.
        VENDOR_VALUE => Shown::new(VENDOR_VALUE, format!("{size} bytes at {offset}"), ""),
        _ => Shown { name, value: show, text: showname },
    };
    match (depth, decoded.parameters.last_mut()) {
        (1, _) if shown.name.is_empty() => {
            decoded.parameters.push(Parameter { label: shown.value, offset, size, fields: Vec::new() });
            if !has_children {
                complaints.push("a line without content".to_owned());
            }
        }
        (1, _) => decoded.header.push(shown),
        (_, Some(parameter)) => parameter.fields.push(shown),
        (_, None) => complaints.push(format!("{} outside of any parameter", shown.name)),
    }
}

enum Tag {
    Open(String, Attributes),
    Empty(String, Attributes),
    Close(String),
}

fn name(tag: &BytesStart<'_>) -> String {
    tag.name().as_ref().to_owned()
}

fn attributes(tag: &BytesStart<'_>) -> Result<Attributes, CaptureError> {
    let mut found = Attributes::default();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| unexpected(&error))?;
        let text = quick_xml::escape::unescape(&attribute.value).map_err(|error| unexpected(&error))?;
        match attribute.key.as_ref() {
            "name" => found.name = text.into_owned(),
            "show" => found.show = text.into_owned(),
            "showname" => found.showname = text.into_owned(),
            "value" => found.value = text.into_owned(),
            "pos" => found.pos = text.parse().map_err(|error| unexpected(&error))?,
            "size" => found.size = text.parse().map_err(|error| unexpected(&error))?,
            _ => {}
        }
    }
    Ok(found)
}

fn unexpected(what: &dyn std::fmt::Display) -> CaptureError {
    CaptureError::Tshark(format!("its PDML cannot be read: {what}"))
}
