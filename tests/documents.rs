//! The documents in `doc/` tell the options that the program has: the shell completions are generated from them
//! (`make completions` does it), the man page is written by hand and compared.

// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Generator, Shell};
use ntfsrescue::args::Args;

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("doc").join(name)
}

/// The command line, with what clap itself adds to it: `--help` and `--version`.
fn command() -> Command {
    let mut command = Args::command();
    command.build();
    command
}

/// A shell's completions, for the program under both its names.
fn completions(shell: Shell) -> String {
    let mut generated = Vec::new();
    clap_complete::generate(shell, &mut command(), "ntfsrescue", &mut generated);
    let generated = String::from_utf8(generated).unwrap();
    match shell {
        Shell::Fish => generated + "complete -c ntfsclone -w ntfsrescue\n",
        // What registers them is a line that ends with the names of commands, in bash and in zsh.
        _ => generated.replace(" ntfsrescue\n", " ntfsrescue ntfsclone\n"),
    }
}

#[test]
fn the_completions_are_those_of_the_options() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let path = document("completions").join(shell.file_name("ntfsrescue"));
        let wanted = completions(shell);
        if std::env::var_os("WRITE_COMPLETIONS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == wanted, "{} is stale: run make completions", path.display());
    }
}

/// A page of man macros as text: without the escapes for fonts and dashes.
fn plain(page: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR"];
    fonts.into_iter().fold(page.to_owned(), |page, font| page.replace(font, " ")).replace('\\', "")
}

#[test]
fn the_man_page_has_every_option_and_no_other() {
    let page = plain(&std::fs::read_to_string(document("ntfsrescue.8")).unwrap());
    let command = command();
    let longs: BTreeSet<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let declared: BTreeSet<_> = command
        .get_arguments()
        .filter_map(|arg| {
            let short = arg.get_short().map(|short| format!("-{short} ")).unwrap_or_default();
            Some(format!("{short}--{}", arg.get_long()?))
        })
        .collect();

    // In the section OPTIONS each has an entry, which is named in the line behind `.TP`.
    let options = page.split("\n.SH ").find(|section| section.starts_with("OPTIONS\n")).unwrap();
    let tags = options.split("\n.TP\n").skip(1).map(|entry| entry.lines().next().unwrap());
    let words = |tag: &str| -> Vec<String> {
        tag.split([' ', ',', '"']).filter(|word| word.starts_with('-')).map(str::to_owned).collect()
    };
    let described: BTreeSet<_> = tags.map(|tag| words(tag).join(" ")).collect();
    assert_eq!(described, declared);

    // And what the text speaks of is one of them.
    for word in page.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()) {
        if let Some(name) = word.strip_prefix("--") {
            assert!(longs.contains(name), "the man page names --{name}, which is no option");
        }
    }
}
