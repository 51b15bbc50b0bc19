"""A directory agent (RFC 2608 section 12), or the service agent that an SLP daemon is for the programs of its machine.
Messages go in, answers come out: no sockets here.
"""

import strings
import wire
from registry import Refused, Registry

DA, SLPD = "da", "slpd"
DIRECTORY_AGENT, SERVICE_AGENT = "service:directory-agent", "service:service-agent"


class Agent:
    """`addresses`: what of a previous responder list means us; the first one is what we call ourselves."""

    def __init__(self, role, addresses, scopes, boot):
        self.role = role
        self.addresses = addresses
        self.scopes = scopes
        self.boot = boot
        self.registry = Registry()
        # What tests may change.
        self.busy = 0
        self.mute = 0
        self.mtu = 1400
        self.min_refresh = 0

    def handle(self, data, source, via, now):
        """What came from `source` (an address) by "udp", "tcp", "multicast" or "broadcast". Gives the answer (None:
        silence) and the record of all this for the journal."""
        record = {"complaints": []}
        many = via in ("multicast", "broadcast")
        try:
            message, complaints = wire.decode(data)
        except wire.Malformed as error:
            record.update(complaints=[str(error)], malformed=data.hex())
            header = error.header
            if many or header is None or header["flags"] & wire.MULTICAST:
                return None, record
            return self.refusal(header["function"], header["xid"], header["language"], error.code, record), record
        complaints += manners(message, via)
        record.update(message, complaints=complaints)
        if not many and message["function"] in ("SrvRqst", "SrvReg", "SrvDeReg", "AttrRqst"):
            if self.mute:
                self.mute -= 1
                record["answer"] = {"muted": True}
                return None, record
            if self.busy:
                self.busy -= 1
                code = next(c for c, name in wire.NAMES.items() if name == message["function"])
                answer = self.refusal(code, message["xid"], message["language"], wire.DA_BUSY_NOW, record)
                return answer, record
        answers = {
            "SrvRqst": self.services,
            "SrvReg": self.registration,
            "SrvDeReg": self.deregistration,
            "AttrRqst": self.attributes,
            "SrvTypeRqst": self.types,
        }
        if message["function"] not in answers:
            return None, record
        return answers[message["function"]](message, source, many, now, record), record

    # Each of the next ones: a message and where it came from; the answer, or None.

    def services(self, message, source, many, now, record):
        refuse = lambda code: self.error(wire.SRV_RQST, message, many, code, record)
        previous, bad = strings.addresses(message["previous"])
        record["complaints"] += [f"previous responder {one!r}" for one in bad]
        if set(previous) & set(self.addresses):
            return None
        try:
            wanted = strings.service_type(message["type"])
            scopes = strings.scopes(message["scopes"])
            strings.predicate(message["predicate"])
        except ValueError as error:
            record["complaints"].append(str(error))
            return refuse(wire.PARSE_ERROR)
        if message["spi"]:
            return refuse(wire.AUTHENTICATION_UNKNOWN)
        if wanted in (DIRECTORY_AGENT, SERVICE_AGENT):
            if scopes and not set(scopes) & set(self.scopes):
                return refuse(wire.SCOPE_NOT_SUPPORTED)
            return self.advertise_to(message, wanted, many, record)
        if many and self.role == DA:
            # Section 6.1: of what goes to many, a DA answers what looks for DAs.
            return None
        if not set(scopes) & set(self.scopes):
            if not scopes:
                record["complaints"].append("no scope list")
            return refuse(wire.SCOPE_NOT_SUPPORTED)
        found, foreign = self.registry.find(wanted, scopes, message["predicate"], message["language"], now)
        if foreign:
            return refuse(wire.LANGUAGE_NOT_SUPPORTED)
        if many and not found:
            return None
        urls = [(entry.url, entry.left(now)) for entry in found]
        record["answer"] = {"function": "SrvRply", "error": 0, "urls": [url for url, _ in urls]}
        return ("urls", message, urls)

    def advertise_to(self, message, wanted, many, record):
        if wanted == DIRECTORY_AGENT:
            if self.role != DA:
                return None if many else self.error(wire.SRV_RQST, message, many, wire.PARSE_ERROR, record)
            if not strings.predicate(message["predicate"])(strings.attributes(self.attribute_text())):
                return None
            record["answer"] = {"function": "DAAdvert", "error": 0, "boot": self.boot}
            return self.advert(message["xid"], message["language"])
        if self.role != SLPD or not many:
            return None
        attributes = f"(service-type={','.join(sorted({e.type for e in self.registry.entries.values()}))})"
        found = strings.attributes(attributes) if self.registry.entries else {}
        if not strings.predicate(message["predicate"])(found):
            return None
        body = wire.text(f"{SERVICE_AGENT}://{self.addresses[0]}") + wire.text(",".join(self.scopes))
        body += wire.text(attributes if found else "") + b"\0"
        record["answer"] = {"function": "SAAdvert"}
        return wire.encode(wire.SA_ADVERT, message["xid"], body, language=message["language"])

    def registration(self, message, source, many, now, record):
        if many:
            record["complaints"].append("a registration for many")
            return None
        try:
            self.only_local(source)
            self.registry.register(message, self.scopes, now, self.min_refresh, record["complaints"])
            code = 0
        except Refused as refused:
            record["complaints"].append(str(refused))
            code = refused.code
        return self.acknowledge(message, code, record)

    def deregistration(self, message, source, many, now, record):
        if many:
            record["complaints"].append("a deregistration for many")
            return None
        try:
            self.only_local(source)
            if not self.registry.deregister(message, now, self.min_refresh):
                record["complaints"].append("a deregistration of what is not registered")
            code = 0
        except Refused as refused:
            record["complaints"].append(str(refused))
            code = refused.code
        return self.acknowledge(message, code, record)

    def only_local(self, source):
        """An SLP daemon takes services of its own machine, and is no directory for others."""
        if self.role == SLPD and not source.startswith("127."):
            raise Refused(wire.MSG_NOT_SUPPORTED, f"a registration from {source} at a daemon that is no DA")

    def attributes(self, message, source, many, now, record):
        refuse = lambda code: self.error(wire.ATTR_RQST, message, many, code, record)
        previous, bad = strings.addresses(message["previous"])
        record["complaints"] += [f"previous responder {one!r}" for one in bad]
        if set(previous) & set(self.addresses) or many and self.role == DA:
            return None
        try:
            scopes = strings.scopes(message["scopes"])
            if not set(scopes) & set(self.scopes):
                return refuse(wire.SCOPE_NOT_SUPPORTED)
            if message["spi"]:
                return refuse(wire.AUTHENTICATION_UNKNOWN)
            text, foreign = self.registry.attributes(
                message["url"], scopes, message["tags"], message["language"], now
            )
        except ValueError as error:
            record["complaints"].append(str(error))
            return refuse(wire.PARSE_ERROR)
        if foreign:
            return refuse(wire.LANGUAGE_NOT_SUPPORTED)
        if many and not text:
            return None
        record["answer"] = {"function": "AttrRply", "error": 0, "attributes": text}
        body = b"\0\0" + wire.text(text) + b"\0"
        return wire.encode(wire.ATTR_RPLY, message["xid"], body, language=message["language"])

    def types(self, message, source, many, now, record):
        try:
            scopes = strings.scopes(message["scopes"])
        except ValueError as error:
            record["complaints"].append(str(error))
            return self.error(wire.SRV_TYPE_RQST, message, many, wire.PARSE_ERROR, record)
        if not set(scopes) & set(self.scopes):
            return self.error(wire.SRV_TYPE_RQST, message, many, wire.SCOPE_NOT_SUPPORTED, record)
        if many and self.role == DA:
            return None
        self.registry.expire(now)
        found = sorted({e.type for e in self.registry.entries.values() if set(e.scopes) & set(scopes)})
        record["answer"] = {"function": "SrvTypeRply", "error": 0, "types": found}
        body = b"\0\0" + wire.text(",".join(found))
        return wire.encode(wire.SRV_TYPE_RPLY, message["xid"], body, language=message["language"])

    def acknowledge(self, message, code, record):
        record["answer"] = {"function": "SrvAck", "error": code}
        body = code.to_bytes(2, "big")
        return wire.encode(wire.SRV_ACK, message["xid"], body, language=message["language"])

    def error(self, function, message, many, code, record):
        """Section 7: what goes to many gets no error."""
        return None if many else self.refusal(function, message["xid"], message["language"], code, record)

    def refusal(self, function, xid, language, code, record):
        replies = {
            wire.SRV_RQST: wire.SRV_RPLY,
            wire.SRV_REG: wire.SRV_ACK,
            wire.SRV_DEREG: wire.SRV_ACK,
            wire.ATTR_RQST: wire.ATTR_RPLY,
            wire.SRV_TYPE_RQST: wire.SRV_TYPE_RPLY,
        }
        if function not in replies or not wire.LANGUAGE.match(language):
            return None
        reply = replies[function]
        record["answer"] = {"function": wire.NAMES[reply], "error": code}
        rest = {wire.SRV_RPLY: b"\0\0", wire.ATTR_RPLY: b"\0\0\0", wire.SRV_TYPE_RPLY: b"\0\0"}.get(reply, b"")
        return wire.encode(reply, xid, code.to_bytes(2, "big") + rest, language=language)

    def attribute_text(self):
        return f"(min-refresh-interval={self.min_refresh})" if self.min_refresh else ""

    def advert(self, xid=0, language="en", boot=None):
        """A DAAdvert; without arguments the unsolicited one. Boot timestamp 0: it goes down."""
        body = b"\0\0" + (self.boot if boot is None else boot).to_bytes(4, "big")
        body += wire.text(f"{DIRECTORY_AGENT}://{self.addresses[0]}") + wire.text(",".join(self.scopes))
        body += wire.text(self.attribute_text()) + wire.text("") + b"\0"
        return wire.encode(wire.DA_ADVERT, xid, body, language=language)

    def fit(self, answer, via, record):
        """An answer as bytes that fit its way: over UDP in `mtu`, with OVERFLOW where something is missing."""
        limit = 0xFFFFFF if via == "tcp" else self.mtu
        if isinstance(answer, tuple):
            _, message, urls = answer
            whole = reply(message, urls, 0)
            if len(whole) <= limit:
                return whole
            record["answer"]["overflow"] = True
            while urls and len(reply(message, urls, 0)) > limit:
                urls = urls[:-1]
            return reply(message, urls, wire.OVERFLOW)
        if len(answer) <= limit:
            return answer
        record["answer"]["overflow"] = True
        cut = bytearray(answer[:limit])
        cut[2:5] = limit.to_bytes(3, "big")
        cut[5] |= wire.OVERFLOW >> 8
        return bytes(cut)


def reply(message, urls, flags):
    body = b"\0\0" + len(urls).to_bytes(2, "big")
    body += b"".join(wire.url_entry(url, min(left, 0xFFFF)) for url, left in urls)
    return wire.encode(wire.SRV_RPLY, message["xid"], body, flags, message["language"])


def manners(message, via):
    """How a message must travel."""
    complaints = []
    many = via in ("multicast", "broadcast")
    asks = message["function"] in ("SrvRqst", "AttrRqst", "SrvTypeRqst")
    if asks and message["multicast"] != many:
        complaints.append(f"REQUEST MCAST is {message['multicast']} by {via}")
    if asks and not many and message["previous"]:
        complaints.append("a previous responder list in a unicast request")
    if message["function"] == "DAAdvert" and many and message["xid"] != 0:
        complaints.append("an unsolicited DAAdvert with an XID")
    return complaints
