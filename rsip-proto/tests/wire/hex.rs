//! Vector files: bytes in hex with comments, and the line that a message prints as.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One vector file.
pub(crate) struct Vector {
    /// The message's bytes.
    pub(crate) bytes: Vec<u8>,
    /// The text after `>`.
    pub(crate) shown: String,
}

/// Bytes of a text: pairs of hex digits; a `#` begins a comment; blanks and `|` mean nothing.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|c| !c.is_whitespace() && *c != '|')
        .collect();
    assert_eq!(digits.len() % 2, 0, "half a byte in {text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex"))
        .collect()
}

/// All `*.hex` files of `tests/vectors/` and a folder in it, by file name without its ending.
pub(crate) fn folder(name: &str) -> BTreeMap<String, Vector> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let files =
        std::fs::read_dir(&folder).expect("the folder of vectors").map(|entry| entry.expect("entry").path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "hex"))
        .map(|path| read(&path))
        .collect()
}

fn read(path: &Path) -> (String, Vector) {
    let text = std::fs::read_to_string(path).expect("a vector file");
    let (shown, hex): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('>'));
    let shown =
        shown.first().and_then(|line| line.strip_prefix("> ")).expect("a line that begins with >").to_owned();
    let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
    (name, Vector { bytes: bytes(&hex.join("\n")), shown })
}
