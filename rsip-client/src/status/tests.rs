use super::*;

fn example() -> Status {
    Status {
        registration: Registration {
            gateway: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4555),
            client_id: Some(77),
            state: "registered".to_owned(),
            lease: Some(3600),
            remaining: Some(3599),
            transport: "tcp".to_owned(),
            tunnels: vec!["IP-IP".to_owned()],
            flow_policy: Some("local macro, remote none".to_owned()),
            method: "RSAP-IP".to_owned(),
            remote: Some("198.51.100.7:443".to_owned()),
            complaints: vec![Counter { name: "313 LOCAL_ADDRPORT_UNALLOWED".to_owned(), value: 2 }],
        },
        leases: vec![
            Lease {
                address: Ipv4Addr::new(203, 0, 113, 9),
                ports: "10000-10254".to_owned(),
                count: 255,
                bind_id: 1,
                lease: 3600,
                remaining: 3599,
                kind: "block".to_owned(),
                state: "in use".to_owned(),
                ports_used: 3,
                sockets: 5,
            },
            Lease {
                address: Ipv4Addr::new(203, 0, 113, 9),
                ports: "80".to_owned(),
                count: 1,
                bind_id: 2,
                lease: 3600,
                remaining: 10,
                kind: "listen".to_owned(),
                state: "releasing".to_owned(),
                ports_used: 1,
                sockets: 2,
            },
        ],
        wanted: vec![Wanted {
            ports: "443".to_owned(),
            kind: "static".to_owned(),
            refused: Some("311 LOCAL_ADDRPORT_INUSE".to_owned()),
            retry_in: Some(9),
        }],
        policy: "ACCEPT".to_owned(),
        policy_hits: 0,
        rules: vec![Rule {
            text: "I6010-6010".to_owned(),
            action: Action::Ignore,
            first: 6010,
            last: 6010,
            protocol: None,
            program: None,
            user: None,
            cgroup: None,
            hits: 3,
        }],
        waiting: Waiting {
            way: "poll".to_owned(),
            why: "asked for".to_owned(),
            deadline_ms: 2500,
            ports: vec![],
            restarts: 0,
            failed: 0,
            held: 3,
            timeouts: 1,
        },
        hooks: Hooks {
            off: None,
            cgroup: "/sys/fs/cgroup".to_owned(),
            cgroups: Vec::new(),
            programs: vec![
                Program { name: "rsip_bind4".to_owned(), id: 5, attached: true },
                Program { name: "rsip_bind6".to_owned(), id: 0, attached: false },
            ],
        },
        tunnel: None,
        direct: vec![
            Network { network: "10.88.0.0/24".to_owned(), from: "gateway".to_owned(), refused: None },
            Network {
                network: "0.0.0.0/0".to_owned(),
                from: "gateway".to_owned(),
                refused: Some("the leased address lies in it".to_owned()),
            },
        ],
        ephemeral: Ephemeral {
            range: "10000-10255".to_owned(),
            reserved: "1-9999,10255-65535".to_owned(),
            choice: "10000-10254".to_owned(),
            confined: true,
            blocks: 1,
            returning: 0,
            leased: 255,
            used: 3,
            need: 2,
            level: "enough".to_owned(),
            most: 65_280,
            refused: None,
        },
        counters: vec![Counter { name: "bind_granted".to_owned(), value: 4 }],
        pid: 1,
        version: "0.1.0".to_owned(),
    }
}

#[test]
fn prints_the_tables() {
    let expected = "\
GATEWAY        CLIENT ID  STATE       LEASE  REMAINING  TRANSPORT  METHOD   TUNNEL  FLOW POLICY
10.0.0.1:4555  77         registered  3600   3599       tcp        RSAP-IP  IP-IP   local macro, remote none

LEASED ADDRESS  PORTS        BIND ID  LEASE TIME  REMAINING  KIND                USED
203.0.113.9     10000-10254  1        3600        3599       block               3/255
203.0.113.9     80           2        3600        10         listen (releasing)  2
wanted: static 443: 311 LOCAL_ADDRPORT_INUSE, again in 9 s

RULES (policy ACCEPT)
I6010-6010  hits 3

waiting    poll up to 2.5 s; asked for
           restarted 0, failed 0, held 3, timed out 1
hooks      1 of 2 attached to /sys/fs/cgroup
           NOT attached: rsip_bind6
tunnel     down
direct     10.88.0.0/24 (gateway)
direct     NOT 0.0.0.0/0 (gateway): the leased address lies in it
peer       198.51.100.7:443, nobody else
complaint  2 times 313 LOCAL_ADDRPORT_UNALLOWED
ephemeral  confined to 10000-10254
           enough: 1 blocks (0 on the way back), 255 ports of 65280 at most, 3 in use, 2 needed
counters   bind_granted=4
";
    assert_eq!(example().to_string(), expected);
}

#[test]
fn data_comes_back_as_it_was() {
    let text = serde_json::to_string(&example()).expect("valid");
    assert_eq!(serde_json::from_str::<Status>(&text).expect("valid"), example());
}
