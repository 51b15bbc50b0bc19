//! Vector files: bytes in hex; a `#` begins a comment.

use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a text: pairs of hex digits; blanks mean nothing.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|c| !c.is_whitespace())
        .collect();
    assert_eq!(digits.len() % 2, 0, "half a byte in {text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex"))
        .collect()
}

/// All files of `tests/vectors/`, by name without ending.
pub(crate) fn files() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let paths = std::fs::read_dir(folder).expect("the vectors").map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a vector file");
            (path.file_stem().expect("a name").to_string_lossy().into_owned(), bytes(&text))
        })
        .collect()
}
