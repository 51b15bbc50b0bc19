//! The rows, for people and for the docs.

use std::io::Write;

use super::stage::Outcome;

pub(crate) struct Table {
    mode: String,
    rows: Vec<(&'static str, Result<Outcome, String>)>,
}

impl Table {
    pub(crate) fn new(mode: &str) -> Self {
        Self { mode: mode.to_owned(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, way: &'static str, outcome: Result<Outcome, String>) {
        match &outcome {
            Ok(outcome) => eprintln!("{way}: {outcome}"),
            Err(why) => eprintln!("{way}: FAILED: {why}"),
        }
        self.rows.push((way, outcome));
    }

    /// What came out in the end.
    pub(crate) fn fail(&mut self, way: &str, why: String) {
        eprintln!("{way}: FAILED in the end: {why}");
        if let Some((_, outcome)) = self.rows.iter_mut().find(|(name, _)| *name == way) {
            *outcome = Err(why);
        }
    }

    /// Writes the rows where the environment says; gives what failed.
    pub(crate) fn finish(self) -> Vec<String> {
        if let Some(folder) = std::env::var_os("RSIP_TABLE_DIR") {
            let path = std::path::Path::new(&folder).join("socket_ways.tsv");
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| file.write_all(self.text().as_bytes()));
            written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let failed =
            |(way, outcome): (&str, Result<Outcome, String>)| Some(format!("{way}: {}", outcome.err()?));
        self.rows.into_iter().filter_map(failed).collect()
    }

    fn text(&self) -> String {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        let release = release.unwrap_or_default();
        let kernel: Vec<&str> = release.split(['.', '-']).take(2).collect();
        let kernel = kernel.join(".");
        let line = |(way, outcome): &(&str, Result<Outcome, String>)| {
            let outcome = outcome.as_ref().map_or_else(|_| "FAILED".to_owned(), ToString::to_string);
            format!("{way}\t{kernel}\t{}\t{outcome}\n", self.mode)
        };
        self.rows.iter().map(line).collect()
    }
}
