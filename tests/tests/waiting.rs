//! A bind waits for the gateway, and every wait ends.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use rsip_lab::lab::probe::{Bound, Probe};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::{Host, Lab, exec, gateway, probe};

/// A moment that is near, but after all programs have started.
fn soon() -> String {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    (now + Duration::from_millis(700)).as_nanos().to_string()
}

/// Programs that bind these ports on a host at the same moment.
fn at_once(lab: &Lab, requests: &[(Host, String)]) -> Vec<(Probe, Bound)> {
    let at = soon();
    let start = |(host, address): &(Host, String)| {
        Probe::start(lab, lab.host(*host), &["bind", "--at", &at, address]).unwrap()
    };
    let probes: Vec<Probe> = requests.iter().map(start).collect();
    let answer = |mut probe: Probe| {
        let bound = probe.bound(exec::SHORT).unwrap();
        (probe, bound)
    };
    probes.into_iter().map(answer).collect()
}

fn count(answers: &[(Probe, Bound)], result: &str) -> usize {
    answers.iter().filter(|(_, bound)| bound.result == result).count()
}

#[test]
fn of_two_programs_that_ask_for_one_port_at_the_same_moment_exactly_one_gets_it() {
    let system = System::up().unwrap();
    for (round, port) in (5300..5310).enumerate() {
        // On one host the kernel decides, on two the gateway.
        let hosts = if round % 2 == 0 { [Host::A, Host::A] } else { [Host::A, Host::B] };
        let requests = hosts.map(|host| (host, format!("0.0.0.0:{port}")));
        let answers = at_once(&system.lab, &requests);
        let all: Vec<&Bound> = answers.iter().map(|(_, bound)| bound).collect();
        assert_eq!((count(&answers, "ok"), count(&answers, "EADDRINUSE")), (1, 1), "{all:?}");
        let winner = hosts[answers.iter().position(|(_, bound)| bound.result == "ok").unwrap()];
        assert_eq!(gateway::state(&system.lab).unwrap().holder(port), Some(winner.address()));
    }
    for host in Host::ALL {
        system.gateway_sees_listening(host, &[]).unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn more_programs_wait_at_once_than_there_are_processors() {
    let mut system = System::up().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let programs = u16::try_from(4 * processors).unwrap();
    let first = 5400;
    // The gateway does not answer for a second and a half, so that all of them wait.
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let at = soon();
    let lab = &system.lab;
    let probes: Vec<Probe> = (first..first + programs)
        .map(|port| {
            let address = format!("0.0.0.0:{port}");
            Probe::start(lab, lab.host(Host::A), &["bind", "--at", &at, &address]).unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(2200));
    // The machine is not held up by those who wait.
    let start = Instant::now();
    exec::tool("true", &[]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
    let mut held = Vec::new();
    for mut probe in probes {
        let bound = probe.bound(exec::SHORT).unwrap();
        bound.expect_ok().unwrap();
        assert!(bound.took() > Duration::from_millis(500), "{bound:?} did not wait");
        held.push(probe);
    }
    let all: Vec<u16> = (first..first + programs).collect();
    system.gateway_sees_listening(Host::A, &all).unwrap();
    drop(held);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_bind_while_the_gateway_is_silent_ends_with_address_in_use_at_its_deadline() {
    let mut system = System::up().unwrap();
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:5500"]).unwrap();
    bound.expect("EADDRINUSE").unwrap();
    // Default: 3 s for the request, 5 s for the bind.
    assert!((Duration::from_millis(500)..Duration::from_secs(8)).contains(&bound.took()), "{bound:?}");
    // Ports that are leased work on.
    let block = system.gateway().unwrap().process.signal(Signal::SIGCONT);
    block.unwrap();
    let system = system;
    system
        .gateway_sees("both hosts", Duration::from_secs(30), |state| {
            Host::ALL.iter().all(|host| !state.block(*host).is_empty())
        })
        .unwrap();
    // Nothing is left of the request that came too late.
    for host in Host::ALL {
        system.gateway_sees_listening(host, &[]).unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn a_bind_while_the_gateway_is_gone_ends_with_address_in_use_and_later_works() {
    let mut system = System::up().unwrap();
    system.gateway().unwrap().process.kill().unwrap();
    for _ in 0..3 {
        let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:5501"]).unwrap();
        bound.expect("EADDRINUSE").unwrap();
        assert!(bound.took() < Duration::from_secs(8), "{bound:?}");
    }
    // Private servers are not concerned.
    let (_private, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["127.0.0.1:5501"]).unwrap();
    bound.expect_ok().unwrap();
    assert!(bound.took() < Duration::from_millis(200), "{bound:?}");

    system.start_gateway().unwrap();
    system
        .gateway_sees("host-a again", Duration::from_secs(30), |state| !state.block(Host::A).is_empty())
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let server = loop {
        let (probe, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:5502"]).unwrap();
        if bound.result == "ok" {
            break probe;
        }
        assert!(Instant::now() < deadline, "the port is not granted after the gateway is back: {bound:?}");
    };
    assert_eq!(gateway::state(&system.lab).unwrap().holder(5502), Some(Host::A.address()));
    drop(server);
    system.finish().unwrap();
}

#[test]
fn a_waiting_program_takes_signals() {
    let mut system = System::up().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
        let mut waiting =
            Probe::start(&system.lab, system.lab.host(Host::A), &["bind", "0.0.0.0:5600"]).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        waiting.process.expect_running().unwrap();
        let start = Instant::now();
        waiting.process.signal(signal).unwrap();
        let code = waiting.process.wait(Duration::from_secs(2)).unwrap();
        assert_eq!(code, 128 + signal as i32);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
        // The grant that came for nobody is given back.
        system.gateway_sees_listening(Host::A, &[]).unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn agent_and_program_may_share_one_processor() {
    let mut system = System::up_with(Options::default()).unwrap();
    let agent = system.agent(Host::A).unwrap().process.pid().to_string();
    exec::tool("taskset", &["-a", "-p", "-c", "0", &agent]).unwrap();
    let lab = &system.lab;
    let program = rsip_lab::lab::binaries::own("probe").unwrap();
    let mut command = lab.host(Host::A).command("taskset");
    command.args(["-c", "0"]).arg(program).args(["bind", "--close", "0.0.0.0:5700"]);
    let said = exec::run(&mut command, exec::SHORT).unwrap().success().unwrap();
    let bound: Bound = serde_json::from_str(said.trim()).unwrap();
    bound.expect_ok().unwrap();
    assert!(bound.took() < Duration::from_secs(2), "{bound:?}");
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_refusal_is_asked_again_soon() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let (holder, bound) = probe::bind(lab, lab.host(Host::A), &["0.0.0.0:5800"]).unwrap();
    bound.expect_ok().unwrap();
    let (_, bound) = probe::bind(lab, lab.host(Host::B), &["0.0.0.0:5800"]).unwrap();
    bound.expect("EADDRINUSE").unwrap();
    drop(holder);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(3);
    let server = loop {
        let (probe, bound) = probe::bind(lab, lab.host(Host::B), &["0.0.0.0:5800"]).unwrap();
        if bound.result == "ok" {
            break probe;
        }
        assert!(Instant::now() < deadline, "the old refusal is still remembered");
    };
    assert_eq!(gateway::state(lab).unwrap().holder(5800), Some(Host::B.address()));
    drop(server);
    system.finish().unwrap();
}
