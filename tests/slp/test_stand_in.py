"""The stand-in itself: it must know right from wrong. Run by the lab's own tests."""

import unittest

import strings
import wire
from agent import DA, SLPD, Agent

REG = bytes.fromhex(
    "020300 00ab 4000 000000 1236 0002 656e 00012c 001c 736572766963653a727369703a2f2f31302e302e302e313a34353535 00"
    "000c 736572766963653a72736970 0007 44454641554c54 005f 2869707365632d737570706f72743d66616c7365292c"
    "28696b652d737570706f72743d66616c7365292c2874756e6e656c2d747970653d49502d49502c475245292c"
    "287472616e73706f72743d5443502c554450292c286c6f61643d313229 00".replace(" ", "")
)
URL = "service:rsip://10.0.0.1:4555"


def answer(agent, data, via="udp", source="10.0.0.2", now=0.0):
    reply, record = agent.handle(data, source, via, now)
    if reply is not None:
        reply = wire.decode(agent.fit(reply, via, record))
    return reply, record


def registered(role=DA):
    agent = Agent(role, ["10.0.0.9"], ["default"], 100)
    (ack, _), record = answer(agent, REG, source="127.0.0.1")
    assert (ack["error"], record["complaints"]) == (0, []), record
    return agent


def changed(at, value, data=REG):
    return data[:at] + value + data[at + len(value) :]


class Messages(unittest.TestCase):
    def test_reads_a_registration(self):
        message, complaints = wire.decode(REG)
        self.assertEqual((message["url"], message["lifetime"], complaints), (URL, 300, []))
        self.assertTrue(message["fresh"])

    def test_complains_about_each_slip(self):
        for data, what in [
            (changed(5, b"\x50"), "reserved flags"),
            (changed(10, b"\0\0"), "XID 0"),
            (changed(14, b"e1"), "language tag"),
            (changed(16, b"\1"), "reserved byte"),
            (changed(5, b"\xc0"), "OVERFLOW"),
            (changed(2, b"\0\0\xac") + b"\0", "after the end"),
        ]:
            _, complaints = wire.decode(data)
            self.assertTrue(any(what in one for one in complaints), (what, complaints))

    def test_refuses_what_it_cannot_read(self):
        for data, code in [
            (REG[:-1], wire.PARSE_ERROR),
            (changed(0, b"\1"), wire.VER_NOT_SUPPORTED),
            (changed(1, b"\x0c"), wire.PARSE_ERROR),
            (changed(19, b"\xff\xff"), wire.PARSE_ERROR),
            (b"", wire.PARSE_ERROR),
        ]:
            with self.assertRaises(wire.Malformed) as caught:
                wire.decode(data)
            self.assertEqual(caught.exception.code, code)


class Strings(unittest.TestCase):
    def test_reads_attributes_and_refuses_bad_ones(self):
        found = strings.attributes("(a=1,2),key,(Name=x \\2c Y)")
        self.assertEqual(found["a"].values, [("integer", 1), ("integer", 2)])
        self.assertEqual((found["key"].values, found["name"].values), ([], [("string", "x , y")]))
        for bad in ["(a=1", "(a=)", "(a)", "a,", "(a=1)(b=2)", "(a=x=y)", "(a=\\41)", "(a_b=1)", "(a=1),(A=2)"]:
            with self.assertRaises(ValueError, msg=bad):
                strings.attributes(bad)
        for bad in ["(a=1,x)", "(a=true,false)"]:
            with self.assertRaises(strings.Inconsistent, msg=bad):
                strings.attributes(bad)

    def test_judges_predicates(self):
        found = strings.attributes("(tunnel-type=IP-IP,GRE),(load=12),(ike-support=false),x-test")
        for text, expected in [
            ("(&(tunnel-type=ip-ip)(load<=50))", True),
            ("(tunnel-type=L2TP)", False),
            ("(!(tunnel-type=L2TP))", True),
            ("(|(load>=13)(tunnel-type=G*))", True),
            ("(load=1*)", False),
            ("(load=true)", False),
            ("(ike-support=FALSE)", True),
            ("(x-test=*)", True),
            ("(transport=*)", False),
        ]:
            self.assertEqual(strings.predicate(text)(found), expected, text)
        for bad in ["(", "()", "(&)", "(a=1", "(a=1))", "a=1", "(a>=1*)", "(a>=true)", "(a=(b))"]:
            with self.assertRaises(ValueError, msg=bad):
                strings.predicate(bad)

    def test_knows_the_template(self):
        bad = strings.attributes("(load=101),(transport=SCTP),(ipsec-support=maybe),(colour=red)")
        self.assertEqual(len(strings.template(bad)), 4)


class Answers(unittest.TestCase):
    def test_finds_what_is_registered_until_it_expires(self):
        agent = registered()
        ask = wire.request("service:rsip", "DEFAULT", "(transport=UDP)", xid=7)
        (reply, complaints), _ = answer(agent, ask, now=299)
        self.assertEqual((reply["xid"], complaints), (7, []))
        self.assertEqual([url["url"] for url in reply["urls"]], [URL])
        (reply, _), _ = answer(agent, ask, now=301)
        self.assertEqual(reply["urls"], [])

    def test_refuses_bad_registrations(self):
        for data, code in [
            (changed(17, b"\0\0"), wire.INVALID_REGISTRATION),
            (REG.replace(b"DEFAULT", b"ANOTHER"), wire.SCOPE_NOT_SUPPORTED),
            (changed(5, b"\0"), wire.INVALID_UPDATE),
            (REG.replace(b"IP-IP,GRE", b"IP-IP,123"), wire.INVALID_REGISTRATION),
            (REG.replace(b"IP-IP,GRE", b"IP-IP,=RE"), wire.PARSE_ERROR),
            (REG[:-1], wire.PARSE_ERROR),
        ]:
            (ack, _), record = answer(Agent(DA, ["10.0.0.9"], ["default"], 100), data)
            self.assertEqual(ack["error"], code, record)

    def test_a_daemon_takes_only_programs_of_its_machine(self):
        (ack, _), _ = answer(Agent(SLPD, ["10.0.0.1"], ["default"], 0), REG, source="10.0.0.2")
        self.assertNotEqual(ack["error"], 0)

    def test_updates_no_faster_than_the_interval_and_keeps_the_rest(self):
        agent = registered()
        agent.min_refresh = 5
        update = REG.replace(b"\x40\0\0\0\0\x12\x36", b"\0\0\0\0\0\x12\x37").replace(b"load=12", b"load=13")
        (ack, _), _ = answer(agent, update, source="127.0.0.1", now=3)
        self.assertEqual(ack["error"], wire.REFRESH_REJECTED)
        (ack, _), _ = answer(agent, update, source="127.0.0.1", now=6)
        self.assertEqual(ack["error"], 0)
        (reply, _), _ = answer(agent, wire.attribute_request(URL, "DEFAULT", "load,t*"), now=7)
        self.assertEqual(reply["attributes"], "(tunnel-type=IP-IP,GRE),(transport=TCP,UDP),(load=13)")

    def test_many_get_silence_where_one_gets_an_error(self):
        agent = registered(SLPD)
        for ask in [
            {"service_type": "service:rsip", "scopes": "OTHER"},
            {"service_type": "service:rsip", "scopes": "DEFAULT", "predicate": "(a"},
            {"service_type": "service:other", "scopes": "DEFAULT"},
            {"service_type": "service:rsip", "scopes": "DEFAULT", "previous": "10.0.0.9"},
        ]:
            reply, _ = answer(agent, wire.request(**ask, flags=wire.MULTICAST), via="multicast")
            self.assertIsNone(reply, ask)
        ask = wire.request("service:rsip", "DEFAULT", flags=wire.MULTICAST)
        (reply, _), record = answer(agent, ask, via="multicast")
        self.assertEqual((len(reply["urls"]), record["complaints"]), (1, []))
        _, record = answer(agent, ask, via="udp")
        self.assertTrue(record["complaints"])

    def test_cuts_what_does_not_fit(self):
        agent = registered()
        agent.mtu = 50
        (reply, _), _ = answer(agent, wire.request("service:rsip", "DEFAULT"))
        self.assertEqual((reply["overflow"], reply["urls"]), (True, []))
        (reply, _), _ = answer(agent, wire.request("service:rsip", "DEFAULT"), via="tcp")
        self.assertEqual((reply["overflow"], len(reply["urls"])), (False, 1))
        (reply, _), _ = answer(agent, wire.attribute_request(URL, "DEFAULT"))
        self.assertTrue(reply["overflow"] and reply["truncated"])

    def test_a_directory_agent_tells_who_asks_for_one(self):
        agent = registered()
        ask = wire.request("service:directory-agent", "", xid=9, flags=wire.MULTICAST)
        (reply, _), _ = answer(agent, ask, via="multicast")
        self.assertEqual((reply["xid"], reply["boot"]), (9, 100))
        self.assertEqual(reply["url"], "service:directory-agent://10.0.0.9")
        ask = wire.request("service:directory-agent", "OTHER", flags=wire.MULTICAST)
        self.assertIsNone(answer(agent, ask, via="multicast")[0])

    def test_takes_back_what_is_deregistered(self):
        agent = registered()
        body = wire.text("DEFAULT") + wire.url_entry(URL, 0) + wire.text("")
        (ack, _), _ = answer(agent, wire.encode(wire.SRV_DEREG, 8, wire.text("OTHER") + body[9:]))
        self.assertEqual(ack["error"], wire.SCOPE_NOT_SUPPORTED)
        (ack, _), record = answer(agent, wire.encode(wire.SRV_DEREG, 8, body))
        self.assertEqual((ack["error"], record["complaints"]), (0, []))
        _, record = answer(agent, wire.encode(wire.SRV_DEREG, 9, body))
        self.assertTrue(record["complaints"])


if __name__ == "__main__":
    unittest.main()
