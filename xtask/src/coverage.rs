//! `docs/RFC3103-COVERAGE.md` against the tests: every requirement has a row, and every test that a row names exists
//! and has run.
//!
//! A row: `| R-063 | MUST | G | what is required | tests | remark |`. Tests stand in backticks, as
//! `package/target::path`; a row without one must have a remark that says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Where the rows are.
const PAGE: &str = "docs/RFC3103-COVERAGE.md";

/// What must have a row: prefix and how many.
const NUMBERED: [(&str, u32); 2] = [("R", 285), ("A", 43)];

/// Columns of a row.
const COLUMNS: usize = 6;

/// Checks the page. `ran` are the tests that passed, as `package/target::path`; `packages` says which packages' tests
/// have run: what is named of others is not looked at.
pub(crate) fn check(
    workspace: &Workspace,
    ran: &BTreeSet<String>,
    packages: impl Fn(&str) -> bool,
) -> Result<String> {
    let path = workspace.root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows = rows(&page);
    let mut wrong = gaps(&rows);
    let mut named = BTreeSet::new();
    for (id, row) in &rows {
        for test in &row.tests {
            let Some((package, _)) = test.split_once('/') else {
                wrong.push(format!("{id}: {test} is not of the form package/target::path"));
                continue;
            };
            if packages(package) && !ran.contains(test) {
                wrong.push(format!("{id}: no test {test} has run and passed"));
            }
            named.insert(test);
        }
    }
    if !wrong.is_empty() {
        bail!("{PAGE} does not hold:\n    {}", wrong.join("\n    "));
    }
    let shown = rows.values().filter(|row| !row.tests.is_empty()).count();
    Ok(format!("{} rows, {shown} of them shown by {} tests, the rest with a reason", rows.len(), named.len()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    times: usize,
    tests: Vec<String>,
    remark: String,
    whole: bool,
}

fn rows(page: &str) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let Some(id) = cells.first().filter(|id| is_id(id)) else { continue };
        let row = rows.entry((*id).to_owned()).or_default();
        row.times += 1;
        row.whole = cells.len() == COLUMNS;
        let tests = cells.get(COLUMNS - 2).copied().unwrap_or_default();
        // Every second piece is between backticks.
        row.tests.extend(tests.split('`').skip(1).step_by(2).map(str::to_owned));
        row.remark = cells.get(COLUMNS - 1).copied().unwrap_or_default().to_owned();
    }
    rows
}

/// `R-` or `A-` and a number.
fn is_id(text: &str) -> bool {
    NUMBERED.iter().any(|(prefix, _)| {
        let number = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// What is missing, there twice, or says nothing.
fn gaps(rows: &BTreeMap<String, Row>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = BTreeSet::new();
    for (prefix, count) in NUMBERED {
        let width = if prefix == "R" { 3 } else { 2 };
        for number in 1..=count {
            let id = format!("{prefix}-{number:0width$}");
            match rows.get(&id) {
                None => wrong.push(format!("{id} has no row")),
                Some(row) if row.times > 1 => wrong.push(format!("{id} has {} rows", row.times)),
                Some(row) if !row.whole => wrong.push(format!("{id} has not {COLUMNS} columns")),
                Some(row) if row.tests.is_empty() && row.remark.is_empty() => {
                    wrong.push(format!("{id} names neither a test nor a reason"));
                }
                Some(_) => {}
            }
            expected.insert(id);
        }
    }
    wrong
        .extend(rows.keys().filter(|id| !expected.contains(*id)).map(|id| format!("{id} is no requirement")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page in which every row gives a reason.
    fn page() -> String {
        let row = |id: String| format!("| {id} | MUST | G | something | | not built: see there |\n");
        let rows = (1..=285).map(|n| row(format!("R-{n:03}")));
        rows.chain((1..=43).map(|n| row(format!("A-{n:02}")))).collect()
    }

    fn judge(page: &str, ran: &[&str], packages: &[&str]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("docs")).unwrap();
        fs::write(dir.path().join(PAGE), page).unwrap();
        let ran = ran.iter().map(|test| (*test).to_owned()).collect();
        check(&Workspace::at(dir.path()), &ran, |package| packages.contains(&package))
    }

    fn with(cell: &str) -> String {
        page().replace(
            "| R-007 | MUST | G | something | | not built: see there |",
            &format!("| R-007 | MUST | G | something | {cell} | |"),
        )
    }

    #[test]
    fn is_content_with_reasons_and_with_tests_that_ran() {
        assert!(judge(&page(), &[], &[]).is_ok());
        let page = with("`a/lib::x`, `a/y::z`");
        let said = judge(&page, &["a/lib::x", "a/y::z"], &["a"]).unwrap();
        assert_eq!(said, "328 rows, 1 of them shown by 2 tests, the rest with a reason");
    }

    #[test]
    fn wants_every_named_test_to_have_run() {
        let page = with("`a/lib::x`, `b/y::z`");
        let error = judge(&page, &["a/lib::x"], &["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("R-007: no test b/y::z has run") && !error.contains("a/lib::x"), "{error}");
        assert!(judge(&page, &["a/lib::x"], &["a"]).is_ok(), "b's tests were not asked for");
        assert!(judge(&with("`x`"), &[], &[]).is_err());
    }

    #[test]
    fn wants_a_row_for_every_requirement_and_a_word_in_every_row() {
        for (from, to) in [
            ("| R-285 |", "| R-286 |"),
            ("| A-43 |", "| A-42 |"),
            ("| R-001 | MUST", "| R-001 | more | MUST"),
            (
                "| R-100 | MUST | G | something | | not built: see there |",
                "| R-100 | MUST | G | something | | |",
            ),
        ] {
            let broken = page().replacen(from, to, 1);
            assert_ne!(broken, page());
            assert!(judge(&broken, &[], &[]).is_err(), "{to}");
        }
    }
}
