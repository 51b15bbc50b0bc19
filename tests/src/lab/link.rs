//! Virtual cables between namespaces.

use super::error::Result;
use super::exec;
use super::netns::Inside;

/// One end of a cable: the namespace it is plugged into, and the interface's name there.
pub type End<'a> = (&'a Inside, &'a str);

/// Lays a cable (a veth pair) and switches both ends on. It goes when either namespace goes.
///
/// # Errors
/// Where `ip` refuses, for example because a name is taken.
pub fn cable(one: End<'_>, other: End<'_>) -> Result<()> {
    let [(one_ns, one_if), (other_ns, other_if)] = [one, other];
    #[rustfmt::skip]
    exec::tool("ip", &[
        "link", "add", one_if, "netns", one_ns.name(), "type", "veth",
        "peer", "name", other_if, "netns", other_ns.name(),
    ])?;
    for (namespace, interface) in [one, other] {
        namespace.ip(&["link", "set", "dev", interface, "up"])?;
    }
    Ok(())
}

/// Gives an interface an address, written with its prefix length.
///
/// # Errors
/// Where `ip` refuses.
pub fn address(end: End<'_>, address: &str) -> Result<()> {
    end.0.ip(&["address", "add", address, "dev", end.1])?;
    Ok(())
}

/// A switch (a bridge named `name`) with these interfaces of the same namespace as its ports.
///
/// # Errors
/// Where `ip` refuses.
pub fn switch(namespace: &Inside, name: &str, ports: &[&str]) -> Result<()> {
    namespace.ip(&["link", "add", name, "type", "bridge"])?;
    for port in ports {
        namespace.ip(&["link", "set", "dev", port, "master", name])?;
    }
    namespace.ip(&["link", "set", "dev", name, "up"])?;
    Ok(())
}
