//! What the gateway calls local (QUERY, RFC 3103 sections 9.14 and 9.15) is reached by a host without the tunnel.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::agent::Network;
use rsip_lab::lab::gateway::{Gateway, State};
use rsip_lab::lab::netns::Netns;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{GATEWAY, HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, Lab, agent, gateway, link, probe};

/// A server in the second private network.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const FAR_NET: &str = "10.88.0.0/24";
const SERVICE: SocketAddrV4 = SocketAddrV4::new(FAR, 7100);

/// A lab whose gateway is the router between two private networks: the usual one, and 10.88.0.0/24 with one server. The
/// gateway's interface there has an address, and nothing else tells the hosts of it.
struct TwoNets {
    system: System,
    far: Netns,
}

fn two_nets(more: &str, agent: &[&str]) -> TwoNets {
    let lab = Lab::new().unwrap();
    let far = Netns::new(&format!("rsip-{}-far", lab.id())).unwrap();
    link::cable((&lab.gateway, "int1"), (&far, HOST_IF)).unwrap();
    link::address((&lab.gateway, "int1"), "10.88.0.1/24").unwrap();
    link::address((&far, HOST_IF), &format!("{FAR}/24")).unwrap();
    far.ip(&["route", "add", "default", "via", "10.88.0.1"]).unwrap();
    let options =
        Options { gateway: more.to_owned(), agent: agent.iter().map(ToString::to_string).collect() };
    let mut system = System::in_lab(lab, options).unwrap();
    system.start_gateway().unwrap();
    TwoNets { system, far }
}

/// With which address a program of host-a reaches the second network and the internet.
fn sources(nets: &TwoNets) -> (Result<Ipv4Addr, String>, Ipv4Addr) {
    let lab = &nets.system.lab;
    let near = probe::serve(lab, &nets.far, &["0.0.0.0:7100"]).unwrap();
    let internet = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    let host = lab.host(Host::A);
    let far = probe::ask(host, SERVICE, &[]).map(|answer| *answer.peer.ip()).map_err(|e| e.to_string());
    let out = probe::ask(host, SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    drop((near, internet));
    (far, *out.peer.ip())
}

fn direct(nets: &TwoNets) -> Vec<Network> {
    agent::status(&nets.system.lab, Host::A).unwrap().direct
}

fn believed(network: &str) -> Network {
    Network { network: network.into(), from: "gateway".into(), refused: None }
}

#[test]
fn a_network_behind_the_gateway_is_reached_without_the_tunnel_because_the_gateway_says_so() {
    let private_nets = format!("PRIVATE_NETS = [\"10.77.0.0/24\", \"{FAR_NET}\"]");
    let mut nets = two_nets(&private_nets, &[]);
    nets.system.start_agent(Host::A).unwrap();
    assert_eq!(sources(&nets), (Ok(Host::A.address()), PUBLIC), "direct there, by the tunnel elsewhere");
    assert_eq!(direct(&nets), [believed("10.77.0.0/24"), believed(FAR_NET)]);
    assert!(nets.system.status(Host::A).unwrap().contains(&format!("direct     {FAR_NET} (gateway)")));
    // A host without a default route goes by way of the gateway, which calls the network local.
    let host = nets.system.lab.host(Host::A).clone();
    host.ip(&["route", "del", "default"]).unwrap();
    wait::until("the agent to follow", NOTICE, || {
        let routes = host.ip(&["route", "show", "table", "4554"]).unwrap_or_default();
        Ok(if routes.contains(FAR_NET) { Look::Ready(()) } else { Look::NotYet(routes) })
    })
    .unwrap();
    assert_eq!(sources(&nets), (Ok(Host::A.address()), PUBLIC));
    host.ip(&["route", "add", "default", "via", &GATEWAY.to_string()]).unwrap();
    nets.system.stop_all().unwrap();
    let rules = host.ip(&["rule"]).unwrap();
    assert!(!rules.contains("10.88"), "nothing is left: {rules}");
    nets.system.expect_as_before().unwrap();
}

#[test]
fn a_host_that_is_told_not_to_ask_takes_the_tunnel() {
    let private_nets = format!("PRIVATE_NETS = [\"10.77.0.0/24\", \"{FAR_NET}\"]");
    let mut nets = two_nets(&private_nets, &["--no-query"]);
    nets.system.start_agent(Host::A).unwrap();
    let (far, out) = sources(&nets);
    assert_ne!(far, Ok(Host::A.address()), "not its private address");
    assert_eq!(out, PUBLIC);
    assert_eq!(direct(&nets), []);
    nets.system.finish().unwrap();
}

#[test]
fn an_answer_that_would_take_the_internet_is_not_believed() {
    // The gateway's public network, the leased address in it, and the internet itself.
    let private_nets = "PRIVATE_NETS = [\"10.77.0.0/24\", \"198.51.100.0/24\", \"0.0.0.0/1\"]";
    let mut nets = two_nets(private_nets, &[]);
    nets.system.start_agent(Host::A).unwrap();
    let (_, out) = sources(&nets);
    assert_eq!(out, PUBLIC, "the internet is reached through the tunnel");
    let networks = direct(&nets);
    assert_eq!(networks.iter().filter(|network| network.refused.is_none()).count(), 1, "{networks:?}");
    for (network, why) in [("198.51.100.0/24", "the leased address"), ("0.0.0.0/1", "internet")] {
        let refused = networks.iter().find(|n| n.network == network).and_then(|n| n.refused.clone()).unwrap();
        assert!(refused.contains(why), "{network}: {refused}");
    }
    nets.system.finish().unwrap();
}

#[test]
fn a_changed_answer_is_followed_when_the_gateway_comes_back() {
    let mut nets = two_nets("PRIVATE_NETS = [\"10.77.0.0/24\"]", &[]);
    nets.system.start_agent(Host::A).unwrap();
    assert_eq!(direct(&nets), [believed("10.77.0.0/24")]);
    assert_eq!(nets.system.gateway().unwrap().process.stop().unwrap(), 0);
    let changed = format!("PRIVATE_NETS = [\"{FAR_NET}\"]");
    let restarted = Gateway::start(&nets.system.lab, &gateway::configuration(&changed)).unwrap();
    wait::until("the new answer", Duration::from_secs(40), || {
        let networks = direct(&nets);
        Ok(if networks == [believed(FAR_NET)] {
            Look::Ready(())
        } else {
            Look::NotYet(format!("{networks:?}"))
        })
    })
    .unwrap();
    let leased = |state: &State| !state.block(Host::A).is_empty();
    nets.system.gateway_sees("a block", NOTICE, leased).unwrap();
    assert_eq!(sources(&nets), (Ok(Host::A.address()), PUBLIC));
    nets.system.stop_all().unwrap();
    drop(restarted);
}
