"""SLPv2 messages (RFC 2608 sections 4.3, 8 and 10), from bytes and to bytes.

Written for the lab alone, from the RFC: it shares no code with the programs under test. Reading is strict: whatever
breaks a rule of the RFC is a complaint, also where the RFC lets a receiver pass over it.
"""

import re
import struct

SRV_RQST, SRV_RPLY, SRV_REG, SRV_DEREG, SRV_ACK = 1, 2, 3, 4, 5
ATTR_RQST, ATTR_RPLY, DA_ADVERT, SRV_TYPE_RQST, SRV_TYPE_RPLY, SA_ADVERT = 6, 7, 8, 9, 10, 11

NAMES = {
    SRV_RQST: "SrvRqst",
    SRV_RPLY: "SrvRply",
    SRV_REG: "SrvReg",
    SRV_DEREG: "SrvDeReg",
    SRV_ACK: "SrvAck",
    ATTR_RQST: "AttrRqst",
    ATTR_RPLY: "AttrRply",
    DA_ADVERT: "DAAdvert",
    SRV_TYPE_RQST: "SrvTypeRqst",
    SRV_TYPE_RPLY: "SrvTypeRply",
    SA_ADVERT: "SAAdvert",
}
REQUESTS = {SRV_RQST, SRV_REG, SRV_DEREG, ATTR_RQST, SRV_TYPE_RQST}

OVERFLOW, FRESH, MULTICAST = 0x8000, 0x4000, 0x2000

(
    LANGUAGE_NOT_SUPPORTED,
    PARSE_ERROR,
    INVALID_REGISTRATION,
    SCOPE_NOT_SUPPORTED,
    AUTHENTICATION_UNKNOWN,
) = range(1, 6)
AUTHENTICATION_FAILED = 7
VER_NOT_SUPPORTED, INTERNAL_ERROR, DA_BUSY_NOW, OPTION_NOT_UNDERSTOOD = 9, 10, 11, 12
INVALID_UPDATE, MSG_NOT_SUPPORTED, REFRESH_REJECTED = 13, 14, 15

# Section 8: 1*8ALPHA *("-" 1*8ALPHA).
LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z]{1,8})*\Z")


class Malformed(Exception):
    """A message that cannot be read. `code` is what a unicast request of this kind is answered with."""

    def __init__(self, text, code=PARSE_ERROR, header=None):
        super().__init__(text)
        self.code = code
        self.header = header


class Reader:
    """Fields of a body, in their order."""

    def __init__(self, data, complaints):
        self.data = data
        self.at = 0
        self.complaints = complaints

    def take(self, count, what):
        if self.at + count > len(self.data):
            raise Malformed(f"{what} ends after the message")
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def number(self, size, what):
        return int.from_bytes(self.take(size, what), "big")

    def text(self, what):
        raw = self.take(self.number(2, f"length of {what}"), what)
        if b"\0" in raw:
            self.complaints.append(f"{what} has a NUL in it")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"{what} is no UTF-8: {error}") from error

    def auths(self, what):
        """Authentication blocks, passed over: nobody here can sign."""
        count = self.number(1, f"# of {what} auths")
        for _ in range(count):
            head = self.take(4, "authentication block")
            (length,) = struct.unpack(">H", head[2:])
            if length < 10:
                raise Malformed("an authentication block is shorter than its head")
            self.take(length - 4, "authentication block")
        return count

    def url_entry(self):
        reserved = self.number(1, "reserved byte of the URL entry")
        if reserved != 0:
            self.complaints.append(f"reserved byte of the URL entry is {reserved}")
        lifetime = self.number(2, "lifetime")
        url = self.text("URL")
        return {"url": url, "lifetime": lifetime, "auths": self.auths("URL")}


BODIES = {
    SRV_RQST: lambda r: {
        "previous": r.text("PRList"),
        "type": r.text("service type"),
        "scopes": r.text("scope list"),
        "predicate": r.text("predicate"),
        "spi": r.text("SLP SPI"),
    },
    SRV_REG: lambda r: {
        **r.url_entry(),
        "type": r.text("service type"),
        "scopes": r.text("scope list"),
        "attributes": r.text("attribute list"),
        "attribute_auths": r.auths("attribute"),
    },
    SRV_DEREG: lambda r: {"scopes": r.text("scope list"), **r.url_entry(), "tags": r.text("tag list")},
    ATTR_RQST: lambda r: {
        "previous": r.text("PRList"),
        "url": r.text("URL"),
        "scopes": r.text("scope list"),
        "tags": r.text("tag list"),
        "spi": r.text("SLP SPI"),
    },
    SRV_ACK: lambda r: {},
    ATTR_RPLY: lambda r: {"attributes": r.text("attribute list"), "attribute_auths": r.auths("attribute")},
    DA_ADVERT: lambda r: {
        "boot": r.number(4, "boot timestamp"),
        "url": r.text("URL"),
        "scopes": r.text("scope list"),
        "attributes": r.text("attribute list"),
        "spis": r.text("SLP SPI list"),
        "auths": r.auths("DAAdvert"),
    },
    SRV_TYPE_RPLY: lambda r: {"types": r.text("service type list")},
    SA_ADVERT: lambda r: {
        "url": r.text("URL"),
        "scopes": r.text("scope list"),
        "attributes": r.text("attribute list"),
        "auths": r.auths("SAAdvert"),
    },
}


def service_types(reader):
    """SrvTypeRqst: a length of 0xffff stands for every naming authority, and no string follows."""
    previous = reader.text("PRList")
    authority = None
    if reader.data[reader.at : reader.at + 2] == b"\xff\xff":
        reader.take(2, "naming authority")
    else:
        authority = reader.text("naming authority")
    return {"previous": previous, "authority": authority, "scopes": reader.text("scope list")}


BODIES[SRV_TYPE_RQST] = service_types


def service_reply(reader):
    return {"urls": [reader.url_entry() for _ in range(reader.number(2, "URL entry count"))]}


BODIES[SRV_RPLY] = service_reply
WITH_ERROR = {SRV_RPLY, SRV_ACK, ATTR_RPLY, DA_ADVERT, SRV_TYPE_RPLY}


def decode_header(data, complaints):
    """The header alone; also what a request needs so that it can be refused."""
    if len(data) < 14:
        raise Malformed(f"{len(data)} bytes are no SLP header")
    version, function = data[0], data[1]
    length = int.from_bytes(data[2:5], "big")
    (flags,) = struct.unpack(">H", data[5:7])
    extension = int.from_bytes(data[7:10], "big")
    xid, language_length = struct.unpack(">HH", data[10:14])
    header = {"function": function, "xid": xid, "flags": flags, "language": "en", "version": version}
    if version != 2:
        raise Malformed(f"version {version}", VER_NOT_SUPPORTED, header)
    if length != len(data):
        raise Malformed(f"length says {length}, the message has {len(data)} bytes", PARSE_ERROR, header)
    language = data[14 : 14 + language_length]
    if len(language) != language_length:
        raise Malformed("the language tag ends after the message", PARSE_ERROR, header)
    header["language"] = language.decode("ascii", "replace")
    if not LANGUAGE.match(header["language"]):
        complaints.append(f"language tag {header['language']!r}")
    if flags & 0x1FFF:
        complaints.append(f"reserved flags {flags & 0x1fff:#06x}")
    header["extension"] = extension
    header["body"] = 14 + language_length
    return header


def decode(data):
    """A message as a dictionary, and what is wrong with it. `Malformed` where it cannot be read at all."""
    complaints = []
    header = decode_header(data, complaints)
    function = header["function"]
    if function not in BODIES:
        raise Malformed(f"function {function}", PARSE_ERROR, header)
    end = len(data)
    if header["extension"]:
        end = header["extension"]
        try:
            extensions(data, header)
        except Malformed as error:
            error.header = header
            raise
    reader = Reader(data[header["body"] : end], complaints)
    message = {
        "function": NAMES[function],
        "xid": header["xid"],
        "language": header["language"],
        "overflow": bool(header["flags"] & OVERFLOW),
        "fresh": bool(header["flags"] & FRESH),
        "multicast": bool(header["flags"] & MULTICAST),
    }
    try:
        if function in WITH_ERROR:
            message["error"] = reader.number(2, "error code")
            # Section 7: the rest of an error may be missing.
            if message["error"] and reader.at == len(reader.data):
                return message, complaints
        message.update(BODIES[function](reader))
    except Malformed as error:
        # A truncated reply is what OVERFLOW announces.
        if not message["overflow"]:
            error.header = header
            raise
        message["truncated"] = True
    if reader.at < len(reader.data) and not message["overflow"]:
        complaints.append(f"{len(reader.data) - reader.at} bytes after the end of the message")
    if message["fresh"] and function != SRV_REG:
        complaints.append("FRESH on a message that registers nothing")
    if message["multicast"] and function not in (SRV_RQST, ATTR_RQST, SRV_TYPE_RQST):
        complaints.append("REQUEST MCAST on a message that is no request to many")
    if message["overflow"] and function in REQUESTS:
        complaints.append("OVERFLOW on a request")
    if message["xid"] == 0 and function != DA_ADVERT:
        complaints.append("XID 0 is for unsolicited DAAdverts")
    return message, complaints


def extensions(data, header):
    """Section 9.1: one that must be understood is refused, others are passed over."""
    at, seen = header["extension"], 0
    while at:
        if at < header["body"] or at + 5 > len(data) or at <= seen:
            raise Malformed(f"an extension at {at} of {len(data)} bytes")
        seen = at
        kind = int.from_bytes(data[at : at + 2], "big")
        if 0x4000 <= kind <= 0x7FFF:
            raise Malformed(f"extension {kind:#06x}", OPTION_NOT_UNDERSTOOD, header)
        at = int.from_bytes(data[at + 2 : at + 5], "big")


def text(value):
    raw = value.encode("utf-8")
    return struct.pack(">H", len(raw)) + raw


def url_entry(url, lifetime):
    return b"\0" + struct.pack(">H", lifetime) + text(url) + b"\0"


def encode(function, xid, body, flags=0, language="en"):
    head = 14 + len(language)
    return (
        bytes([2, function])
        + (head + len(body)).to_bytes(3, "big")
        + struct.pack(">H", flags)
        + b"\0\0\0"
        + struct.pack(">H", xid)
        + text(language)
        + body
    )


def request(service_type, scopes, predicate="", previous="", xid=1, flags=0, language="en"):
    body = text(previous) + text(service_type) + text(scopes) + text(predicate) + text("")
    return encode(SRV_RQST, xid, body, flags, language)


def attribute_request(url, scopes, tags="", previous="", xid=1, flags=0, language="en"):
    body = text(previous) + text(url) + text(scopes) + text(tags) + text("")
    return encode(ATTR_RQST, xid, body, flags, language)
