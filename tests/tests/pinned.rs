//! The agent is killed, and what it did to the host outlives it: programs notice nothing, and the next one takes over.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rsip_lab::lab::agent::Agent;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::probe::{self, Probe};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway, pins};

const PATIENCE: Duration = Duration::from_secs(10);

/// A TCP connection between two namespaces, held by the test.
struct Conversation {
    here: BufReader<TcpStream>,
    there: BufReader<TcpStream>,
}

impl Conversation {
    /// Listens at `at` on one side, connects from the other.
    fn begin(listener: &Inside, at: SocketAddrV4, caller: &Inside) -> Self {
        let listening = listener.enter(|| TcpListener::bind(at)).unwrap().unwrap();
        let here = caller.enter(|| TcpStream::connect(at)).unwrap().unwrap();
        let (there, _) = listening.accept().unwrap();
        for stream in [&here, &there] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { here: BufReader::new(here), there: BufReader::new(there) }
    }

    /// A line each way.
    fn go_on(&mut self) {
        let Self { here, there } = self;
        let mut line = String::new();
        here.get_mut().write_all(b"hello\n").unwrap();
        there.read_line(&mut line).unwrap();
        there.get_mut().write_all(b"answer\n").unwrap();
        here.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\nanswer\n");
    }
}

fn bind(system: &System, address: &str) -> (Probe, probe::Bound) {
    probe::bind(&system.lab, system.lab.host(Host::A), &[address]).unwrap()
}

fn attached(system: &System) -> BTreeSet<u32> {
    let programs = agent::status(&system.lab, Host::A).unwrap().hooks.programs;
    assert!(programs.len() > 5 && programs.iter().all(|program| program.attached), "{programs:?}");
    programs.iter().map(|program| program.id).collect()
}

#[test]
fn programs_notice_nothing_of_a_killed_agent_and_of_the_next_one() {
    let mut system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:5900"]).unwrap();
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let peer = SocketAddrV4::new(INTERNET, 9000);
    let inward = SocketAddrV4::new(PUBLIC, 5900);
    let mut talk = Conversation::begin(&system.lab.internet, SocketAddrV4::new(INTERNET, 9001), &host);
    talk.go_on();
    let before = gateway::state(&system.lab).unwrap();
    let first = attached(&system);
    system.agent(Host::A).unwrap().process.kill().unwrap();

    // Nobody is there, and everything that was known goes on.
    for _ in 0..3 {
        talk.go_on();
        let answer = probe::ask(&host, peer, &[]).unwrap();
        assert_eq!(answer.peer.ip(), &PUBLIC);
        assert!(before.block(Host::A).contains(&answer.peer.port()), "{answer:?}");
        probe::ask(&system.lab.internet, inward, &[]).unwrap();
    }
    // What is private stays so.
    for address in ["127.0.0.1:5901", "10.77.0.2:5901", "0.0.0.0:0", "0.0.0.0:22"] {
        let (_, bound) = bind(&system, address);
        bound.expect_ok().unwrap();
        assert!(bound.took() < Duration::from_secs(1), "{address}: {bound:?}");
    }
    let to_gateway = host.tool("ping", &["-n", "-c", "1", "-W", "5", &GATEWAY.to_string()]);
    to_gateway.unwrap();
    // What is not known is refused, and soon without a wait.
    let (_, bound) = bind(&system, "0.0.0.0:5902");
    bound.expect("EADDRINUSE").unwrap();
    wait::until("unknown ports to be refused at once", PATIENCE, || {
        let (_, bound) = bind(&system, "0.0.0.0:5903");
        bound.expect("EADDRINUSE")?;
        let soon = bound.took() < Duration::from_millis(100);
        Ok(if soon { Look::Ready(()) } else { Look::NotYet(format!("{bound:?}")) })
    })
    .unwrap();
    talk.go_on();

    system.start_agent(Host::A).unwrap();
    talk.go_on();
    probe::ask(&system.lab.internet, inward, &[]).unwrap();
    // Who was refused while nobody was there does not wait any more.
    let after = system.gateway_sees_listening(Host::A, &[5900]).unwrap();
    assert_eq!(after.block(Host::A), before.block(Host::A));
    assert!(attached(&system).is_disjoint(&first), "the new agent's programs run");
    let (other, bound) = bind(&system, "0.0.0.0:5902");
    bound.expect_ok().unwrap();
    // The count is the same, over both agents: the port goes when its last socket has gone, and not before.
    drop(other);
    system.gateway_sees_listening(Host::A, &[5900]).unwrap();
    drop(server);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    drop((internet, talk));
    system.finish().unwrap();
}

#[test]
fn who_waits_when_the_agent_is_killed_is_answered_by_the_next_one() {
    let mut system =
        System::up_with(Options { agent: vec!["--bind-timeout".into(), "30".into()], ..Options::default() })
            .unwrap();
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut waiting = Probe::start(&system.lab, system.lab.host(Host::A), &["bind", "0.0.0.0:5910"]).unwrap();
    wait::until("the agent to be asked", PATIENCE, || {
        let waiting = agent::status(&system.lab, Host::A)?.waiting.ports;
        Ok(if waiting == [5910] { Look::Ready(()) } else { Look::NotYet(format!("{waiting:?}")) })
    })
    .unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    system.start_agent(Host::A).unwrap();
    waiting.bound(PATIENCE).unwrap().expect_ok().unwrap();
    drop(waiting);
    system.finish().unwrap();
}

#[test]
fn an_upgrade_with_other_maps_goes_on_with_what_the_kernel_and_the_file_say() {
    let mut system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:5920"]).unwrap();
    let mut talk = Conversation::begin(&system.lab.internet, SocketAddrV4::new(INTERNET, 9001), &host);
    let before = gateway::state(&system.lab).unwrap();
    // Every map of another layout, and then one that is only of another size.
    for layout in [true, false] {
        system.agent(Host::A).unwrap().process.kill().unwrap();
        let maps = pins::maps(&host).unwrap();
        if layout {
            std::fs::rename(&maps, maps.with_file_name("maps-0")).unwrap();
        } else {
            let config = maps.join("CONFIG").display().to_string();
            std::fs::remove_file(&config).unwrap();
            host.tool(
                "bpftool",
                &[
                    "map", "create", &config, "type", "array", "key", "4", "value", "8", "entries", "1",
                    "name", "CONFIG",
                ],
            )
            .unwrap();
        }
        talk.go_on();
        system.start_agent(Host::A).unwrap();
        talk.go_on();
        probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 5920), &[]).unwrap();
        attached(&system);
        let after = gateway::state(&system.lab).unwrap();
        assert_eq!((after.listening(Host::A), after.block(Host::A)), (vec![5920], before.block(Host::A)));
        assert_eq!(pins::folders(&host).unwrap(), ["links", "maps-1"], "nothing of the old layout");
    }
    drop((server, talk));
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn what_is_left_in_disorder_is_set_right_by_down_and_by_up() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let host = system.lab.host(Host::A).clone();
    let run = agent::run_folder(&host).unwrap();
    let disorders: [(&str, &dyn Fn()); 5] = [
        ("a damaged state file", &|| std::fs::write(run.join("state.json"), "{\"version\": 1").unwrap()),
        ("a state file of another version", &|| {
            std::fs::write(run.join("state.json"), "{\"version\": 99}").unwrap();
        }),
        ("pins without a state file", &|| std::fs::remove_file(run.join("state.json")).unwrap()),
        ("a state file without pins", &|| pins::remove(&host).unwrap()),
        ("pins with parts missing", &|| {
            let maps = pins::maps(&host).unwrap();
            std::fs::remove_file(maps.join("PORTS")).unwrap();
            let links = pins::links(&host).unwrap();
            std::fs::remove_file(links.first().unwrap()).unwrap();
        }),
    ];
    for (what, make) in disorders {
        for down in [true, false] {
            eprintln!("{what}, then {}", if down { "down" } else { "up" });
            system.start_agent(Host::A).unwrap();
            system.agent(Host::A).unwrap().process.kill().unwrap();
            make();
            if down {
                agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
            } else {
                system.start_agent(Host::A).unwrap();
                let (_, bound) = bind(&system, "0.0.0.0:5930");
                bound.expect_ok().unwrap();
                attached(&system);
                assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
            }
            assert_eq!(host.setting("net/ipv4/ip_local_port_range").unwrap(), "32768 60999", "{what}");
            assert_eq!(pins::folders(&host).unwrap(), Vec::<String>::new(), "{what}");
            assert!(!host.ip(&["link", "show"]).unwrap().contains(" rsip: "), "{what}");
        }
    }
    system.finish().unwrap();
}

#[test]
fn a_start_that_fails_leaves_a_dead_agents_work_and_down_undoes_it() {
    let mut system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    let mut talk = Conversation::begin(&system.lab.internet, SocketAddrV4::new(INTERNET, 9001), &host);
    system.agent(Host::A).unwrap().process.kill().unwrap();
    // Out of reach for a while, data path included or not: what is known stays.
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut failing = Agent::launch(&system.lab, Host::A, &["--timeout".into(), "2".into()]).unwrap();
    assert_eq!(failing.process.wait(PATIENCE * 2).unwrap(), 3);
    talk.go_on();
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    system.start_agent(Host::A).unwrap();
    talk.go_on();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    let begun = Instant::now();
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert!(begun.elapsed() < PATIENCE);
    let (_, bound) = bind(&system, "0.0.0.0:5940");
    bound.expect_ok().unwrap();
    drop(talk);
    system.finish().unwrap();
}

#[test]
fn filters_of_kernels_without_tcx_links_are_taken_over_too() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let host = system.lab.host(Host::A).clone();
    let start = || Agent::start_with(&system.lab, Host::A, &[], &[("RSIP_TC", "clsact")]).unwrap();
    let mut first = start();
    let mut talk = Conversation::begin(&system.lab.internet, SocketAddrV4::new(INTERNET, 9001), &host);
    first.process.kill().unwrap();
    talk.go_on();
    let mut second = start();
    talk.go_on();
    for (device, direction) in [("eth0", "ingress"), ("rsip", "egress")] {
        let filters = host.tool("tc", &["filter", "show", "dev", device, direction]).unwrap();
        assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
    }
    drop(talk);
    assert_eq!(second.process.stop().unwrap(), 0);
    system.finish().unwrap();
}
