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

/// The modules that a text names in backquotes.
fn named(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// All Rust files of a module, `name.rs` and what is below `name/`, without those of its tests.
fn files_of(module: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(module).with_extension("rs")];
    let mut folders = vec![src.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.retain(|file| file.is_file() && !file.ends_with("tests.rs"));
    assert!(!files.is_empty(), "there is no module {module}");
    files
}

/// The modules of the crate that a source names, tests at its end apart.
fn used_by(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = lines.flat_map(|line| line.split("crate::").skip(1));
    named
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_table_of_layers_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let table = text.split("<!-- layers -->").nth(1).unwrap().split("<!-- /layers -->").next().unwrap();
    let mut modules = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let [_, group, _, may_use, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let (group, told) = (named(group), named(may_use));
        let mut used = BTreeSet::new();
        for file in group.iter().flat_map(|module| files_of(module)) {
            used.extend(used_by(&std::fs::read_to_string(file).unwrap()));
        }
        used.retain(|module| !group.contains(module));
        let is_all_but = may_use.starts_with(" all but ");
        used.retain(|module| told.contains(module) == is_all_but);
        assert_eq!(used, BTreeSet::new(), "what {group:?} uses without leave");
        modules.extend(group);
    }
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let declared: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert_eq!(modules, declared, "modules of the table, and those of src/lib.rs");
}
