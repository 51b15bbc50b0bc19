"""What services have registered (RFC 2608 sections 8.3, 9.3 and 10.6)."""

import strings
import wire


class Refused(Exception):
    """A registration that gets an error in its SrvAck."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


class Entry:
    """A service as registered in one language."""

    def __init__(self, message, found, now):
        self.url = message["url"]
        self.type = strings.service_type(message["type"])
        self.language = primary(message["language"])
        self.scopes = strings.scopes(message["scopes"])
        self.scope_text = message["scopes"]
        self.found = found
        self.lifetime = message["lifetime"]
        self.expires = now + self.lifetime
        self.changed = now

    def attribute_text(self, wanted=lambda name: True):
        return ",".join(one.text() for one in self.found.values() if wanted(one.name))

    def left(self, now):
        return max(1, int(self.expires - now))

    def show(self, now):
        return {
            "url": self.url,
            "type": self.type,
            "language": self.language,
            "scopes": self.scope_text,
            "attributes": {
                name: [value for _, value in one.values] or None for name, one in self.found.items()
            },
            "lifetime": self.lifetime,
            "left": self.left(now),
        }


def primary(language):
    """Section 8.1: the dialect does not count."""
    return language.lower().split("-")[0]


class Registry:
    """Entries by URL (whose case counts) and language."""

    def __init__(self):
        self.entries = {}

    def expire(self, now):
        self.entries = {key: entry for key, entry in self.entries.items() if entry.expires > now}

    def register(self, message, supported, now, min_refresh, complaints):
        """Takes a SrvReg, or raises [`Refused`]. What is accepted though it is not as it should be is a complaint."""
        self.expire(now)
        try:
            kind, _, _ = strings.service_url(message["url"])
            service_type = strings.service_type(message["type"])
            scopes = strings.scopes(message["scopes"])
            found = strings.attributes(message["attributes"])
        except strings.Inconsistent as error:
            raise Refused(wire.INVALID_REGISTRATION, str(error)) from error
        except ValueError as error:
            raise Refused(wire.PARSE_ERROR, str(error)) from error
        if message["lifetime"] == 0 or not message["language"]:
            raise Refused(wire.INVALID_REGISTRATION, "no lifetime, or no language")
        if message["auths"] or message["attribute_auths"]:
            raise Refused(wire.AUTHENTICATION_UNKNOWN, "authentication blocks, and no key to check them")
        if not scopes or not set(scopes) <= set(supported):
            raise Refused(wire.SCOPE_NOT_SUPPORTED, f"scopes {scopes} of {supported}")
        if kind != service_type and not kind.startswith(service_type + ":"):
            complaints.append(f"type {service_type} for the URL {message['url']}")
        if service_type == "service:rsip":
            complaints += strings.template(found)
            if "/" in message["url"].partition("://")[2]:
                complaints.append("a URL with a path, which service:rsip has not")
        key = (message["url"], primary(message["language"]))
        held = self.entries.get(key)
        if held and now - held.changed < max(1, min_refresh):
            if min_refresh and not message["fresh"]:
                raise Refused(wire.REFRESH_REJECTED, f"{now - held.changed:.1f} s after the last one")
            complaints.append(f"registered again after {now - held.changed:.1f} s")
        if message["fresh"]:
            self.entries[key] = Entry(message, found, now)
            return
        if not held:
            raise Refused(wire.INVALID_UPDATE, "an update of what is not registered")
        if held.type != service_type:
            raise Refused(wire.INVALID_UPDATE, f"an update as {service_type} of a {held.type}")
        if sorted(held.scopes) != sorted(scopes):
            raise Refused(wire.SCOPE_NOT_SUPPORTED, f"an update in {scopes} of what is in {held.scopes}")
        updated = Entry(message, {**held.found, **found}, now)
        self.entries[key] = updated

    def deregister(self, message, now, min_refresh):
        """Takes a SrvDeReg, or raises [`Refused`]. Gives how many entries it was about."""
        self.expire(now)
        try:
            scopes = strings.scopes(message["scopes"])
            chosen = strings.tags(message["tags"])
        except ValueError as error:
            raise Refused(wire.PARSE_ERROR, str(error)) from error
        keys = [key for key in self.entries if key[0] == message["url"]]
        for key in keys:
            if sorted(self.entries[key].scopes) != sorted(scopes):
                raise Refused(wire.SCOPE_NOT_SUPPORTED, f"{scopes}, registered in {self.entries[key].scopes}")
        for key in keys:
            entry = self.entries[key]
            if not message["tags"]:
                del self.entries[key]
                continue
            if min_refresh and now - entry.changed < min_refresh:
                raise Refused(wire.REFRESH_REJECTED, f"{now - entry.changed:.1f} s after the last one")
            entry.found = {name: one for name, one in entry.found.items() if not chosen(one.name)}
            entry.changed = now
        return len(keys)

    def find(self, service_type, scopes, predicate, language, now):
        """Entries that match a SrvRqst; also whether there would be some in another language."""
        self.expire(now)
        wanted = strings.service_type(service_type)
        of_type = [
            entry
            for entry in self.entries.values()
            if (entry.type == wanted or entry.type.startswith(wanted + ":")) and set(entry.scopes) & set(scopes)
        ]
        if not predicate:
            return of_type, False
        matches = strings.predicate(predicate)
        spoken = [entry for entry in of_type if entry.language == primary(language)]
        return [entry for entry in spoken if matches(entry.found)], bool(of_type) and not spoken

    def attributes(self, url, scopes, tags, language, now):
        """The attributes of one URL, or of a whole service type: as text; also whether there are some in another language."""
        self.expire(now)
        chosen = strings.tags(tags)
        if "://" in url:
            found = [entry for entry in self.entries.values() if entry.url == url and set(entry.scopes) & set(scopes)]
        else:
            found, _ = self.find(url, scopes, "", language, now)
        spoken = [entry for entry in found if entry.language == primary(language)]
        if len(spoken) == 1:
            return spoken[0].attribute_text(chosen), False
        merged = {}
        for entry in spoken:
            for name, one in entry.found.items():
                if chosen(one.name):
                    held = merged.setdefault(name, (one.name, {}))
                    for raw, value in zip(one.raw, one.values):
                        held[1].setdefault(value, raw)
        text = ",".join(f"({n}={','.join(v.values())})" if v else n for n, v in merged.values())
        return text, bool(found) and not spoken
