#!/usr/bin/python3
"""A stand-in for SLP programs that are not there: a directory agent, an SLP daemon, a user agent.

  stand_in.py da   --address 10.77.0.9 --journal FILE --control SOCKET     a directory agent
  stand_in.py slpd --address 10.77.0.1 --journal FILE --control SOCKET     an SLP daemon: programs register at 127.0.0.1
  stand_in.py ask  --to 10.77.0.1 --type service:rsip                      asks, and prints what answers

Whatever arrives is written to the journal, a JSON object a line, with what RFC 2608 has against it ("complaints").
"""

import argparse
import json
import os
import selectors
import socket
import struct
import sys
import time

import strings
import wire
from agent import DA, SLPD, Agent

PORT = 427
GROUP = "239.255.255.253"
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)


def datagrams(address):
    """Every SLP datagram of this machine, with the address that it was sent to."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    # What we say to the group is heard by the programs of this machine too.
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    member = socket.inet_aton(GROUP) + socket.inet_aton(address)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sock.bind(("0.0.0.0", PORT))
    return sock


def connections():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", PORT))
    sock.listen(16)
    return sock


class Server:
    """The sockets around an [`Agent`]."""

    def __init__(self, options):
        addresses = [options.address] + (["127.0.0.1"] if options.role == SLPD else [])
        scopes = strings.scopes(options.scopes)
        self.agent = Agent(options.role, addresses, scopes, options.boot or int(time.time()))
        self.agent.min_refresh = options.min_refresh
        self.journal = open(options.journal, "a", encoding="utf-8")
        self.selector = selectors.DefaultSelector()
        self.udp = datagrams(options.address)
        self.on(self.udp, self.datagram)
        listener = connections()
        self.on(listener, lambda: self.on_accept(listener))
        if os.path.exists(options.control):
            os.unlink(options.control)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(options.control)
        control.listen(4)
        self.on(control, lambda: self.controlled(control))
        self.quiet = options.quiet

    def on(self, sock, work):
        self.selector.register(sock, selectors.EVENT_READ, work)

    def run(self):
        if self.agent.role == DA and not self.quiet:
            self.multicast(self.agent.advert())
        print("stand-in: serving", flush=True)
        while True:
            for key, _ in self.selector.select():
                key.data()

    def note(self, via, source, record):
        entry = {"t": round(time.monotonic(), 3), "via": via, "from": f"{source[0]}:{source[1]}", **record}
        self.journal.write(json.dumps(entry) + "\n")
        self.journal.flush()

    def datagram(self):
        data, ancillary, _, source = self.udp.recvmsg(65535, 64)
        destination = None
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                destination = socket.inet_ntoa(struct.unpack("=I4s4s", value)[2])
        via = {GROUP: "multicast", "255.255.255.255": "broadcast"}.get(destination, "udp")
        if via == "multicast" and source == (self.agent.addresses[0], PORT):
            return
        answer, record = self.agent.handle(data, source[0], via, time.monotonic())
        if answer is not None:
            answer = self.agent.fit(answer, via, record)
        self.note(via, source, record)
        if answer is not None:
            # From the address that was asked, as who asks expects.
            near = destination if via == "udp" else self.agent.addresses[0]
            info = struct.pack("=I4s4s", 0, socket.inet_aton(near), b"\0" * 4)
            self.udp.sendmsg([answer], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, source)

    def on_accept(self, listener):
        connection, source = listener.accept()
        held = bytearray()
        self.on(connection, lambda: self.stream(connection, source, held))

    def stream(self, connection, source, held):
        try:
            data = connection.recv(65535)
        except OSError:
            data = b""
        held += data
        while len(held) >= 5 and len(held) >= int.from_bytes(held[2:5], "big") >= 5:
            length = int.from_bytes(held[2:5], "big")
            message, held[:length] = bytes(held[:length]), b""
            answer, record = self.agent.handle(message, source[0], "tcp", time.monotonic())
            if answer is not None:
                answer = self.agent.fit(answer, "tcp", record)
            self.note("tcp", source, record)
            if answer is not None:
                connection.sendall(answer)
        if not data:
            if held:
                self.note("tcp", source, {"complaints": ["the stream ends inside a message"], "malformed": held.hex()})
            self.selector.unregister(connection)
            connection.close()

    def multicast(self, data):
        self.udp.sendto(data, (GROUP, PORT))

    def controlled(self, control):
        """One order of a test: a JSON object, answered with one."""
        connection, _ = control.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            order = json.loads(stream.readline())
            stream.write(json.dumps(self.obey(order)) + "\n")

    def obey(self, order):
        do, now = order.pop("do"), time.monotonic()
        if do == "set":
            for name, value in order.items():
                if name not in ("busy", "mute", "mtu", "min_refresh"):
                    raise ValueError(name)
                setattr(self.agent, name, value)
        elif do == "advertise":
            self.multicast(self.agent.advert())
        elif do == "goodbye":
            self.multicast(self.agent.advert(boot=0))
        elif do == "restart":
            # Section 12.1: a greater boot timestamp, since what was registered is gone.
            self.agent.registry.entries.clear()
            self.agent.boot = max(self.agent.boot + 1, int(time.time()))
            self.multicast(self.agent.advert())
        elif do == "register":
            complaints = []
            message = {"language": "en", "fresh": True, "auths": 0, "attribute_auths": 0, **order}
            self.agent.registry.register(message, self.agent.scopes, now, 0, complaints)
            return {"complaints": complaints}
        elif do == "registrations":
            self.agent.registry.expire(now)
            return {"registrations": [entry.show(now) for entry in self.agent.registry.entries.values()]}
        else:
            raise ValueError(do)
        return {}


def ask(options):
    """A user agent that asks once and prints every answer, judged as strictly as a request."""
    if options.hex is not None:
        message = bytes.fromhex(options.hex)
    else:
        many = options.to in (GROUP, "255.255.255.255")
        flags = wire.MULTICAST if many else 0
        build = wire.attribute_request if options.attributes else wire.request
        more = options.tags if options.attributes else options.predicate
        message = build(
            options.type, options.scopes, more, options.previous, options.xid, flags, options.language
        )
    print(json.dumps({"sent": message.hex()}), flush=True)
    if options.tcp:
        replies = ask_by_tcp(options, message)
    else:
        replies = ask_by_udp(options, message)
    for source, data in replies:
        try:
            reply, complaints = wire.decode(data)
        except wire.Malformed as error:
            reply, complaints = {"malformed": data.hex()}, [str(error)]
        if reply.get("xid") not in (None, options.xid):
            complaints.append(f"XID {reply['xid']} for {options.xid}")
        if reply.get("language") not in (None, options.language):
            complaints.append(f"language {reply['language']} for {options.language}")
        if not options.tcp and len(data) > 1400:
            complaints.append(f"{len(data)} bytes in a datagram")
        for name in ("attributes", "scopes"):
            try:
                getattr(strings, name)(reply.get(name, ""))
            except ValueError as error:
                complaints.append(str(error))
        for url in reply.get("urls", []):
            try:
                strings.service_url(url["url"])
            except ValueError as error:
                complaints.append(str(error))
        print(json.dumps({"from": source, **reply, "complaints": complaints}), flush=True)


def ask_by_udp(options, message):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if options.address:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(options.address))
        sock.bind((options.address, 0))
    for _ in range(options.repeat):
        sock.sendto(message, (options.to, PORT))
    end = time.monotonic() + options.wait
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data, source = sock.recvfrom(65535)
        except TimeoutError:
            return
        except ConnectionRefusedError:
            continue
        yield f"{source[0]}:{source[1]}", data


def ask_by_tcp(options, message):
    with socket.create_connection((options.to, PORT), options.wait) as sock:
        sock.settimeout(options.wait)
        # In two parts: a stream has no message borders.
        sock.sendall(message[:7])
        time.sleep(0.05)
        sock.sendall(message[7:])
        held = b""
        try:
            while part := sock.recv(65535):
                held += part
                while len(held) >= 5 and len(held) >= (length := int.from_bytes(held[2:5], "big")) >= 5:
                    yield f"{options.to}:{PORT}", held[:length]
                    held = held[length:]
                    if options.repeat == 1:
                        return
        except (TimeoutError, ConnectionResetError):
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="role", required=True)
    for role in (DA, SLPD):
        server = commands.add_parser(role)
        server.add_argument("--address", required=True, help="own address; its interface has the group")
        server.add_argument("--scopes", default="DEFAULT")
        server.add_argument("--boot", type=int, help="boot timestamp [default: now]")
        server.add_argument("--min-refresh", type=int, default=0, help="min-refresh-interval, seconds; 0: none")
        server.add_argument("--quiet", action="store_true", help="a DA that does not tell that it is there")
        server.add_argument("--journal", required=True)
        server.add_argument("--control", required=True)
    user = commands.add_parser("ask")
    user.add_argument("--to", required=True, help=f"an address; {GROUP}: the group")
    user.add_argument("--address", help="own address; for the group: that of the interface")
    user.add_argument("--tcp", action="store_true")
    user.add_argument("--attributes", action="store_true", help="an AttrRqst for the URL or type of --type")
    user.add_argument("--type", default="service:rsip")
    user.add_argument("--scopes", default="DEFAULT")
    user.add_argument("--predicate", default="")
    user.add_argument("--tags", default="")
    user.add_argument("--previous", default="")
    user.add_argument("--language", default="en")
    user.add_argument("--xid", type=int, default=4711)
    user.add_argument("--hex", help="these bytes instead")
    user.add_argument("--wait", type=float, default=1.0, help="seconds for answers")
    user.add_argument("--repeat", type=int, default=1, help="send it so often (UDP)")
    options = parser.parse_args()
    if options.role == "ask":
        ask(options)
    else:
        Server(options).run()


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    try:
        main()
    except KeyboardInterrupt:
        pass
