//! Each in a network namespace of its own, which ends with its thread.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;

/// Runs a test in a fresh network namespace, on a thread of its own.
fn in_namespace<F>(test: F)
where
    F: AsyncFnOnce(Netlink) + Send + 'static,
{
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { test(Netlink::open().expect("a socket")).await });
    })
    .join()
    .expect("the test holds");
}

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

#[test]
fn sees_and_changes_interfaces_and_addresses() {
    in_namespace(async |netlink| {
        let lo = netlink.link("lo").await.expect("every namespace has one");
        assert!(lo.loopback && !lo.up);
        netlink.set_up(lo.index, Some(60_000)).await.expect("allowed");
        let lo = netlink.link_by_index(lo.index).await.expect("still there");
        assert_eq!((lo.name.as_str(), lo.mtu, lo.up), ("lo", 60_000, true));
        assert_eq!(netlink.links().await.expect("a list").first(), Some(&lo));

        let address = InterfaceAddress { index: lo.index, address: PUBLIC, prefix_length: 32 };
        netlink.add_address(address).await.expect("new");
        assert!(netlink.add_address(address).await.expect_err("twice").is_exists());
        assert!(netlink.addresses().await.expect("a list").contains(&address));
        netlink.delete_address(address).await.expect("there");
        assert!(netlink.delete_address(address).await.expect_err("gone").is_missing());
        assert!(!netlink.addresses().await.expect("a list").contains(&address));
    });
}

#[test]
fn names_an_interface_that_does_not_exist() {
    in_namespace(async |netlink| {
        for name in ["nosuch0", "", "a name that is longer than any interface's"] {
            let error = netlink.link(name).await.expect_err("does not exist");
            assert!(matches!(&error, NetlinkError::NoSuchInterface(n) if n == name), "{error:?}");
        }
    });
}

#[test]
fn a_route_is_found_in_its_table_only() {
    in_namespace(async |netlink| {
        let lo = netlink.link("lo").await.expect("there");
        netlink.set_up(lo.index, None).await.expect("allowed");
        let address = InterfaceAddress { index: lo.index, address: PUBLIC, prefix_length: 32 };
        netlink.add_address(address).await.expect("new");
        let route = Route {
            kind: RouteKind::Unicast,
            destination: Prefix::ALL,
            gateway: None,
            interface: Some(lo.index),
            source: Some(PUBLIC),
            table: 4555,
            protocol: 155,
        };
        netlink.add_route(route).await.expect("new");
        assert!(netlink.add_route(route).await.expect_err("twice").is_exists());
        assert_eq!(netlink.routes(4555).await.expect("a list"), [route]);
        assert_eq!(netlink.routes(MAIN_TABLE).await.expect("a list"), []);
        let far = Ipv4Addr::new(198, 51, 100, 1);
        let error = netlink.route_to(far).await.expect_err("no rule leads there");
        assert_eq!(error.errno(), Some(libc::ENETUNREACH), "{error}");

        let rule = Rule {
            priority: 4555,
            source: Some(Prefix::host(Ipv4Addr::UNSPECIFIED)),
            destination: None,
            table: 4555,
            suppress_prefix_length: None,
            protocol: 155,
        };
        netlink.add_rule(rule).await.expect("new");
        let found = netlink.route_to(far).await.expect("now one leads there");
        assert_eq!((found.interface, found.source), (Some(lo.index), Some(PUBLIC)));
        netlink.delete_route(route).await.expect("there");
        assert!(netlink.delete_route(route).await.expect_err("gone").is_missing());
    });
}

#[test]
fn rules_come_back_as_they_were_made() {
    in_namespace(async |netlink| {
        let before = netlink.rules().await.expect("a list");
        let plain = Rule {
            priority: 4552,
            source: None,
            destination: Some(Prefix::host(Ipv4Addr::new(10, 0, 0, 1))),
            table: MAIN_TABLE,
            suppress_prefix_length: None,
            protocol: 155,
        };
        let suppressing =
            Rule { priority: 4553, destination: None, suppress_prefix_length: Some(0), ..plain };
        for rule in [plain, suppressing] {
            netlink.add_rule(rule).await.expect("new");
            assert!(netlink.add_rule(rule).await.expect_err("twice").is_exists());
            assert!(netlink.rules().await.expect("a list").contains(&rule), "{rule:?}");
        }
        let other = Rule { table: 4555, ..plain };
        assert!(netlink.delete_rule(other).await.expect_err("differs").is_missing());
        for rule in [plain, suppressing] {
            netlink.delete_rule(rule).await.expect("there");
        }
        assert_eq!(netlink.rules().await.expect("a list"), before);
    });
}

#[test]
fn tells_that_something_changed() {
    in_namespace(async |netlink| {
        let mut watch = Watch::open().expect("a socket");
        let lo = netlink.link("lo").await.expect("there");
        let quiet = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(quiet.is_err(), "nothing happened yet");
        netlink.set_up(lo.index, None).await.expect("allowed");
        let told = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
        assert_eq!(told, Ok(true));
    });
}

#[test]
fn reads_prefixes_and_says_what_is_wrong_with_them() {
    let prefix: Prefix = "10.1.0.0/16".parse().expect("valid");
    assert!(prefix.contains(Ipv4Addr::new(10, 1, 255, 255)));
    assert!(!prefix.contains(Ipv4Addr::new(10, 2, 0, 0)));
    assert!(Prefix::ALL.contains(PUBLIC));
    assert_eq!("203.0.113.9".parse(), Ok(Prefix::host(PUBLIC)));
    for bad in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "10.0.0.1/8", "10.0.0.0/8/8", "::/0"] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}
