//! Network sysctls of the calling thread's network namespace, under `/proc/sys/net`.

use std::path::PathBuf;
use std::{fs, io};

/// A sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} sysctl {name}: {source}")]
pub struct SysctlError {
    action: &'static str,
    name: String,
    source: io::Error,
}

/// Reads a sysctl, for example `net.ipv4.ip_local_port_range`; the final line break is taken off.
///
/// # Errors
///
/// It does not exist here, or may not be read.
pub fn read(name: &str) -> Result<String, SysctlError> {
    fs::read_to_string(path(name)).map(|value| value.trim_end().to_owned()).map_err(|source| SysctlError {
        action: "read",
        name: name.to_owned(),
        source,
    })
}

/// Writes a sysctl.
///
/// # Errors
///
/// It does not exist here, may not be written, or the kernel does not take the value.
pub fn write(name: &str, value: &str) -> Result<(), SysctlError> {
    // One write call with a line break: an empty value must still be a write of something, or the kernel sees nothing.
    fs::write(path(name), format!("{value}\n")).map_err(|source| SysctlError {
        action: "write",
        name: name.to_owned(),
        source,
    })
}

/// Dots separate, and a slash stands for a dot inside a part (an interface named `eth0.5`), as `sysctl` has it.
fn path(name: &str) -> PathBuf {
    let relative: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    PathBuf::from("/proc/sys").join(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_names_a_dot() {
        assert_eq!(
            path("net.ipv4.conf.eth0/5.rp_filter"),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }

    #[test]
    fn writes_only_the_own_namespace() {
        let name = "net.ipv4.ip_local_reserved_ports";
        let before = read(name).expect("readable");
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            write(name, "1000-1002,2000").expect("writable");
            assert_eq!(read(name).expect("readable"), "1000-1002,2000");
            write(name, "").expect("an empty list is a value");
            assert_eq!(read(name).expect("readable"), "");
        })
        .join()
        .expect("the thread ends");
        assert_eq!(read(name).expect("readable"), before);
    }

    #[test]
    fn names_what_is_missing() {
        let error = read("net.ipv4.no_such_thing").expect_err("does not exist");
        assert!(error.to_string().starts_with("cannot read sysctl net.ipv4.no_such_thing: "));
    }
}
