//! What the kernel itself says about our attachments, so that the status proves them.

use std::collections::BTreeMap;
use std::fs;

/// Cgroup links held by this process: link ID to the ID of the cgroup that it is attached to; 0: the cgroup is gone, and
/// the link serves nothing any more.
pub(super) fn cgroups() -> BTreeMap<u32, u64> {
    let Ok(entries) = fs::read_dir("/proc/self/fdinfo") else { return BTreeMap::new() };
    entries.filter_map(|entry| parse(&fs::read_to_string(entry.ok()?.path()).ok()?)).collect()
}

/// "link_type: cgroup", "link_id: 7", "cgroup_id: 1", one a line, in the kernel's fdinfo of a link.
fn parse(fdinfo: &str) -> Option<(u32, u64)> {
    let value =
        |key: &str| fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim));
    (value("link_type")? == "cgroup").then_some(())?;
    Some((value("link_id")?.parse().ok()?, value("cgroup_id")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cgroup_links_only() {
        let text = "pos:\t0\nflags:\t02000000\nmnt_id:\t16\nino:\t9\nlink_type:\tcgroup\nlink_id:\t7\n\
            prog_tag:\tdeadbeef\nprog_id:\t12\ncgroup_id:\t1\nattach_type:\t8\n";
        assert_eq!(parse(text), Some((7, 1)));
        assert_eq!(parse(&text.replace("cgroup\n", "tcx\n")), None);
        assert_eq!(parse("pos:\t0\n"), None);
    }
}
