//! The table in docs/SOCKETS.md: ways of opening a socket, by kernel and way of waiting, as the tests saw them. Tests add
//! lines to a file; a run is held against the table that is committed, or writes it.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::list::{Kernel, List};
use crate::{exec, workspace::Workspace};

/// Names the folder for the lines to the tests.
pub(crate) const FOLDER: &str = "RSIP_TABLE_DIR";

/// The page, from the work tree's root, and what stands around the table in it.
const PAGE: &str = "docs/SOCKETS.md";
const BEGIN: &str = "<!-- socket ways: begin -->\n";
const END: &str = "<!-- socket ways: end -->";

const FIRST_COLUMN: &str = "way";
/// Stands between the ways of waiting whose columns are one.
const AND: &str = ", ";

/// What the tests say of a way that does not do what it should.
const FAILED: &str = "FAILED";

/// A line of the tests: way, kernel, mode, outcome, with tabs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    way: String,
    /// `6.12 poll`.
    column: String,
    outcome: String,
}

/// Where the tests outside virtual machines add their lines.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/table")
}

/// Takes away what an earlier run has left.
pub(crate) fn forget(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The lines of the tests that ran outside virtual machines.
pub(crate) fn native(workspace: &Workspace) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let folder = folder(workspace);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        rows.extend(parse(&text));
    }
    Ok(rows)
}

/// Reads lines of the tests; others are passed over.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    let rows = text.lines().filter_map(|line| {
        let [way, kernel, mode, outcome] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
        let column = format!("{kernel} {mode}");
        Some(Row { way: way.to_owned(), column, outcome: outcome.to_owned() })
    });
    rows.collect()
}

/// The table: ways in the order of the tests, columns in the order of kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Table {
    ways: Vec<String>,
    /// By column, then by way.
    columns: BTreeMap<Column, BTreeMap<String, String>>,
}

/// Ordered by the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    kernel: Vec<u32>,
    name: String,
}

impl Column {
    fn new(name: &str) -> Self {
        let kernel = name.split(' ').next().unwrap_or_default();
        let kernel = kernel.split('.').map(|number| number.parse().unwrap_or(0)).collect();
        Self { kernel, name: name.to_owned() }
    }
}

impl Table {
    fn of(rows: &[Row]) -> Self {
        let mut table = Self::default();
        for row in rows {
            if !table.ways.contains(&row.way) {
                table.ways.push(row.way.clone());
            }
            let column = table.columns.entry(Column::new(&row.column)).or_default();
            column.insert(row.way.clone(), row.outcome.clone());
        }
        table
    }

    fn read(text: &str) -> Self {
        let cells = |line: &str| -> Vec<String> {
            let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
            inside.split(" | ").map(|cell| cell.trim().to_owned()).collect()
        };
        let mut lines = text.lines().filter(|line| line.starts_with('|'));
        let header = lines.next().map(cells).unwrap_or_default();
        let mut rows = Vec::new();
        for line in lines.skip(1) {
            let cells = cells(line);
            let Some((way, outcomes)) = cells.split_first() else { continue };
            for (columns, outcome) in header.iter().skip(1).zip(outcomes) {
                if outcome.is_empty() {
                    continue;
                }
                // `6.12 park (fexit), poll`
                let (kernel, modes) = columns.split_once(' ').unwrap_or((columns, ""));
                rows.extend(modes.split(AND).map(|mode| Row {
                    way: way.clone(),
                    column: format!("{kernel} {mode}"),
                    outcome: outcome.clone(),
                }));
            }
        }
        Self::of(&rows)
    }

    fn text(&self) -> String {
        let line = |first: &str, cells: &mut dyn Iterator<Item = &str>| {
            cells.fold(format!("| {first} |"), |line, cell| format!("{line} {cell} |")) + "\n"
        };
        let groups = self.groups();
        let mut text = line(FIRST_COLUMN, &mut groups.iter().map(|(name, _)| name.as_str()));
        text += &line("---", &mut groups.iter().map(|_| "---"));
        for way in &self.ways {
            let outcome =
                |outcomes: &BTreeMap<String, String>| outcomes.get(way).cloned().unwrap_or_default();
            let outcomes: Vec<String> = groups.iter().map(|(_, outcomes)| outcome(outcomes)).collect();
            text += &line(way, &mut outcomes.iter().map(String::as_str));
        }
        text
    }

    /// A kernel's columns that say the same are shown as one.
    fn groups(&self) -> Vec<(String, &BTreeMap<String, String>)> {
        let mut groups: Vec<(&Column, String, &BTreeMap<String, String>)> = Vec::new();
        for (column, outcomes) in &self.columns {
            let same = groups
                .iter_mut()
                .find(|(first, _, known)| first.kernel == column.kernel && *known == outcomes);
            match (same, column.name.split_once(' ')) {
                (Some((_, name, _)), Some((_, mode))) => *name += &format!("{AND}{mode}"),
                _ => groups.push((column, column.name.clone(), outcomes)),
            }
        }
        groups.into_iter().map(|(_, name, outcomes)| (name, outcomes)).collect()
    }

    /// Takes out columns in which something failed, and gives their names.
    fn without_failures(mut self) -> (Self, Vec<String>) {
        let mut failed = Vec::new();
        self.columns.retain(|column, outcomes| {
            let good = outcomes.values().all(|outcome| outcome != FAILED);
            if !good {
                failed.push(column.name.clone());
            }
            good
        });
        (self, failed)
    }

    /// Takes over the columns of `seen`; others stay, but for ways that are no more.
    fn update(self, seen: Self) -> Self {
        let mut columns = self.columns;
        columns.extend(seen.columns);
        Self { ways: seen.ways, columns }
    }

    /// What `seen` has otherwise. A kernel without any column here is only mentioned, unless it is `required`.
    fn differences(&self, seen: &Self, required: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut differences = Vec::new();
        for (column, outcomes) in &seen.columns {
            let Some(known) = self.columns.get(column) else {
                let kernel = column.name.split(' ').next().unwrap_or_default();
                let other_modes = self.columns.keys().any(|known| known.kernel == column.kernel);
                if required(kernel) && !other_modes {
                    differences.push(format!("no column {}", column.name));
                } else {
                    exec::say(&format!("{PAGE} says nothing of {}", column.name));
                }
                continue;
            };
            for way in outcomes.keys().chain(known.keys().filter(|way| !outcomes.contains_key(*way))) {
                let word = |from: &BTreeMap<String, String>| {
                    from.get(way).map_or_else(|| "nothing".to_owned(), |outcome| format!("{outcome:?}"))
                };
                if outcomes.get(way) != known.get(way) {
                    let (seen, known) = (word(outcomes), word(known));
                    differences.push(format!("{}, {way}: {seen}, and the page has {known}", column.name));
                }
            }
        }
        differences
    }
}

/// The page up to the table, the table, and the rest.
fn page(workspace: &Workspace) -> Result<(String, String, String)> {
    let path = workspace.root().join(PAGE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (table, after) = rest.split_once(END)?;
        Some((format!("{before}{BEGIN}"), table.to_owned(), format!("{END}{after}")))
    });
    parts.with_context(|| format!("{PAGE} has no place for the table ({})", BEGIN.trim()))
}

/// Holds what the tests saw against the page.
pub(crate) fn check(workspace: &Workspace, rows: &[Row]) -> Result<()> {
    let list = List::read(workspace)?;
    let tested = |kernel: &Kernel| kernel.test.then(|| kernel.name.clone());
    let tested: Vec<String> = list.kernels.iter().filter_map(tested).collect();
    let required = |kernel: &str| tested.iter().any(|name| name == kernel);
    let (_, known, _) = page(workspace)?;
    let differences = Table::read(&known).differences(&Table::of(rows), &required);
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "sockets behave otherwise than {PAGE} says:\n    {}\nwhere that is as it should be, `cargo xtask vm \
         --write-table` writes it",
        differences.join("\n    ")
    )
}

/// Writes what the tests saw into the page. Where something failed the page keeps what it had, which is an error.
pub(crate) fn write(workspace: &Workspace, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        bail!("no test has said how sockets behave");
    }
    let (before, known, after) = page(workspace)?;
    let (seen, failed) = Table::of(rows).without_failures();
    let table = Table::read(&known).update(seen);
    let path = workspace.root().join(PAGE);
    fs::write(&path, before + &table.text() + &after)
        .with_context(|| format!("cannot write {}", path.display()))?;
    if failed.is_empty() {
        exec::say(&format!("{PAGE} has what the tests saw"));
        return Ok(());
    }
    bail!("{PAGE} has what the tests saw, but for columns in which one failed: {}", failed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "bind(0)\t6.12\tpoll\tfrom the block\nTCP\t6.12\tpoll\tleased\n\
                        bind(0)\t6.1\tpark (fexit)\tfrom the block\nTCP\t6.1\tpark (fexit)\tEINVAL\nnot a line\n";

    fn never(_: &str) -> bool {
        false
    }

    #[test]
    fn writes_what_it_reads() {
        let table = Table::of(&parse(SEEN));
        let text = "| way | 6.1 park (fexit) | 6.12 poll |\n| --- | --- | --- |\n\
                    | bind(0) | from the block | from the block |\n| TCP | EINVAL | leased |\n";
        assert_eq!(table.text(), text);
        assert_eq!(Table::read(text), table);
        assert_eq!(Table::read("\n"), Table::default());
    }

    #[test]
    fn ways_of_waiting_that_say_the_same_share_a_column() {
        let same = SEEN.replace("6.12", "6.1").replace("EINVAL", "leased");
        let more = "TCP\t6.12\tpoll\tleased\nbind(0)\t6.12\tpoll\tfrom the block\n";
        let table = Table::of(&parse(&(same + more)));
        let text = "| way | 6.1 park (fexit), poll | 6.12 poll |\n| --- | --- | --- |\n\
                    | bind(0) | from the block | from the block |\n| TCP | leased | leased |\n";
        assert_eq!(table.text(), text);
        assert_eq!(Table::read(text), table);
    }

    #[test]
    fn a_column_in_which_something_failed_is_not_written() {
        let (table, failed) = Table::of(&parse(&SEEN.replace("EINVAL", FAILED))).without_failures();
        assert_eq!(failed, ["6.1 park (fexit)"]);
        assert!(table.text().starts_with("| way | 6.12 poll |\n"), "{}", table.text());
    }

    #[test]
    fn names_every_difference() {
        let known = Table::of(&parse(SEEN));
        assert!(known.differences(&known, &never).is_empty());
        let seen = parse("TCP\t6.1\tpark (fexit)\tleased\nUDP\t6.1\tpark (fexit)\tleased\n");
        assert_eq!(
            known.differences(&Table::of(&seen), &never),
            [
                "6.1 park (fexit), TCP: \"leased\", and the page has \"EINVAL\"",
                "6.1 park (fexit), UDP: \"leased\", and the page has nothing",
                "6.1 park (fexit), bind(0): nothing, and the page has \"from the block\"",
            ]
        );
    }

    #[test]
    fn a_kernel_that_every_run_has_needs_its_column() {
        let seen = Table::of(&parse("TCP\t6.18\tpoll\tleased\n"));
        assert!(Table::default().differences(&seen, &never).is_empty());
        let differences = Table::default().differences(&seen, &|kernel| kernel == "6.18");
        assert_eq!(differences, ["no column 6.18 poll"]);
    }

    #[test]
    fn takes_over_what_was_seen_and_keeps_other_kernels() {
        let known = Table::of(&parse(SEEN));
        let seen = Table::of(&parse("TCP\t6.1\tpark (fexit)\tleased\nUDP\t6.1\tpark (fexit)\tleased\n"));
        let text = "| way | 6.1 park (fexit) | 6.12 poll |\n| --- | --- | --- |\n\
                    | TCP | leased | leased |\n| UDP | leased |  |\n";
        assert_eq!(known.update(seen).text(), text);
    }
}
