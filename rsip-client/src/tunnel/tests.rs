//! Each in a network namespace of its own, which ends with its thread.

use rsip_sys::netlink::{MAIN_TABLE, Prefix, Route, RouteKind, Rule};

use super::path::PathError;
use super::*;
use crate::hooks::wait::Wish;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Runs a test in a fresh network namespace, on a thread of its own; `lo` is up, and a private interface `lan` with
/// 10.0.0.2/24 and a default route over 10.0.0.1.
fn on_private_host<F>(test: F)
where
    F: AsyncFnOnce(Netlink) + Send + 'static,
{
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let netlink = Netlink::open().expect("a socket");
            let veth = rtnetlink::LinkVeth::new("lan", "peer").build();
            netlink.handle().link().add(veth).execute().await.expect("veth is there");
            for name in ["lo", "lan", "peer"] {
                let link = netlink.link(name).await.expect("there");
                netlink.set_up(link.index, None).await.expect("allowed");
            }
            let index = netlink.link("lan").await.expect("there").index;
            let address = InterfaceAddress { index, address: HOST, prefix_length: 24 };
            netlink.add_address(address).await.expect("new");
            netlink.add_route(default_route(index)).await.expect("new");
            test(netlink).await;
        });
    })
    .join()
    .expect("the test holds");
}

fn default_route(interface: u32) -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: Prefix::ALL,
        gateway: Some(GATEWAY),
        interface: Some(interface),
        source: None,
        table: MAIN_TABLE,
        protocol: 3,
    }
}

/// What to route how with one leased address and nothing direct.
async fn plan(netlink: &Netlink, device: u32, public: Ipv4Addr) -> Plan {
    let interface = netlink.link("lan").await.expect("there").index;
    Plan {
        device,
        endpoints: [GATEWAY].into(),
        public,
        direct: BTreeSet::new(),
        hop: Hop { interface, router: GATEWAY, source: HOST },
    }
}

/// Everything that must be as before.
async fn picture(
    netlink: &Netlink,
) -> (Vec<Link>, Vec<InterfaceAddress>, Vec<Route>, [Vec<Route>; 2], Vec<Rule>) {
    (
        netlink.links().await.expect("a list"),
        netlink.addresses().await.expect("a list"),
        netlink.routes(MAIN_TABLE).await.expect("a list"),
        [
            netlink.routes(routing::TABLE).await.expect("a list"),
            netlink.routes(routing::DIRECT_TABLE).await.expect("a list"),
        ],
        netlink.rules().await.expect("a list"),
    )
}

#[test]
fn unbound_traffic_to_the_public_realm_enters_the_tunnel_and_nothing_else_does() {
    on_private_host(async |netlink| {
        let before = picture(&netlink).await;
        let device = Device::create(&netlink, 1480, false).await.expect("tun is there");
        assert!(device.link.up && device.link.carrier);
        assert_eq!(device.link.mtu, 1480);
        let (tunnel, lan) = (device.link.index, netlink.link("lan").await.expect("there").index);
        let address = InterfaceAddress { index: tunnel, address: PUBLIC, prefix_length: 32 };
        netlink.add_address(address).await.expect("new");
        routing::apply(&netlink, &plan(&netlink, tunnel, PUBLIC).await).await.expect("allowed");

        let route = netlink.route_to(PEER).await.expect("there is a way");
        assert_eq!((route.interface, route.source), (Some(tunnel), Some(PUBLIC)));
        for private in [GATEWAY, Ipv4Addr::new(10, 0, 0, 77)] {
            let route = netlink.route_to(private).await.expect("there is a way");
            assert_eq!((route.interface, route.source), (Some(lan), Some(HOST)), "{private}");
        }

        let with = picture(&netlink).await;
        routing::apply(&netlink, &plan(&netlink, tunnel, PUBLIC).await).await.expect("allowed");
        assert_eq!(picture(&netlink).await, with, "a second time changes nothing");

        routing::remove(&netlink).await.expect("allowed");
        drop(device);
        assert_eq!(picture(&netlink).await, before);
    });
}

#[test]
fn a_network_called_local_is_reached_without_the_tunnel_with_or_without_a_default_route() {
    on_private_host(async |netlink| {
        let far: Prefix = "10.88.0.0/24".parse().expect("valid");
        let inside = Ipv4Addr::new(10, 88, 0, 5);
        let before = picture(&netlink).await;
        let device = Device::create(&netlink, 1480, false).await.expect("tun is there");
        let (tunnel, lan) = (device.link.index, netlink.link("lan").await.expect("there").index);
        let address = InterfaceAddress { index: tunnel, address: PUBLIC, prefix_length: 32 };
        netlink.add_address(address).await.expect("new");
        let without = plan(&netlink, tunnel, PUBLIC).await;
        let with = Plan { direct: [far].into(), ..without.clone() };
        let way = async |to| {
            let route = netlink.route_to(to).await.expect("there is a way");
            (route.interface, route.source)
        };
        let (direct, tunnelled) = ((Some(lan), Some(HOST)), (Some(tunnel), Some(PUBLIC)));

        routing::apply(&netlink, &without).await.expect("allowed");
        assert_eq!((way(inside).await, way(PEER).await), (tunnelled, tunnelled));
        routing::apply(&netlink, &with).await.expect("allowed");
        assert_eq!((way(inside).await, way(PEER).await), (direct, tunnelled));
        assert!(
            netlink.routes(routing::DIRECT_TABLE).await.expect("a list").is_empty(),
            "main knows the way"
        );

        netlink.delete_route(default_route(lan)).await.expect("there");
        assert_eq!(way(inside).await, tunnelled, "the main table knows no way any more");
        routing::apply(&netlink, &with).await.expect("allowed");
        assert_eq!((way(inside).await, way(PEER).await), (direct, tunnelled));
        let stable = picture(&netlink).await;
        routing::apply(&netlink, &with).await.expect("allowed");
        assert_eq!(picture(&netlink).await, stable, "a second time changes nothing");
        // Also once the socket has its private address; what the leased address sends takes the tunnel all the same.
        let from = |source: &str| {
            let arguments = ["route", "get", "10.88.0.5", "from", source];
            let output =
                std::process::Command::new("ip").args(arguments).output().expect("iproute2 is installed");
            String::from_utf8(output.stdout).expect("text")
        };
        assert!(from("10.0.0.2").contains("via 10.0.0.1 dev lan"), "{}", from("10.0.0.2"));
        assert!(from("203.0.113.9").contains("dev rsip"), "{}", from("203.0.113.9"));

        netlink.add_route(default_route(lan)).await.expect("new");
        routing::apply(&netlink, &with).await.expect("allowed");
        assert!(
            netlink.routes(routing::DIRECT_TABLE).await.expect("a list").is_empty(),
            "not needed any more"
        );
        routing::apply(&netlink, &without).await.expect("allowed");
        assert_eq!(way(inside).await, tunnelled);
        routing::apply(&netlink, &with).await.expect("allowed");
        routing::remove(&netlink).await.expect("allowed");
        drop(device);
        assert_eq!(picture(&netlink).await, before);
    });
}

#[test]
fn what_others_removed_comes_back_and_what_others_made_stays() {
    on_private_host(async |netlink| {
        let foreign = Rule {
            priority: 4554,
            source: Some(Prefix::host(OTHER_PUBLIC)),
            destination: None,
            table: 77,
            suppress_prefix_length: None,
            protocol: 3,
        };
        netlink.add_rule(foreign).await.expect("new");
        let before = picture(&netlink).await;
        let device = Device::create(&netlink, 1480, false).await.expect("tun is there");
        let index = device.link.index;
        for public in [PUBLIC, OTHER_PUBLIC] {
            let address = InterfaceAddress { index, address: public, prefix_length: 32 };
            netlink.add_address(address).await.expect("new");
        }
        routing::apply(&netlink, &plan(&netlink, index, PUBLIC).await).await.expect("allowed");
        let with = picture(&netlink).await;
        let ours = with.4.iter().find(|rule| rule.priority == 4555).expect("ours");
        netlink.delete_rule(*ours).await.expect("there");
        routing::apply(&netlink, &plan(&netlink, index, PUBLIC).await).await.expect("allowed");
        let again = picture(&netlink).await;
        assert_eq!(with, again);
        // Another address: the old one's rules go.
        routing::apply(&netlink, &plan(&netlink, index, OTHER_PUBLIC).await).await.expect("allowed");
        let rules = netlink.rules().await.expect("a list");
        assert!(!rules.iter().any(|rule| rule.source == Some(Prefix::host(PUBLIC))), "{rules:?}");
        routing::remove(&netlink).await.expect("allowed");
        drop(device);
        assert_eq!(picture(&netlink).await, before);
    });
}

#[test]
fn a_dead_agents_rules_are_removed() {
    on_private_host(async |netlink| {
        let before = picture(&netlink).await;
        let device = Device::create(&netlink, 1480, false).await.expect("tun is there");
        routing::apply(&netlink, &plan(&netlink, device.link.index, PUBLIC).await)
            .await
            .expect_err("a source that is not ours yet");
        let address = InterfaceAddress { index: device.link.index, address: PUBLIC, prefix_length: 32 };
        netlink.add_address(address).await.expect("new");
        routing::apply(&netlink, &plan(&netlink, device.link.index, PUBLIC).await).await.expect("allowed");
        // The kernel closes the descriptors of a dead process.
        drop(device);
        assert_ne!(picture(&netlink).await, before);
        remove_leftovers(&netlink, Some("lan")).await.expect("allowed");
        remove_leftovers(&netlink, Some("gone")).await.expect("nothing to do");
        assert_eq!(picture(&netlink).await, before);
    });
}

#[test]
fn a_foreign_device_of_our_name_is_not_touched() {
    on_private_host(async |netlink| {
        let veth = rtnetlink::LinkVeth::new("rsip", "other").build();
        netlink.handle().link().add(veth).execute().await.expect("veth is there");
        let before = picture(&netlink).await;
        let error = Device::create(&netlink, 1480, false).await.expect_err("the name is taken");
        assert!(matches!(error, DeviceError::Foreign), "{error}");
        assert_eq!(picture(&netlink).await, before);
    });
}

#[test]
fn finds_the_way_to_the_gateway_or_says_what_is_wrong() {
    on_private_host(async |netlink| {
        let path = path::find(&netlink, GATEWAY, None).await.expect("on the link");
        assert_eq!((path.interface.name.as_str(), path.source), ("lan", HOST));
        assert_eq!(path::find(&netlink, GATEWAY, Some("lan")).await.expect("the same"), path);
        let error = |gateway, interface| {
            let netlink = &netlink;
            async move { path::find(netlink, gateway, interface).await.expect_err("no way") }
        };
        assert!(matches!(error(GATEWAY, Some("peer")).await, PathError::OtherInterface { .. }));
        assert!(matches!(error(HOST, None).await, PathError::OwnAddress(_)));
        let missing = error(GATEWAY, Some("eth9")).await;
        assert!(missing.to_string().contains("eth9"), "{missing}");
        let lan = netlink.link("lan").await.expect("there").index;
        netlink.delete_route(default_route(lan)).await.expect("there");
        assert!(matches!(error(PEER, None).await, PathError::NoRoute(_)));
    });
}

/// What `tc` says about an interface: tcx links do not show there, filters and their queueing discipline do.
fn tc(what: &str, interface: &str) -> String {
    let arguments: &[&str] = match what {
        "qdisc" => &["qdisc", "show", "dev", interface],
        _ => &["filter", "show", "dev", interface, "ingress"],
    };
    let output = std::process::Command::new("tc").args(arguments).output().expect("iproute2 is installed");
    String::from_utf8(output.stdout).expect("text")
}

async fn tunnel(netlink: &Netlink, method: Method) -> Tunnel {
    let mut hooks = Hooks::load(Some(Wish::Poll), true, None)
        .expect("`cargo xtask build-ebpf` was run before this crate was built");
    let path = path::find(netlink, GATEWAY, None).await.expect("on the link");
    let mut tunnel = Tunnel::create(
        netlink,
        &mut hooks,
        &path,
        GATEWAY,
        TunnelType::IpIp,
        Options { forced: Some(method), mtu: None, kernel: false },
    )
    .await
    .expect("allowed");
    tunnel.set_public(netlink, Some(PUBLIC), BTreeSet::new()).await.expect("allowed");
    tunnel
}

#[test]
fn leaves_nothing_behind_whichever_way_its_programs_are_held() {
    on_private_host(async |netlink| {
        let before = (picture(&netlink).await, tc("qdisc", "lan"));
        for method in [Method::Tcx, Method::Clsact] {
            let tunnel = tunnel(&netlink, method).await;
            assert_eq!(tunnel.method(), Some(method));
            assert_eq!(tc("filter", "lan").contains(programs::TUNNEL_IN), method == Method::Clsact);
            assert_eq!(tunnel.link().mtu, 1480);
            tunnel.destroy(&netlink).await.expect("allowed");
            assert_eq!((picture(&netlink).await, tc("qdisc", "lan")), before, "{method}");
        }
    });
}

#[test]
fn a_dead_agents_filter_is_removed_and_others_filters_stay() {
    on_private_host(async |netlink| {
        let qdisc = tc("qdisc", "lan");
        // The kernel keeps the filter of a dead process; here its owner is forgotten instead.
        let dead = tunnel(&netlink, Method::Clsact).await;
        let Tunnel { device, outward, inward, .. } = dead;
        std::mem::forget((outward, inward));
        drop(device);
        assert!(tc("filter", "lan").contains(programs::TUNNEL_IN));
        remove_leftovers(&netlink, Some("lan")).await.expect("allowed");
        assert_eq!(tc("qdisc", "lan"), qdisc, "the queueing discipline was only for us");

        // Another program on the same interface, which is not among those that a dead agent leaves there.
        let mut hooks = Hooks::load(Some(Wish::Poll), true, None).expect("the object is built");
        let lan = netlink.link("lan").await.expect("there");
        let foreign = hooks.attach_outward(&netlink, &lan, Some(Method::Clsact)).await.expect("allowed");
        let with_foreign = tc("qdisc", "lan");
        assert_ne!(with_foreign, qdisc);
        let dead = tunnel(&netlink, Method::Clsact).await;
        let Tunnel { device, outward, inward, .. } = dead;
        std::mem::forget((outward, inward));
        drop(device);
        remove_leftovers(&netlink, Some("lan")).await.expect("allowed");
        assert_eq!((tc("filter", "lan").as_str(), tc("qdisc", "lan")), ("", with_foreign));
        foreign.expect("there are programs").detach(&netlink).await.expect("allowed");
        assert_eq!(tc("qdisc", "lan"), qdisc);
    });
}

#[test]
fn follows_a_private_interface_that_is_made_anew() {
    on_private_host(async |netlink| {
        let mut hooks = Hooks::load(Some(Wish::Poll), true, None).expect("the object is built");
        let path = path::find(&netlink, GATEWAY, None).await.expect("on the link");
        let mut tunnel =
            Tunnel::create(&netlink, &mut hooks, &path, GATEWAY, TunnelType::IpIp, Options::default())
                .await
                .expect("allowed");
        tunnel.set_public(&netlink, Some(PUBLIC), BTreeSet::new()).await.expect("allowed");
        netlink.delete_link(path.interface.index).await.expect("there");
        // Our own rules lead everything that has no other way into the tunnel: that is no way to the gateway.
        let error = path::find(&netlink, GATEWAY, None).await.expect_err("no way");
        assert!(matches!(error, PathError::NoRoute(_)), "{error}");
        netlink
            .handle()
            .link()
            .add(rtnetlink::LinkVeth::new("lan", "peer").build())
            .execute()
            .await
            .expect("veth is there");
        let lan = netlink.link("lan").await.expect("there").index;
        for name in ["lan", "peer"] {
            let link = netlink.link(name).await.expect("there");
            netlink.set_up(link.index, Some(1400)).await.expect("allowed");
        }
        let address = InterfaceAddress { index: lan, address: HOST, prefix_length: 24 };
        netlink.add_address(address).await.expect("new");
        let path = path::find(&netlink, GATEWAY, None).await.expect("on the link");
        tunnel.move_to(&netlink, &mut hooks, &path).await.expect("allowed");
        assert_eq!(tunnel.inward.as_ref().map(|inward| inward.interface().index), Some(lan));
        assert_eq!(tunnel.link().mtu, 1380);
        tunnel.repair(&netlink).await.expect("allowed");
        let route = netlink.route_to(PEER).await.expect("there is a way");
        assert_eq!((route.interface, route.source), (Some(tunnel.link().index), Some(PUBLIC)));
        tunnel.destroy(&netlink).await.expect("allowed");
    });
}
