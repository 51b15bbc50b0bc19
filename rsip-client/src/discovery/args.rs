//! The part of the command line that is about finding gateways.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Args;
use rsip_slp::text::ScopeList;

/// How gateways are looked for.
#[derive(Clone, Debug, Args)]
pub struct Search {
    /// Look for gateways of these SLP scopes.
    #[arg(long, value_name = "SCOPE[,SCOPE]", default_value = "DEFAULT", value_parser = parse_scopes)]
    pub scope: ScopeList,
    /// Ask this SLP directory agent. May be given several times [default: those that are found, else the gateways themselves]
    #[arg(long, value_name = "ADDR", value_parser = parse_da)]
    pub da: Vec<Ipv4Addr>,
}

/// `rsip-client discover`.
#[derive(Clone, Debug, Args)]
pub struct Discover {
    /// Look on this interface only [default: all that can multicast]
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Which gateways, and whom to ask.
    #[command(flatten)]
    pub search: Search,
    /// Look no longer than so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = parse_timeout)]
    pub timeout: Duration,
    /// Print data instead of a line for each gateway.
    #[arg(long)]
    pub json: bool,
}

fn parse_scopes(text: &str) -> Result<ScopeList, String> {
    ScopeList::from_names(text.split(',')).map_err(|_| "a scope is empty".to_owned())
}

fn parse_da(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| "not an IPv4 address".to_owned())?;
    if !crate::cli::is_one_machine(address) {
        return Err(format!("{address} is not the address of one machine"));
    }
    Ok(address)
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a number of seconds from 1 to 3600");
    let seconds: f64 = text.parse().map_err(|_| bad())?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| range.contains(timeout)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scopes_addresses_and_times() {
        let scopes = parse_scopes("A, building (7)").map(|scopes| scopes.to_string());
        assert_eq!(scopes, Ok("A,building \\287\\29".to_owned()));
        for bad in ["", "A,,B", "A, "] {
            assert!(parse_scopes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_da("10.0.0.9"), Ok(Ipv4Addr::new(10, 0, 0, 9)));
        for bad in ["", "da.example", "0.0.0.0", "239.255.255.253", "10.0.0.9:427"] {
            assert!(parse_da(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_timeout("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["0", "-1", "x", "NaN", "3601"] {
            assert!(parse_timeout(bad).is_err(), "{bad}");
        }
    }
}
