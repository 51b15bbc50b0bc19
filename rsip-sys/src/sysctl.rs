//! Network sysctls of the calling thread's network namespace, under `/proc/sys/net`.

use std::os::unix::fs::FileExt as _;
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

/// A set of all ports, as long as it can be written.
const LONGEST: usize = 512 * 1024;

/// Reads a sysctl, for example `net.ipv4.ip_local_port_range`; the final line break is taken off.
///
/// # Errors
///
/// It does not exist here, or may not be read.
pub fn read(name: &str) -> Result<String, SysctlError> {
    let failed = |source| SysctlError { action: "read", name: name.to_owned(), source };
    // In one call: of a set of numbers the kernel gives what fits into the first one, and nothing more to others.
    let mut buffer = vec![0; LONGEST];
    let length = fs::File::open(path(name)).and_then(|file| file.read_at(&mut buffer, 0)).map_err(failed)?;
    buffer.truncate(length);
    let value = String::from_utf8(buffer).map_err(|error| failed(io::Error::other(error)))?;
    Ok(value.trim_end().to_owned())
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

/// Adds to a sysctl that is a set of numbers (`net.ipv4.ip_local_reserved_ports`): the kernel replaces such a set where a
/// file is written from its beginning, and joins to it what is written behind that. One write call takes no more than a
/// page less one byte.
///
/// # Errors
///
/// It does not exist here, may not be written, or the kernel does not take the value.
pub fn add(name: &str, value: &str) -> Result<(), SysctlError> {
    let file = fs::OpenOptions::new().write(true).open(path(name));
    file.and_then(|file| file.write_all_at(format!("{value}\n").as_bytes(), 1))
        .map_err(|source| SysctlError { action: "write", name: name.to_owned(), source })
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
            add(name, "1003,3000").expect("writable");
            assert_eq!(read(name).expect("readable"), "1000-1003,2000,3000");
            let long: Vec<String> = (1..60).map(|nth| (nth * 1000).to_string()).collect();
            write(name, &long.join(",")).expect("writable");
            assert_eq!(read(name).expect("readable"), long.join(","), "all of it");
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
