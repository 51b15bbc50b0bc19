use super::*;

const DEB822: &str = "Types: deb\n# a remark\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /keys/debian.gpg\n\nTypes: deb\nURIs: http://mirror.example/sec\n\
                      Suites: bookworm-security\nComponents: main\n";

fn uris(mirrors: &[Mirror]) -> Vec<&str> {
    mirrors.iter().map(|mirror| mirror.uri.as_str()).collect()
}

#[test]
fn finds_the_mirror_in_deb822_sources() {
    let found = mirrors(&parse_deb822(DEB822));
    assert_eq!(uris(&found), ["http://mirror.example/debian", DEFAULT_MIRROR]);
    assert_eq!(found[0].trust, [("Signed-By".to_owned(), "/keys/debian.gpg".to_owned())]);
}

#[test]
fn finds_the_mirror_in_one_line_sources() {
    let text = "# deb http://old.example/debian bookworm main\n\
                deb cdrom:[Debian]/ bookworm main\n\
                deb-src http://src.example/debian bookworm main\n\
                deb [arch=amd64 signed-by=/keys/a.gpg trusted=yes] http://one.example/debian trixie main contrib\n\
                deb http://two.example/debian/ stable main # why\n\
                deb https://other.example/node nodistro main\n";
    let found = mirrors(&parse_one_line(text));
    assert_eq!(uris(&found), ["http://one.example/debian", "http://two.example/debian/", DEFAULT_MIRROR]);
    assert_eq!(
        found[0].trust,
        [("Signed-By".to_owned(), "/keys/a.gpg".to_owned()), ("Trusted".to_owned(), "yes".to_owned())]
    );
    assert_eq!(found[1].trust, []);
}

#[test]
fn falls_back_on_debian_itself() {
    assert_eq!(uris(&mirrors(&[])), [DEFAULT_MIRROR]);
    let text = "deb http://archive.example/ubuntu noble main universe\n";
    assert_eq!(uris(&mirrors(&parse_one_line(text))), [DEFAULT_MIRROR]);
}

#[test]
fn names_debian_itself_once() {
    let text = "deb http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian sid main\n";
    assert_eq!(uris(&mirrors(&parse_one_line(text))), [DEFAULT_MIRROR]);
}

#[test]
fn leaves_out_disabled_sources() {
    let text = format!("Enabled: no\n{DEB822}");
    assert_eq!(uris(&mirrors(&parse_deb822(&text))), [DEFAULT_MIRROR]);
}

#[test]
fn finds_the_mirror_of_security_updates() {
    let found = security_mirrors(&parse_deb822(DEB822));
    let beside = format!("{DEFAULT_MIRROR}-security");
    assert_eq!(
        uris(&found),
        ["http://mirror.example/sec", "http://mirror.example/debian-security", beside.as_str()]
    );
    assert_eq!(found[0].trust, []);
    assert_eq!(found[1].trust, [("Signed-By".to_owned(), "/keys/debian.gpg".to_owned())]);
}

#[test]
fn keeps_a_key_that_stands_in_the_source() {
    let text = "Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\nSigned-By:\n \
                -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGPL0BU\n";
    let found = mirrors(&parse_deb822(text));
    let written = stanza(&found[0], "trixie-backports");
    assert!(
        written.ends_with("Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGPL0BU\n"),
        "{written}"
    );
    assert!(written.contains("URIs: http://m.example/debian\nSuites: trixie-backports\n"), "{written}");
}

#[test]
fn takes_exactly_the_compilers_version() {
    let madison = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://m.example/debian trixie-backports/main amd64 Packages\n\
                   \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://m.example/debian trixie-backports/main amd64 Packages\n\
                   \x20 rust-src | 1.9.0-1 | http://m.example/debian trixie-backports/main amd64 Packages\n";
    assert_eq!(pick_version(madison, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
    assert_eq!(pick_version(madison, "1.9.0").as_deref(), Some("1.9.0-1"));
    assert_eq!(pick_version(madison, "1.95"), None);
    assert_eq!(pick_version(madison, "1.97.0-nightly"), None);
    assert_eq!(pick_version("", "1.95.0"), None);
}

#[test]
fn keeps_proxies_and_drops_hooks() {
    let machine = "APT::Update::Post-Invoke:: \"rm -rf /\";\nAcquire::http::Proxy \"http://proxy:3142\";\n\
                   Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";\nDir::State \"var/lib/apt\";\n";
    let own = configuration(machine, Path::new("/t/apt"));
    assert!(own.starts_with("Acquire::http::Proxy \"http://proxy:3142\";\n"), "{own}");
    assert!(!own.contains("Post-Invoke") && !own.contains("DEP-11") && !own.contains("var/lib"), "{own}");
    assert!(own.contains("Dir::State \"/t/apt/state\";\n"), "{own}");
}
