//! What the agent does to programs that wait: how it says that they wait, and what becomes of them when it ends.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rsip_lab::lab::probe::{self, Bound, Probe};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, binaries, exec};

const SOON: Duration = Duration::from_secs(20);

fn options(arguments: &[&str]) -> Options {
    Options { agent: arguments.iter().map(ToString::to_string).collect(), ..Options::default() }
}

/// Programs that wait for these ports, as the agent's status says; the gateway is silent.
fn waiting(system: &mut System, ports: &[u16]) -> Vec<Probe> {
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let lab = &system.lab;
    let start = |port: &u16| {
        Probe::start(lab, lab.host(Host::A), &["bind", "--close", &format!("0.0.0.0:{port}")]).unwrap()
    };
    let probes: Vec<Probe> = ports.iter().map(start).collect();
    wait::until("the programs to wait", SOON, || {
        let asked = agent::status(lab, Host::A)?.waiting.ports;
        Ok(if ports.iter().all(|port| asked.contains(port)) {
            Look::Ready(())
        } else {
            Look::NotYet(format!("{asked:?}"))
        })
    })
    .unwrap();
    probes
}

/// Every one of them gets what bind(2) has.
fn expect_documented(probes: Vec<Probe>) {
    for mut probe in probes {
        let bound = probe.bound(exec::SHORT).unwrap();
        assert!(matches!(bound.result.as_str(), "ok" | "EADDRINUSE"), "{bound:?}");
    }
}

#[test]
fn programs_wait_in_the_way_that_was_asked_for() {
    for (wish, way) in [("park-tracepoint", "park (raw tracepoint)"), ("poll", "poll")] {
        let mut system = System::new(options(&["--wait", wish])).unwrap();
        system.start_gateway().unwrap();
        system.start_agent(Host::A).unwrap();
        let before = agent::status(&system.lab, Host::A).unwrap().waiting;
        assert_eq!((before.way.as_str(), before.why.as_str()), (way, "asked for"));
        let text = system.status(Host::A).unwrap();
        assert!(text.contains(&format!("waiting    {way} up to 5 s; asked for\n")), "{text}");

        system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
        let start = Instant::now();
        let lab = &system.lab;
        let mut server = Probe::start(lab, lab.host(Host::A), &["bind", "0.0.0.0:5900"]).unwrap();
        // An answer that takes two seconds.
        std::thread::sleep(Duration::from_secs(2));
        system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
        let bound = server.bound(exec::SHORT).unwrap();
        bound.expect_ok().unwrap();
        assert!(bound.took() > Duration::from_secs(1), "{bound:?} after {:?}", start.elapsed());
        let after = agent::status(&system.lab, Host::A).unwrap().waiting;
        assert_eq!(after.restarts > before.restarts, wish != "poll", "{after:?}");
        assert_eq!(after.timeouts, 0);
        drop(server);
        system.gateway_sees_listening(Host::A, &[]).unwrap();
        system.finish().unwrap();
    }
}

#[test]
fn a_way_that_this_kernel_lacks_is_refused_with_the_reason() {
    // Kernels that load fexit programs start; others say why they cannot.
    let mut system = System::new(options(&["--wait", "park-fexit"])).unwrap();
    system.start_gateway().unwrap();
    let lab = &system.lab;
    let mut started = agent::Agent::launch(lab, Host::A, &options(&["--wait", "park-fexit"]).agent).unwrap();
    match started.becomes_ready(lab, Host::A, SOON) {
        Ok(()) => {
            let waiting = agent::status(lab, Host::A).unwrap().waiting;
            assert_eq!(waiting.way, "park (fexit)");
            let (_, bound) = probe::bind(lab, lab.host(Host::A), &["--close", "0.0.0.0:5901"]).unwrap();
            bound.expect_ok().unwrap();
            assert_eq!(started.process.stop().unwrap(), 0);
        }
        Err(_) => {
            assert_eq!(started.process.wait(SOON).unwrap(), 5);
            let log = started.process.output();
            assert!(
                log.contains("this kernel cannot restart a waiting bind(): no fexit on bpf_set_retval"),
                "{log}"
            );
        }
    }
    system.finish().unwrap();
}

#[test]
fn who_waits_while_the_agent_ends_gets_a_proper_answer() {
    let ports: Vec<u16> = (6000..6012).collect();
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut system = System::up().unwrap();
        let probes = waiting(&mut system, &ports);
        let agent = &mut system.agent(Host::A).unwrap().process;
        agent.signal(end).unwrap();
        expect_documented(probes);
        system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
        system.agent(Host::A).unwrap().process.wait(SOON).unwrap();
        // Whatever a killed one left.
        agent::client(&system.lab, Host::A, &["down"]).unwrap();
        system.finish().unwrap();
    }
}

/// Whether the agent gets its turn before the deadline is the kernel's to decide (it does where the kernel preempts itself).
#[test]
fn polling_on_the_agents_own_cpu_ends_by_the_deadline_and_the_next_bind_has_the_port() {
    let mut system = System::up_with(options(&["--wait", "poll", "--bind-timeout", "1"])).unwrap();
    let pid = system.agent(Host::A).unwrap().process.pid().to_string();
    exec::tool("taskset", &["-a", "-p", "-c", "0", &pid]).unwrap();
    let lab = &system.lab;
    let bind = || -> Bound {
        let mut command = lab.host(Host::A).command("taskset");
        let probe = binaries::own("probe").unwrap();
        command.args(["-c", "0"]).arg(probe).args(["bind", "--close", "0.0.0.0:6200"]);
        // It ends with 1 where bind() fails.
        serde_json::from_str(exec::run(&mut command, SOON).unwrap().stdout.trim()).unwrap()
    };
    let first = bind();
    assert!(matches!(first.result.as_str(), "ok" | "EADDRINUSE"), "{first:?}");
    if first.result == "EADDRINUSE" {
        assert!(first.took() >= Duration::from_millis(900), "before the deadline: {first:?}");
    }
    wait::until("the port to be there", SOON, || {
        let bound = bind();
        Ok(if bound.result == "ok" { Look::Ready(()) } else { Look::NotYet(format!("{bound:?}")) })
    })
    .unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}
