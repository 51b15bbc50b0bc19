//! Every input of the committed corpus, once through its target.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use rsip_fuzz::TARGETS;

/// The files of a target's corpus, in a fixed order.
fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn replay(name: &str) {
    let target = rsip_fuzz::find(name).unwrap();
    let files = corpus(name);
    assert!(files.len() >= 20, "{name}: a corpus of {} shows little", files.len());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let outcome = catch_unwind(|| (target.run)(&bytes));
        assert!(outcome.is_ok(), "{name}: {} brings it down: see above", file.display());
    }
}

#[test]
fn codec() {
    replay("codec");
}

#[test]
fn framer() {
    replay("framer");
}

#[test]
fn gateway() {
    replay("gateway");
}

#[test]
fn host() {
    replay("host");
}

#[test]
fn slp() {
    replay("slp");
}

#[test]
fn every_target_has_its_corpus_and_its_test() {
    let source = include_str!("replay.rs");
    for target in TARGETS {
        assert!(source.contains(&format!("replay(\"{}\");", target.name)), "{} is not replayed", target.name);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for folder in fs::read_dir(root).unwrap() {
        let name = folder.unwrap().file_name();
        assert!(rsip_fuzz::find(&name.to_string_lossy()).is_some(), "{name:?} is the corpus of no target");
    }
}

#[test]
fn nonsense_goes_through_every_target() {
    for target in TARGETS {
        for length in [0, 1, 2, 3, 7, 64, 500] {
            for byte in [0, 1, 0x55, 0xff] {
                (target.run)(&vec![byte; length]);
            }
        }
    }
}
