//! Manual pages and shell completions of a program, from the definition of its command line.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub use clap_complete::Shell;

/// Section of the daemons and of what controls them.
const SECTION: &str = "8";
const MANUAL: &str = "System Administration";

/// Writes a page for the program and one for each of its sub-commands (`PROGRAM-COMMAND.8`) into a folder, which is made if
/// it is not there; hidden commands have none. Gives the files' names.
///
/// # Errors
///
/// What the file system says.
pub fn pages(command: &clap::Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let command = command.clone().disable_help_subcommand(true);
    let version = command.get_version().unwrap_or_default().to_owned();
    let program = command.get_name().to_owned();
    let mut written = vec![page(command.clone(), &program, &version, folder)?];
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{program}-{}", sub.get_name());
        let usage = format!("{program} {}", sub.get_name());
        let sub = sub.clone().display_name(name.clone()).bin_name(usage);
        written.push(page(sub, &name, &version, folder)?);
    }
    Ok(written)
}

fn page(command: clap::Command, name: &str, version: &str, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(format!("{name}.{SECTION}"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section(SECTION)
        .source(format!("RSIP {version}"))
        .manual(MANUAL)
        .render(&mut text)?;
    fs::write(&path, text)?;
    Ok(path)
}

/// Writes the page of a configuration file (`NAME.5`) from its sample, which explains every key.
///
/// # Errors
///
/// What the file system says.
pub fn file_page(name: &str, about: &str, sample: &str, folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.5"));
    let lines: Vec<String> = sample
        .lines()
        .map(|line| line.replace('\\', "\\e").replace('-', "\\-"))
        // A line that begins so would be a request to the formatter.
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line })
        .collect();
    let text = format!(
        ".TH {} 5 \"\" \"RSIP\" \"File Formats\"\n.SH NAME\n{name} \\- {about}\n.SH FILES\n/etc/rsip/{name}\n\
         .SH DESCRIPTION\nThis is the sample, with every key that there is:\n.PP\n.nf\n{}\n.fi\n",
        name.to_uppercase(),
        lines.join("\n")
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Writes the completions for a shell to standard output.
///
/// # Errors
///
/// Nobody reads.
pub fn completions(mut command: clap::Command, shell: Shell) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    io::stdout().write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_page_with_its_sample() {
        let folder = tempfile::tempdir().expect("a folder");
        let page =
            file_page("a.conf", "settings", "# x\n.y = 1\nz = \"\\\\\"\n", folder.path()).expect("writable");
        let text = fs::read_to_string(page).expect("written");
        assert!(
            text.contains("a.conf \\- settings") && text.contains("\n\\&.y = 1\nz = \"\\e\\e\"\n"),
            "{text}"
        );
    }

    #[test]
    fn every_command_that_people_see_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = clap::Command::new("tool")
            .version("1.2")
            .about("Does things")
            .after_help("Examples:\n  tool go")
            .subcommand(
                clap::Command::new("go")
                    .about("Goes")
                    .arg(clap::Arg::new("fast").long("fast").help("Hurries")),
            )
            .subcommand(clap::Command::new("secret").hide(true));
        let pages = pages(&command, &folder.path().join("man")).expect("writable");
        let names: Vec<_> = pages.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["tool.8", "tool-go.8"]);
        let text = fs::read_to_string(&pages[1]).expect("written");
        for part in [".TH TOOL-GO 8", "Goes", "tool go", "\\-\\-fast", "Hurries", "RSIP 1.2"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(fs::read_to_string(&pages[0]).expect("written").contains("Examples:"));
    }
}
