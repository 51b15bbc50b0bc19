//! What tshark's RSIP dissector (`packet-rsip.c`) shows otherwise than RFC 3103 has it. Nothing else is tolerated.
//!
//! Versions 4.0 and 4.4 have all of these. Each run of the judge gives tshark a message for each slip, so that a dissector
//! which was mended is noticed: then the slip goes from this list.

use crate::judge::decoded::{Parameter, Shown};
use crate::judge::ours::{PORT, VALUE, VENDOR_VALUE};
use crate::judge::words::{IPSEC_SPI_INUSE, IPSEC_SPI_UNAVAILABLE, IPSEC_UNALLOWED};

/// A slip in what gateway and host send.
#[derive(Clone, Copy, Debug)]
pub struct Slip {
    /// In a few words.
    pub name: &'static str,
    /// Why we hold it for one, and where it comes from.
    pub reason: &'static str,
    /// Changes a right reading of a parameter into what is shown, and says whether the slip concerns it.
    pub apply: fn(&mut Parameter) -> bool,
    /// A message that it concerns, in hex.
    pub probe: &'static str,
}

/// All that are seen in messages of ours.
pub const OURS: &[Slip] = &[
    Slip {
        name: "the end of a range of ports is one too high",
        reason: "section 8.2: Number is how many ports there are, so the last one is first + Number - 1 (appendix C: \
                 16 from 10000 are 10000 to 10015); the dissector shows first + Number",
        apply: range_end,
        probe: "01 10 00 1d 04 00 04 00 00 00 01 01 00 01 01 02 00 03 10 27 10 01 00 01 01 02 00 01 01",
    },
    Slip {
        name: "numbers of four bytes above 2147483647 are negative in the summary line",
        reason: "IDs, times and counters have 32 bits without a sign; the summary line is printed with %d, the field itself \
                 is right",
        apply: signed,
        probe: "01 04 00 12 04 00 04 ff ff ff fe 0b 00 04 80 00 00 00",
    },
    Slip {
        name: "\"Micro Flows\" of the local policy ends in a blank",
        reason: "a slip of the pen in the dissector's table of names",
        apply: micro_blank,
        probe: "01 03 00 17 04 00 04 00 00 00 01 03 00 04 00 00 02 58 09 00 02 02 03",
    },
    Slip {
        name: "the errors of RFC 3104 are one too low",
        reason: "RFC 3104 appendix B and IANA: 401, 402 and 403; the dissector's table has 400, 401 and 402",
        apply: ipsec_errors,
        probe: "01 01 00 09 08 00 02 01 91",
    },
];

fn range_end(parameter: &mut Parameter) -> bool {
    let Some(port) = parameter.fields.iter_mut().find(|shown| shown.name == PORT) else { return false };
    let Some((first, last)) = port.text.strip_prefix("Port: ").and_then(|span| span.split_once(" - ")) else {
        return false;
    };
    let Ok(last) = last.parse::<u32>() else { return false };
    let span = format!("{first} - {}", last + 1);
    port.text = format!("Port: {span}");
    parameter.label = format!("Port: {span}");
    true
}

fn signed(parameter: &mut Parameter) -> bool {
    const NAMES: [&str; 4] = [
        "rsip.parameter.lease_time",
        "rsip.parameter.client_id",
        "rsip.parameter.bind_id",
        "rsip.parameter.message_counter",
    ];
    let number = parameter.fields.iter().find(|shown| NAMES.contains(&shown.name.as_str()));
    let Some(number) = number.and_then(|shown| shown.value.parse::<u32>().ok()) else { return false };
    if i32::try_from(number).is_ok() {
        return false;
    }
    parameter.label = parameter.label.replacen(&number.to_string(), &number.cast_signed().to_string(), 1);
    true
}

fn micro_blank(parameter: &mut Parameter) -> bool {
    let local = parameter.fields.iter_mut().find(|shown| shown.name == "rsip.parameter.local_flow_policy");
    let Some(local) = local.filter(|shown| shown.text.contains("Micro Flows (")) else { return false };
    local.text = local.text.replace("Micro Flows (", "Micro Flows  (");
    parameter.label = parameter.label.replacen("Micro Flows/", "Micro Flows /", 1);
    true
}

fn ipsec_errors(parameter: &mut Parameter) -> bool {
    let Some(error) = parameter.fields.iter_mut().find(|shown| shown.name == "rsip.parameter.error") else {
        return false;
    };
    let (right, shown, label) = match error.value.as_str() {
        "401" => (IPSEC_UNALLOWED, IPSEC_SPI_UNAVAILABLE, IPSEC_SPI_UNAVAILABLE),
        "402" => (IPSEC_SPI_UNAVAILABLE, IPSEC_SPI_INUSE, IPSEC_SPI_INUSE),
        "403" => (IPSEC_SPI_INUSE, "Unknown", "Undefined Error (403)"),
        _ => return false,
    };
    error.text = error.text.replacen(right, shown, 1);
    parameter.label = parameter.label.replacen(right, label, 1);
    true
}

/// A slip in what others may send, and we take, and never send.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// In a few words.
    pub name: &'static str,
    /// Why we hold it for one, and where it comes from.
    pub reason: &'static str,
    /// A message that it concerns, in hex.
    pub probe: &'static str,
    /// Which of its parameters, from 0.
    pub place: usize,
    /// What the dissector shows of that parameter: the summary line, its size, the value's bytes, and the fields in it.
    pub shown: (&'static str, usize, &'static str, &'static [(&'static str, &'static str)]),
    /// Whether it calls the message malformed.
    pub malformed: bool,
}

/// All that are known.
pub const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "a don't-care Ports of number 0 is \"Unspecified\"",
        reason: "section 8.2: the number of a don't-care Ports MUST be 1 or more; we read 0 in remote Ports as don't care",
        probe: "01 10 00 1b 04 00 04 00 00 00 01 01 00 01 01 02 00 01 01 01 00 01 01 02 00 01 00",
        place: 4,
        shown: ("Port: Unspecified", 4, "00", &[("rsip.parameter.ports.number", "0")]),
        malformed: false,
    },
    Foreign {
        name: "an Indicator of one byte is read as two",
        reason: "sections 9.14 and 9.15 speak of a 1-byte value, 8.10 of two; the dissector reads two bytes whatever the \
                 Length says, here past the end of the message",
        probe: "01 0e 00 0f 04 00 04 00 00 00 01 0a 00 01 01",
        place: 1,
        shown: ("Indicator", 4, "01", &[]),
        malformed: true,
    },
    Foreign {
        name: "the value of a Vendor Specific parameter starts two bytes late",
        reason: "section 8.12: it follows the Subtype at once, at byte 4 of the parameter's value; the dissector takes it from \
                 byte 6, here where the next parameter begins",
        probe: "01 02 00 14 0c 00 06 00 f1 00 02 2a 2b 0b 00 04 00 00 00 01",
        place: 0,
        shown: (
            "Vendor Specific",
            9,
            "00f100022a2b",
            &[
                ("rsip.parameter.vendor_specific.vendor_id", "241"),
                ("rsip.parameter.vendor_specific.subtype", "2"),
                (VENDOR_VALUE, "2 bytes at 13"),
            ],
        ),
        malformed: false,
    },
];

impl Foreign {
    /// What the dissector shows of the parameter, its first lines (type, length, value) and all texts left out.
    #[must_use]
    pub fn is_shown_by(&self, parameter: &Parameter) -> bool {
        let (label, size, value, inside) = self.shown;
        let has_value = parameter.fields.iter().any(|it| it.name == VALUE && it.value == value);
        let fields: Vec<(&str, &str)> =
            parameter.fields.iter().skip(3).map(|Shown { name, value, .. }| (&**name, &**value)).collect();
        parameter.label == label && parameter.size == size && has_value && fields == inside
    }
}
