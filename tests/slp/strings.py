"""The string languages of RFC 2608: scope lists, attribute lists, tag lists, predicates (LDAPv3 filters, RFC 2254),
service types and URLs. Strict: `ValueError` says what breaks the grammar.
"""

import re

RESERVED = set("(),\\!<=>~")
SCOPE_RESERVED = RESERVED | set(";*+")
BAD_TAG = set("\r\n\t_*")


def fold(value):
    """As section 6.4 compares strings: case and white space do not count."""
    return re.sub(r"[ \t\r\n]+", " ", value.strip(" \t\r\n")).lower()


def unescape(value, reserved=RESERVED):
    """Restores `\\hh`. Only reserved characters may be escaped, and none may stand bare."""
    result, at = "", 0
    while at < len(value):
        character = value[at]
        if character != "\\":
            if character in reserved or ord(character) < 0x20 or ord(character) == 0x7F:
                raise ValueError(f"bare {character!r} in {value!r}")
            result, at = result + character, at + 1
            continue
        digits = value[at + 1 : at + 3]
        if not re.fullmatch(r"[0-9A-Fa-f]{2}", digits):
            raise ValueError(f"bad escape in {value!r}")
        restored = chr(int(digits, 16))
        if restored not in reserved and ord(restored) >= 0x20 and ord(restored) != 0x7F:
            raise ValueError(f"{restored!r} is escaped and not reserved in {value!r}")
        result, at = result + restored, at + 3
    return result


def scopes(value):
    """A scope list as folded names, in their order."""
    names = [unescape(part, SCOPE_RESERVED) for part in value.split(",")] if value else []
    if any(not name.strip() for name in names):
        raise ValueError(f"empty scope in {value!r}")
    return [fold(name) for name in names]


def addresses(value):
    """A previous responder list, and what in it is no dotted decimal address (receivers pass over that)."""
    parts = [part.strip() for part in value.split(",")] if value else []
    good = [p for p in parts if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", p) and max(map(int, p.split("."))) < 256]
    return good, [part for part in parts if part not in good]


def typed(raw):
    """A value with its implicit type (section 5)."""
    if raw.lower().startswith("\\ff"):
        if not re.fullmatch(r"(\\[0-9A-Fa-f]{2})+", raw):
            raise ValueError(f"bad opaque value {raw!r}")
        return "opaque", raw.lower()
    value = unescape(raw)
    if not value:
        raise ValueError("empty attribute value")
    if re.fullmatch(r"-?[0-9]+", value) and -(2**31) <= int(value) < 2**31:
        return "integer", int(value)
    if value.lower() in ("true", "false"):
        return "boolean", value.lower()
    return "string", fold(value)


def tag(raw):
    name = unescape(raw)
    if not name or any(character in BAD_TAG for character in name):
        raise ValueError(f"attribute tag {raw!r}")
    return name


class Attribute:
    """A tag as it was written, its values as they were written, and those as they are compared."""

    def __init__(self, name, raw):
        self.name = name
        self.raw = raw
        self.values = [typed(value) for value in raw]
        kinds = {kind for kind, _ in self.values}
        if len(kinds) > 1:
            raise Inconsistent(f"values of {name} are of several types: {sorted(kinds)}")
        if "boolean" in kinds and len(raw) > 1:
            raise Inconsistent(f"{name} is a boolean with {len(raw)} values")

    def text(self):
        return f"({self.name}={','.join(self.raw)})" if self.raw else self.name


class Inconsistent(ValueError):
    """Values of one attribute that do not go together: INVALID_REGISTRATION."""


def attributes(value):
    """An attribute list: folded tag to [`Attribute`], in its order."""
    found, rest = {}, value
    while rest:
        if rest.startswith("("):
            end = rest.find(")")
            name, equals, values = rest[1:end].partition("=")
            if end < 0 or not equals:
                raise ValueError(f"attribute {rest!r}")
            one, rest = Attribute(tag(name), values.split(",")), rest[end + 1 :]
        else:
            name, comma, rest = rest.partition(",")
            one, rest = Attribute(tag(name), []), comma + rest
        if fold(one.name) in found:
            raise ValueError(f"attribute {one.name} twice")
        found[fold(one.name)] = one
        if rest and (not rest.startswith(",") or rest == ","):
            raise ValueError(f"attribute list goes on with {rest!r}")
        rest = rest[1:]
    return found


def tags(value):
    """A tag list (section 9.4) as a predicate on tags; an empty one takes all."""
    if not value:
        return lambda name: True
    patterns = []
    for part in value.split(","):
        pieces = [re.escape(fold(unescape(piece))) for piece in part.split("*")]
        if not part:
            raise ValueError(f"empty tag in {value!r}")
        patterns.append(re.compile(".*".join(pieces) + r"\Z"))
    return lambda name: any(pattern.match(fold(name)) for pattern in patterns)


class Filter:
    """An LDAPv3 filter: `matches` takes what `attributes` gives."""

    def __init__(self, text):
        self.text, self.at = text, 0
        self.matches = self.item()
        if self.at != len(text):
            raise ValueError(f"predicate {text!r} goes on after its end")

    def expect(self, character):
        if self.text[self.at : self.at + 1] != character:
            raise ValueError(f"predicate {self.text!r}: no {character!r} at {self.at}")
        self.at += 1

    def item(self):
        self.expect("(")
        kind = self.text[self.at : self.at + 1]
        if kind in ("&", "|"):
            self.at += 1
            parts = []
            while self.text[self.at : self.at + 1] == "(":
                parts.append(self.item())
            if not parts:
                raise ValueError(f"predicate {self.text!r}: nothing after {kind}")
            every = all if kind == "&" else any
            result = lambda found: every(part(found) for part in parts)
        elif kind == "!":
            self.at += 1
            part = self.item()
            result = lambda found: not part(found)
        else:
            result = self.comparison()
        self.expect(")")
        return result

    def comparison(self):
        end = self.text.find(")", self.at)
        shape = re.fullmatch(r"([^=<>~()]+)(=|~=|>=|<=)([^()]*)", self.text[self.at : end if end >= 0 else None])
        if not shape:
            raise ValueError(f"predicate {self.text!r}: no comparison at {self.at}")
        self.at = end
        name, operator, value = fold(tag(shape[1])), shape[2], shape[3]
        if value == "*" and operator == "=":
            return lambda found: name in found
        if "*" in value:
            if operator != "=":
                raise ValueError(f"predicate {self.text!r}: a wild card takes =")
            pieces = [re.escape(fold(unescape(piece))) for piece in value.split("*")]
            pattern = re.compile(".*".join(pieces) + r"\Z")
            return lambda found: any(
                kind == "string" and pattern.match(held) for kind, held in values_of(found, name)
            )
        wanted_kind, wanted = typed(value)
        compare = {
            "=": lambda held: held == wanted,
            "~=": lambda held: held == wanted,
            ">=": lambda held: held >= wanted,
            "<=": lambda held: held <= wanted,
        }[operator]
        if operator in (">=", "<=") and wanted_kind in ("boolean", "opaque"):
            raise ValueError(f"predicate {self.text!r}: {wanted_kind} has no order")
        return lambda found: any(
            kind == wanted_kind and compare(held) for kind, held in values_of(found, name)
        )


def values_of(found, name):
    return found[name].values if name in found else []


def predicate(value):
    """What a predicate says of an attribute list; an empty one takes all."""
    return Filter(value).matches if value else lambda found: True


SERVICE = re.compile(r"service:[A-Za-z0-9+\-]+(\.[A-Za-z0-9+\-]+)?(:[A-Za-z0-9+\-]+)?\Z")
SERVICE_URL = re.compile(r"(service:[A-Za-z0-9+.\-]+(?::[A-Za-z0-9+\-]+)?)://([A-Za-z0-9.\-]+)(?::(\d{1,5}))?(/.*)?\Z")


def service_type(value):
    if not SERVICE.match(value):
        raise ValueError(f"service type {value!r}")
    return fold(value)


def service_url(value):
    """Service type, host and port (None: not said) of a service: URL."""
    shape = SERVICE_URL.match(value)
    if not shape:
        raise ValueError(f"URL {value!r}")
    port = int(shape[3]) if shape[3] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"port {port} in {value!r}")
    return fold(shape[1]), shape[2], port


# RFC 3105 section 7.
RSIP = {
    "ipsec-support": ("boolean", None, False),
    "ike-support": ("boolean", None, False),
    "tunnel-type": ("string", {"ip-ip", "l2tp", "gre", "none"}, True),
    "transport": ("string", {"tcp", "udp"}, True),
    "load": ("integer", set(range(101)), False),
}


def template(found):
    """What in a registration of service:rsip breaks its template."""
    complaints = []
    for name, one in found.items():
        if name not in RSIP:
            if not name.startswith("x-"):
                complaints.append(f"attribute {one.name} is not in the template of service:rsip")
            continue
        kind, allowed, many = RSIP[name]
        if not one.values:
            complaints.append(f"attribute {one.name} has no value")
        if len(one.values) > 1 and not many:
            complaints.append(f"attribute {one.name} has {len(one.values)} values")
        for held_kind, held in one.values:
            if held_kind != kind or allowed is not None and held not in allowed:
                complaints.append(f"attribute {one.name} has the value {held!r}")
    return complaints
