//! The kernel's NFS server in the network of host-b. It is told everything by its files: what it serves stands in its caches
//! before anybody asks, so that no daemon has to answer for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rsip_lab::lab::Host;
use rsip_lab::lab::exec;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::System;

use super::Server;

/// Starts it: where its files go, what it serves, to whom. A root without ways up (fsid=0, no_subtree_check), the clients' root
/// is root, and they come from privileged ports, as the kernel's client does. A kernel that still waits for clients of before is
/// told that there are none.
const START: &str = r#"
mount -t nfsd nfsd "$1"
for version in -2 -3 +4 +4.0 +4.1 +4.2; do echo $version > "$1/versions" || true; done
echo "nfsd $3 2147483647 lab" > /proc/net/rpc/auth.unix.ip/channel
echo "lab $2 2147483647 9216 65534 65534 0" > /proc/net/rpc/nfsd.export/channel
echo "lab 1 \\x00000000 2147483647 $2" > /proc/net/rpc/nfsd.fh/channel
echo 10 > "$1/nfsv4gracetime"
echo 2 > "$1/threads"
echo Y > "$1/v4_end_grace" || true
"#;

/// A running server.
pub(crate) struct Nfs {
    control: PathBuf,
    files: PathBuf,
    version: &'static str,
}

impl Nfs {
    pub(crate) fn start(system: &System, version: &'static str) -> Self {
        exec::run(Command::new("modprobe").arg("nfsd"), exec::SHORT).unwrap().success().unwrap();
        let folder = system.lab.folder();
        let server = Self { control: folder.join("nfsd"), files: folder.join("served"), version };
        for folder in [&server.control, &server.files] {
            fs::create_dir(folder).unwrap();
        }
        // The machine's own file system may be one that cannot be served.
        let nothing = None::<&str>;
        mount(Some("served"), &server.files, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        // Its first start asks for a helper program in vain.
        let mut command = system.lab.host(Host::B).command("sh");
        command.args(["-euc", START, "sh"]).args([&server.control, &server.files]);
        command.arg(Host::A.address().to_string());
        exec::run(&mut command, exec::SHORT).unwrap().success().unwrap();
        server
    }
}

impl Server for Nfs {
    const PORT: u16 = 2049;

    fn offer(&self, name: &str, text: &str) {
        fs::write(self.files.join(name), text).unwrap();
    }

    fn mount(&self, host: &Inside, at: &Path) -> Command {
        let (client, server) = (Host::A.address(), Host::B.address());
        let options = format!("vers={},addr={server},clientaddr={client},sec=sys", self.version);
        let mut command = host.command("mount");
        // Without the helper program, which would look the server up with sockets of its own.
        command.args(["-i", "-t", "nfs4", "-o", &options, &format!("{server}:/")]).arg(at);
        command
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        let ended = fs::write(self.control.join("threads"), "0\n");
        let unmounted = [&self.control, &self.files].map(|folder| umount2(folder, MntFlags::MNT_DETACH));
        if ended.is_err() || unmounted.iter().any(Result::is_err) {
            eprintln!("the NFS server does not go: {ended:?}, {unmounted:?}");
        }
    }
}
