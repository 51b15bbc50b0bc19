//! The seven steps, each checked.

use std::net::SocketAddrV4;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::exec::Output;
use rsip_lab::lab::system::System;
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::{Host, LabError, Result, gateway, server};

use crate::report::Report;

/// The title of the page that Debian's Apache is shipped with.
const PAGE: &str = "Apache2 Debian Default Page";
/// Where host-b's Apache goes while host-a has port 80.
const ELSEWHERE: u16 = 8080;

/// Runs all steps; with `keep` the last one leaves everything up.
///
/// # Errors
/// The first thing that is not as it should be.
pub(crate) fn run(system: &mut System, keep: bool) -> Result<()> {
    let mut report = Report::new(7);
    bring_up(system, &mut report)?;
    let system = &mut *system;
    let [a, b] = [Apache::shipped(&system.lab, Host::A)?, Apache::shipped(&system.lab, Host::B)?];
    start_apache(system, &mut report, &a)?;
    fetch_from_outside(system, &mut report, &a)?;
    be_refused(system, &mut report, &b)?;
    fetch_from_inside(system, &mut report)?;
    hand_over(system, &mut report, &a, &b)?;
    if keep {
        report.step("everything stays up, as you wished");
        return report.part("a web server on the internet host, to be visited", || {
            Apache::on_the_internet(&system.lab)?.start()
        });
    }
    tear_down(system, &mut report, &b)
}

fn bring_up(system: &mut System, report: &mut Report) -> Result<()> {
    report.step("the gateway runs, and both hosts register");
    report.part("rsipd on the gateway", || system.start_gateway())?;
    for host in Host::ALL {
        let what = format!("rsip-client up on {}: registration, ephemeral ports, tunnel", host.name());
        report.part(&what, || system.start_agent(host))?;
    }
    report.part("each host holds a block of ports of its own", || {
        let state = gateway::state(&system.lab)?;
        let [a, b] = Host::ALL.map(|host| state.block(host));
        let apart = !a.is_empty() && !b.is_empty() && a.iter().all(|port| !b.contains(port));
        expect(apart, "the hosts' blocks of ports", "two, with no port in common", || {
            format!("{a:?} and {b:?}")
        })
    })?;
    report.show("rsip-client status                 (on host-a)", &system.status(Host::A)?);
    report.show("rsipdctl dump                      (on the gateway)", &system.dump()?);
    Ok(())
}

fn start_apache(system: &System, report: &mut Report, a: &Apache) -> Result<()> {
    report.step("Debian's Apache, as shipped, starts on host-a");
    report.part("apache2ctl start", || a.start())?;
    report.part("its bind of [::]:80 has leased port 80 of the gateway", || {
        let holder = gateway::state(&system.lab)?.holder(80);
        let right = holder == Some(Host::A.address());
        expect(right, "holder of port 80", "10.77.0.2", || format!("{holder:?}"))
    })?;
    let sockets = system.lab.host(Host::A).tool("ss", &["-ltn", "sport = :80"])?;
    report.show("ss -ltn sport = :80                (on host-a)", &sockets);
    Ok(())
}

fn fetch_from_outside(system: &System, report: &mut Report, a: &Apache) -> Result<()> {
    report.step("the internet reaches it at the gateway's public address");
    report.part("curl on the internet host fetches the page", || visit(system, 80))?;
    report.part("Apache's access log holds the internet host's own address", || seen_from_outside(a))?;
    report.show("tail -1 /var/log/apache2/access.log   (on host-a)", &last_line(&a.access_log()));
    Ok(())
}

fn be_refused(system: &System, report: &mut Report, b: &Apache) -> Result<()> {
    report.step("the port is taken, for other hosts too");
    let refused = report.part("Apache on host-b fails to start: Address already in use", || {
        let output = b.try_start()?;
        let words = said(&output);
        let right = output.code() != 0 && words.contains("Address already in use");
        expect(right, "start of Apache", "a failure: Address already in use", || words.clone())?;
        Ok(words)
    })?;
    report.show("apache2ctl start                   (on host-b)", &refused);
    let elsewhere = Apache::on_port(&system.lab, Host::B, ELSEWHERE)?;
    report.part(&format!("with port {ELSEWHERE} in its configuration it starts"), || elsewhere.start())?;
    report.part("curl on the internet host fetches the page there", || visit(system, ELSEWHERE))?;
    report.part("its log holds the internet host's own address", || seen_from_outside(&elsewhere))?;
    report.show("rsipdctl dump                      (on the gateway)", &system.dump()?);
    elsewhere.stop()
}

fn fetch_from_inside(system: &System, report: &mut Report) -> Result<()> {
    report.step("host-a is a client of the internet");
    let web = Apache::on_the_internet(&system.lab)?;
    report.part("a web server starts on the internet host", || web.start())?;
    report.part("curl on host-a fetches its page", || {
        let page = server::page(system.lab.host(Host::A), SocketAddrV4::new(INTERNET, 80))?;
        expect(page.contains(PAGE), "the page", PAGE, || page.clone())
    })?;
    report.part("the server sees the public address, and a source port out of host-a's lease", || {
        let seen = web.client_of_request(1)?;
        let block = gateway::state(&system.lab)?.block(Host::A);
        let client = seen.parse::<SocketAddrV4>().ok();
        let right = client.is_some_and(|client| *client.ip() == PUBLIC && block.contains(&client.port()));
        let expected = format!("{PUBLIC} with a port of {block:?}");
        expect(right, "the client in the server's log", &expected, || seen.clone())
    })?;
    report
        .show("tail -1 /var/log/apache2/access.log   (on the internet host)", &last_line(&web.access_log()));
    web.stop()
}

fn hand_over(system: &System, report: &mut Report, a: &Apache, b: &Apache) -> Result<()> {
    report.step("the port moves to host-b");
    report.part("Apache on host-a stops", || a.stop())?;
    report.part("after the linger time the port is free at the gateway", || {
        system.gateway_sees_listening(Host::A, &[]).map(drop)
    })?;
    report.part("Apache on host-b starts, and holds port 80", || {
        b.start()?;
        system.gateway_sees_listening(Host::B, &[80]).map(drop)
    })?;
    report.part("curl on the internet host fetches the page", || visit(system, 80))?;
    report.part("host-b's log holds the internet host's own address", || seen_from_outside(b))?;
    report.show("rsip-client status                 (on host-b)", &system.status(Host::B)?);
    report.show("rsipdctl dump                      (on the gateway)", &system.dump()?);
    Ok(())
}

fn tear_down(system: &mut System, report: &mut Report, b: &Apache) -> Result<()> {
    report.step("everything is taken down");
    report.part("Apache on host-b stops", || b.stop())?;
    report.part("the agents and the gateway stop by themselves", || system.stop_all())?;
    report
        .part("addresses, routes, rules, firewall, settings, eBPF objects and folders are as before", || {
            system.expect_as_before()
        })
}

/// The internet host gets Apache's page at the gateway's public address.
fn visit(system: &System, port: u16) -> Result<()> {
    let page = server::page(&system.lab.internet, SocketAddrV4::new(PUBLIC, port))?;
    expect(page.contains(PAGE), "the page", PAGE, || page.clone())
}

fn seen_from_outside(apache: &Apache) -> Result<()> {
    let client = apache.client_of_request(1)?;
    expect(client == INTERNET.to_string(), "the client in Apache's log", &INTERNET.to_string(), || {
        client.clone()
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

fn last_line(log: &str) -> String {
    log.lines().last().unwrap_or_default().to_owned()
}

fn expect(right: bool, what: &str, expected: &str, seen: impl FnOnce() -> String) -> Result<()> {
    if right {
        return Ok(());
    }
    Err(LabError::Unexpected { what: what.to_owned(), expected: expected.to_owned(), seen: seen() })
}
