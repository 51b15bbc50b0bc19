//! What agents have pinned for a host.

use std::fs;
use std::path::PathBuf;

use rsip_sys::bpffs::PinFolder;

use super::error::{IoContext, LabError, Result};
use super::netns::Inside;

/// Where agents pin.
const BASE: &str = "/sys/fs/bpf/rsip";

/// The folder of a host; it need not be there.
///
/// # Errors
/// Where the namespace has no cookie.
pub fn folder(inside: &Inside) -> Result<PathBuf> {
    Ok(PathBuf::from(BASE).join(cookie(inside)?.to_string()))
}

fn cookie(inside: &Inside) -> Result<u64> {
    inside.enter(rsip_sys::netns::cookie)?.map_err(|error| LabError::Unexpected {
        what: "cookie of the namespace".into(),
        expected: "one".into(),
        seen: error.to_string(),
    })
}

/// The names in it, sorted; none where it is not there.
///
/// # Errors
/// As [`folder`].
pub fn folders(inside: &Inside) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder(inside)?).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// The folder with the maps.
///
/// # Errors
/// Where there is none, or more than one.
pub fn maps(inside: &Inside) -> Result<PathBuf> {
    let names = folders(inside)?;
    let found: Vec<&String> = names.iter().filter(|name| name.starts_with("maps-")).collect();
    match found[..] {
        [name] => Ok(folder(inside)?.join(name)),
        _ => Err(LabError::Unexpected {
            what: "pinned maps".into(),
            expected: "one folder".into(),
            seen: format!("{names:?}"),
        }),
    }
}

/// The pinned links, sorted.
///
/// # Errors
/// Where there is no folder of them.
pub fn links(inside: &Inside) -> Result<Vec<PathBuf>> {
    let folder = folder(inside)?.join("links");
    let entries = fs::read_dir(&folder).cannot(|| format!("read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}

/// Removes all of it, as somebody would who does not know what it is.
///
/// # Errors
/// Where the file system refuses.
pub fn remove(inside: &Inside) -> Result<()> {
    let name = cookie(inside)?.to_string();
    match PinFolder::existing("rsip", &name).map(|folder| folder.remove()) {
        Some(Err(error)) => Err(std::io::Error::other(error)).cannot(|| format!("remove pins of {name}")),
        Some(Ok(())) | None => Ok(()),
    }
}
