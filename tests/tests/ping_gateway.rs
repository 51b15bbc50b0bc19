//! `rsip-client ping-gateway`: round trips of a question that changes nothing.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::{Host, agent, gateway};
use serde_json::Value;

fn ping(system: &System, more: &[&str]) -> (i32, Value, String) {
    let output = agent::client(
        &system.lab,
        Host::A,
        &[&["ping-gateway", "--json", "--interval", "0.05"], more].concat(),
    )
    .unwrap();
    let data = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
    (output.code(), data, output.stderr)
}

#[test]
fn it_measures_and_leaves_registrations_alone() {
    let mut system = System::new(Options::default()).unwrap();
    let (code, _, said) = ping(&system, &["--count", "1"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--gateway"), "{said}");
    let (code, data, said) = ping(&system, &["--gateway", "10.77.0.1", "--count", "2"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("10.77.0.1:4555 over tcp: connection refused"), "{said}");
    assert_eq!(data["transports"][1]["loss_percent"], 100.0, "{data}");

    system.start_gateway().unwrap();
    let (code, data, said) = ping(&system, &["--gateway", "10.77.0.1", "--count", "3"]);
    assert_eq!(code, 0, "{said}");
    for transport in data["transports"].as_array().unwrap() {
        assert_eq!((&transport["sent"], &transport["answered"]), (&3.into(), &3.into()), "{data}");
        let times = ["min_ms", "average_ms", "max_ms"].map(|name| transport[name].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{data}");
        assert!(transport["answer"].as_str().unwrap().contains("301"), "{data}");
    }
    assert!(gateway::state(&system.lab).unwrap().clients.is_empty());

    // With an agent the gateway is known, and the registration is not touched.
    system.start_agent(Host::A).unwrap();
    let before = gateway::state(&system.lab).unwrap();
    let (code, data, said) = ping(&system, &["--count", "2"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(data["gateway"], "10.77.0.1:4555");
    assert!(
        data["transports"][1]["answer"].as_str().unwrap().contains("102"),
        "over UDP it is told so: {data}"
    );
    let text =
        agent::client(&system.lab, Host::A, &["ping-gateway", "--count", "1"]).unwrap().success().unwrap();
    assert!(text.contains("10.77.0.1:4555 tcp: ") && text.contains("1 sent, 1 answered, 0 % lost"), "{text}");
    let after = gateway::state(&system.lab).unwrap();
    assert_eq!(after.client(Host::A).unwrap().client_id, before.client(Host::A).unwrap().client_id);
    assert_eq!(after.block(Host::A), before.block(Host::A));
    // A gateway that hangs: nothing for as long as is waited.
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let (code, data, said) = ping(&system, &["--count", "1", "--timeout", "0.3", "--transport", "udp"]);
    system.gateway().unwrap().process.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(code, 3, "{said}");
    assert!(data["transports"][0]["error"].as_str().unwrap().contains("no answer within 0.3 s"), "{data}");
    system
        .gateway_sees("the host", Duration::from_secs(20), |state| state.client(Host::A).is_some())
        .unwrap();
    system.finish().unwrap();
}
