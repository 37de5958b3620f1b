//! What `make install` and `make deb` put on a machine, and that it leaves other packages' files alone.
//!
//! `make test` builds the binary and the package before; nothing is compiled here, and no network is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{Said, built, run, text};
use crate::volumes::Place;

/// Runs make for a root directory of its own, as if nothing else had called it.
fn make(target: &str, root: &Path, prefix: Option<&str>) -> Said {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS").env_remove("PREFIX");
    make.arg(target).arg(format!("DESTDIR={}", text(root)));
    make.args(prefix.map(|prefix| format!("PREFIX={prefix}")));
    run(&mut make)
}

/// All files and links below a directory, with what the links say: `sbin/ntfsclone -> ntfsrescue`.
fn tree(root: &Path) -> BTreeSet<String> {
    let said = run(Command::new("find").arg(root).args(["-type", "f", "-printf", "%P\n"])).ok();
    let links = run(Command::new("find").arg(root).args(["-type", "l", "-printf", "%P -> %l\n"])).ok();
    (said.stdout + &links.stdout).lines().map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// The program runs under this path and tells its version.
fn runs(program: &Path) {
    let version = concat!("ntfsrescue ", env!("CARGO_PKG_VERSION"));
    run(Command::new(program).arg("--version")).ok().says(version);
}

/// man finds the page of this name and has nothing to complain of.
fn man_shows(pages: &Path, name: &str) {
    let mut man = Command::new("man");
    man.args(["--warnings", "-M", text(pages), "8", name]).env("LC_ALL", "C").env("MANWIDTH", "100");
    let said = run(&mut man).ok();
    assert_eq!(said.stderr, "", "what man says of {name}");
    for words in ["clone, save, restore and rescue NTFS volumes", "-s, --save-image", "EXIT STATUS"] {
        assert!(said.stdout.contains(words), "wanted: {words}\n{}", said.stdout);
    }
}

/// What bash offers for the last of these words, once it has read the completions of the first; one a line.
fn offered(completions: &Path, words: &[&str]) -> String {
    // As bash calls it: the command, the word to complete, the word before it.
    const SCRIPT: &str = r#"
        source "$1" && shift
        [[ $(complete -p "$1") =~ \ -F\ ([^ ]+)\  ]]
        compopt() { :; } # that one works at a prompt only
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        "${BASH_REMATCH[1]}" "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let file = completions.join(words[0]);
    run(Command::new("bash").args(["-n", text(&file)])).ok();
    let mut bash = Command::new("bash");
    let said = run(bash.args(["--norc", "-c", SCRIPT, "bash", text(&file)]).args(words)).ok();
    assert_eq!(said.stderr, "", "what bash says of {words:?}");
    said.stdout
}

#[test]
fn under_a_prefix_of_its_own() {
    let place = Place::new();
    let root = place.at("root");
    built("musl/ntfsrescue");
    make("install", &root, None).ok();
    let prefix = root.join("usr/local");
    assert_eq!(
        tree(&prefix),
        set(&[
            "sbin/ntfsrescue",
            "sbin/ntfsclone -> ntfsrescue",
            "share/man/man8/ntfsrescue.8",
            "share/man/man8/ntfsclone.8 -> ntfsrescue.8",
            "share/bash-completion/completions/ntfsrescue",
            "share/bash-completion/completions/ntfsclone -> ntfsrescue",
            "share/zsh/site-functions/_ntfsrescue",
            "share/fish/vendor_completions.d/ntfsrescue.fish",
            "share/fish/vendor_completions.d/ntfsclone.fish -> ntfsrescue.fish",
            "share/doc/ntfsrescue/README.md",
            "share/doc/ntfsrescue/CHANGELOG.md",
        ])
    );
    for name in ["ntfsrescue", "ntfsclone"] {
        runs(&prefix.join("sbin").join(name));
        man_shows(&prefix.join("share/man"), name);
        let completions = prefix.join("share/bash-completion/completions");
        assert_eq!(offered(&completions, &[name, "--sa"]), "--save-image\n");
        let image = place.at("an image");
        std::fs::write(&image, "").unwrap();
        assert_eq!(
            offered(&completions, &[name, "-s", "-O", text(&place.at("an"))]),
            format!("{}\n", text(&image))
        );
    }
    // Once more, over what is there, and away again.
    make("install", &root, None).ok();
    make("uninstall", &root, None).ok();
    assert_eq!(tree(&root), set(&[]));
    make("uninstall", &root, None).ok();
}

#[test]
fn another_ntfsclone_is_left_alone() {
    let place = Place::new();
    let root = place.at("root");
    built("musl/ntfsrescue");
    for name in ["usr/sbin/ntfsclone", "usr/local/sbin/ntfsclone", "usr/share/man/man8/ntfsclone.8"] {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), "the other one").unwrap();
    }
    let before = tree(&root);
    make("install", &root, None).exits(2).says("sbin/ntfsclone is another package's");
    assert_eq!(tree(&root), before);

    make("install", &root, Some("/usr")).ok();
    let added: BTreeSet<_> = tree(&root).difference(&before).cloned().collect();
    assert_eq!(
        added,
        set(&[
            "usr/sbin/ntfsrescue",
            "usr/lib/ntfsrescue/ntfsclone -> ../../sbin/ntfsrescue",
            "usr/share/man/man8/ntfsrescue.8",
            "usr/share/bash-completion/completions/ntfsrescue",
            "usr/share/zsh/site-functions/_ntfsrescue",
            "usr/share/fish/vendor_completions.d/ntfsrescue.fish",
            "usr/share/doc/ntfsrescue/README.md",
            "usr/share/doc/ntfsrescue/CHANGELOG.md",
        ])
    );
    runs(&root.join("usr/lib/ntfsrescue/ntfsclone"));
    make("uninstall", &root, Some("/usr")).ok();
    assert_eq!(tree(&root), before);
    assert_eq!(std::fs::read(root.join("usr/sbin/ntfsclone")).unwrap(), b"the other one");
}

fn package() -> PathBuf {
    built(concat!("deb/ntfsrescue_", env!("CARGO_PKG_VERSION"), "-1_amd64.deb"))
}

#[test]
fn the_debian_package_installs() {
    let place = Place::new();
    let root = place.at("root");
    let admin = root.join("var/lib/dpkg");
    std::fs::create_dir_all(admin.join("updates")).unwrap();
    std::fs::create_dir_all(admin.join("info")).unwrap();
    std::fs::write(admin.join("status"), "").unwrap();
    // Nothing else is there, so that this also shows that it depends on nothing.
    let mut dpkg = Command::new("dpkg");
    run(dpkg.arg(format!("--root={}", text(&root))).args(["--log=/dev/null", "--install"]).arg(package()))
        .ok();
    let usr = root.join("usr");
    assert_eq!(
        tree(&usr),
        set(&[
            "sbin/ntfsrescue",
            "lib/ntfsrescue/ntfsclone -> ../../sbin/ntfsrescue",
            "share/man/man8/ntfsrescue.8.gz",
            "share/bash-completion/completions/ntfsrescue",
            "share/zsh/vendor-completions/_ntfsrescue",
            "share/fish/vendor_completions.d/ntfsrescue.fish",
            "share/doc/ntfsrescue/README.md",
            "share/doc/ntfsrescue/changelog.gz",
            "share/doc/ntfsrescue/copyright",
            "share/doc/ntfsrescue/LICENSE-MIT",
            "share/doc/ntfsrescue/LICENSE-APACHE",
        ])
    );
    runs(&usr.join("sbin/ntfsrescue"));
    runs(&usr.join("lib/ntfsrescue/ntfsclone"));
    man_shows(&usr.join("share/man"), "ntfsrescue");
    assert_eq!(
        offered(&usr.join("share/bash-completion/completions"), &["ntfsrescue", "--sa"]),
        "--save-image\n"
    );
}

#[test]
fn the_debian_package_has_no_file_of_ntfs_3g() {
    /// A path as it is where /bin, /sbin and /lib are links into /usr.
    fn merged(path: &str) -> String {
        let below = ["/bin/", "/sbin/", "/lib/"].iter().any(|top| path.starts_with(top));
        if below { format!("/usr{path}") } else { path.to_owned() }
    }
    let theirs = run(Command::new("dpkg").args(["--listfiles", "ntfs-3g"])).ok().stdout;
    let theirs: BTreeSet<_> = theirs.lines().map(merged).collect();
    assert!(theirs.contains("/usr/sbin/ntfsclone"), "{theirs:?}");
    let ours = run(Command::new("dpkg-deb").arg("--contents").arg(package())).ok().stdout;
    // Mode, owner, size, date, time, `./path`; directories belong to many packages.
    let ours: BTreeSet<_> = ours
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| merged(line.split_whitespace().nth(5).unwrap().trim_start_matches('.')))
        .collect();
    assert!(ours.contains("/usr/sbin/ntfsrescue"), "{ours:?}");
    assert_eq!(ours.intersection(&theirs).collect::<Vec<_>>(), Vec::<&String>::new());
}
