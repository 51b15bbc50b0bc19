//! The contract of the gateway's data path, on the one that forwards: the programs in the kernel, between two interfaces of
//! a network namespace.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use rsip_lab::bpf;
use rsip_lab::lab::netns::{NamesFolder, Netns};
use rsip_proto::wire::{RemotePolicy, TunnelType};
use rsip_sys::netlink::Netlink;
use rsipd::datapath::ebpf::{EbpfDatapath, Site};
use rsipd::datapath::{Datapath, contract};
use tokio::runtime;

const POOL: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

/// Goes through the contract in a namespace of its own, and says what is left at its interfaces.
fn check(policy: RemotePolicy, tunnels: &[TunnelType]) {
    static SITES: AtomicU32 = AtomicU32::new(0);
    let number = SITES.fetch_add(1, Ordering::Relaxed);
    let names = NamesFolder::find().unwrap();
    let gateway = Netns::new(&format!("rsip-contract-{}-{number}", std::process::id())).unwrap();
    for arguments in [
        &["link", "add", "int0", "type", "veth", "peer", "name", "host0"][..],
        &["link", "add", "ext0", "type", "veth", "peer", "name", "net0"],
        &["link", "set", "int0", "up"],
        &["link", "set", "ext0", "up"],
    ] {
        gateway.ip(arguments).unwrap();
    }
    let before = gateway.tool("tc", &["qdisc", "show"]).unwrap();
    gateway
        .enter(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::open().unwrap();
                let site = Site {
                    internal: netlink.link("int0").await.unwrap(),
                    external: netlink.link("ext0").await.unwrap(),
                    internal_address: Ipv4Addr::new(10, 0, 0, 1),
                    internal_mtu: 1500,
                    pool: POOL.to_vec(),
                    remote_policy: policy,
                    tunnels: tunnels.to_vec(),
                };
                let object = std::fs::read(bpf::folder().join("rsip-gateway")).unwrap();
                let loaded = EbpfDatapath::load(&object, &site).unwrap();
                let mut datapath = loaded.attach(netlink, &site).await.unwrap();
                if tunnels.contains(&TunnelType::Gre) {
                    contract::check_tunnels(&mut datapath, POOL[0]);
                } else {
                    contract::check(&mut datapath, &POOL, policy);
                }
                let stats = datapath.stats().unwrap();
                assert_eq!(stats.inward_packets + stats.outward_packets, 0, "{stats:?}");
                datapath.close().await.unwrap();
            });
        })
        .unwrap();
    assert_eq!(gateway.tool("tc", &["qdisc", "show"]).unwrap(), before, "left behind");
    drop(gateway);
    drop(names);
}

#[test]
fn keeps_the_contract_without_a_remote_policy() {
    check(RemotePolicy::None, &[TunnelType::IpIp]);
}

#[test]
fn keeps_the_contract_under_remote_macro() {
    check(RemotePolicy::Macro, &[TunnelType::IpIp]);
}

#[test]
fn keeps_the_contract_under_remote_micro() {
    check(RemotePolicy::Micro, &[TunnelType::IpIp]);
}

#[test]
fn keeps_the_contract_with_tunnels_of_both_types() {
    check(RemotePolicy::None, &[TunnelType::IpIp, TunnelType::Gre]);
}
