//! The demonstration: an unmodified Apache on a private host gets port 80 of the gateway. `cargo xtask demo` builds
//! what it needs and runs it.

mod report;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, Lab, Result, binaries, interrupt, topology};

/// The lab's name: its namespaces are `rsip-demo-…`.
const ID: &str = "demo";

/// Shows the whole path on this machine, in network namespaces: gateway, agents, unmodified servers and clients.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// Leave the lab up at the end, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Only remove a lab that `--keep` has left.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = if cli.clean { clean() } else { demonstrate(cli.keep) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn clean() -> Result<bool> {
    match topology::remove(ID)? {
        0 => println!("There is no lab of the demo."),
        count => println!("The lab is gone: {count} network namespaces with everything in them."),
    }
    Ok(true)
}

fn demonstrate(keep: bool) -> Result<bool> {
    let start = Instant::now();
    interrupt::clean_up_at_the_end(ID)?;
    println!("{PICTURE}");
    let lab = Lab::with_id(ID)?;
    let mut system = System::in_lab(lab, Options::default())?;
    let outcome = steps::run(&mut system, keep);
    let seconds = start.elapsed().as_secs_f32();
    if let Err(error) = outcome {
        println!("\n{error}\n\nThe last lines of the logs:\n{}", system.lab.log_tails(25));
        println!("The demo FAILED after {seconds:.1} s. The lab is being removed.");
        return Ok(false);
    }
    if keep {
        system.keep();
        println!("\nAll steps held, in {seconds:.1} s. The lab stays up.\n\n{}", guide(&system.lab)?);
    } else {
        println!("\nAll steps held, in {seconds:.1} s.");
    }
    Ok(true)
}

const PICTURE: &str = "
  internet host          gateway (rsipd)                 private hosts (rsip-client)
  198.51.100.2 --------- 198.51.100.1 | 10.77.0.1 ---+--- host-a 10.77.0.2
                                                     +--- host-b 10.77.0.3
";

/// How to look around in a lab that stays.
fn guide(lab: &Lab) -> Result<String> {
    let inside = |name: &str| format!("ip netns exec {name}");
    let internet = inside(lab.internet.name());
    let gateway = inside(lab.gateway.name());
    let [a, b] = Host::ALL.map(|host| inside(lab.host(host).name()));
    let client = binaries::under_test("rsip-client")?;
    let ctl = binaries::under_test("rsipdctl")?;
    Ok(format!(
        "\
Enter a host (as root):
  {internet} bash        # {INTERNET}
  {gateway} bash         # {PUBLIC} and {GATEWAY}
  {a} bash
  {b} bash
Try:
  {internet} curl http://{PUBLIC}/                      # host-b's Apache
  {a} python3 -m http.server 8000              # its bind asks for port 8000 …
  {internet} curl http://{PUBLIC}:8000/                 # … and the internet reaches it
  {b} python3 -m http.server 8000              # Address already in use: host-a has it
  {a} curl http://{INTERNET}/                  # seen there as {PUBLIC} with a port of host-a's lease
  {a} {client} status
  {gateway} {ctl} dump
Logs and configuration are in {folder}
Remove it:  cargo xtask demo --clean",
        client = client.display(),
        ctl = ctl.display(),
        folder = lab.folder().display(),
    ))
}
