//! Kernel modules: those that the machine's devices ask for by their modalias, and those that the kernel asks for
//! itself by running `/sbin/modprobe`, which is this program too.
//!
//! From the text indices that depmod makes (modules.dep(5); `modules.alias`, `modules.softdep`, `modules.builtin`).
//! They are parsed once and borrowed from; a pattern is tried only where the text before its first wildcard fits, so
//! that some ten thousand of them cost nothing on a slow machine.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Soft dependencies may go in circles; nobody nests them deeper.
const MAX_DEPTH: u8 = 6;

/// What disks need that may come after the devices were looked at: a stick put in, a card, a disk found late.
const ALWAYS: [&str; 6] = ["sd_mod", "usb_storage", "uas", "nvme", "ahci", "mmc_block"];

/// Loading a module waits by default until every probe in the machine has come to an end, which takes minutes while
/// a failing disk's first sector is read again and again. With this the kernel does not wait.
const DO_NOT_WAIT: &CStr = c"async_probe";

/// The exception: probed in the order of the bus, a virtual machine's disks have the same names at every boot. It
/// is loaded only where there are such disks.
const IN_ORDER: &str = "virtio_blk";

/// The text of the indices.
#[derive(Debug, Default)]
pub struct Index {
    dir: PathBuf,
    dep: String,
    alias: String,
    softdep: String,
    builtin: String,
}

impl Index {
    /// Reads the indices of the running kernel. One that is missing is empty.
    pub fn of_running_kernel() -> Index {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let dir = Path::new("/lib/modules").join(release.trim());
        let read = |name: &str| match std::fs::read_to_string(dir.join(name)) {
            Ok(text) => text,
            Err(cause) => {
                log::warn!("{}: cannot be read: {cause}", dir.join(name).display());
                String::new()
            }
        };
        let [dep, alias] = ["modules.dep", "modules.alias"].map(read);
        let [softdep, builtin] = ["modules.softdep", "modules.builtin"].map(read);
        Index { dir, dep, alias, softdep, builtin }
    }
}

/// The parsed indices, and which modules were loaded through them.
#[derive(Debug)]
pub struct Modules<'a> {
    dir: &'a Path,
    /// By name: its file and those that it needs, the last one first.
    files: HashMap<String, Files<'a>>,
    /// Patterns and names, in the file's order.
    aliases: Vec<Alias<'a>>,
    /// By name: what should be there before, and after.
    soft: HashMap<&'a str, Soft<'a>>,
    builtin: BTreeSet<String>,
    /// Files that were handed to the kernel.
    done: RefCell<BTreeSet<&'a str>>,
    /// Modaliases that were looked up.
    seen: RefCell<BTreeSet<String>>,
}

#[derive(Debug)]
struct Files<'a> {
    own: &'a str,
    needs: &'a str,
}

#[derive(Debug)]
struct Alias<'a> {
    pattern: &'a str,
    /// Bytes before the first wildcard.
    literal: usize,
    module: &'a str,
}

#[derive(Debug, Default)]
struct Soft<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

impl<'a> Modules<'a> {
    /// Parses the indices.
    pub fn parse(index: &'a Index) -> Modules<'a> {
        let files = index.dep.lines().filter_map(|line| {
            let (own, needs) = line.split_once(':')?;
            Some((module_name(own), Files { own, needs }))
        });
        let aliases = index.alias.lines().filter_map(|line| {
            let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
            Some(Alias { pattern, literal, module })
        });
        Modules {
            dir: &index.dir,
            files: files.collect(),
            aliases: aliases.collect(),
            soft: index.softdep.lines().filter_map(parse_softdep).collect(),
            builtin: index.builtin.lines().map(module_name).collect(),
            done: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    /// Loads what the devices that are there ask for, and did not ask for before.
    pub fn coldplug(&self) {
        let mut wanted = BTreeSet::new();
        collect_modaliases(Path::new("/sys/devices"), &mut wanted);
        for modalias in wanted {
            self.plug(&modalias);
        }
    }

    /// Loads what a device with this modalias asks for, if none did before.
    pub fn plug(&self, modalias: &str) {
        if self.seen.borrow_mut().insert(modalias.to_owned()) {
            for module in self.by_alias(modalias) {
                self.load(module, MAX_DEPTH);
            }
        }
    }

    /// Loads what disks may need, whatever was seen.
    pub fn load_always(&self) {
        for name in ALWAYS {
            if self.files.contains_key(name) {
                self.load(name, MAX_DEPTH);
            }
        }
    }

    /// Answers a request by name or alias: is everything, or one of several that would do, in the kernel now?
    pub fn request(&self, name: &str) -> bool {
        self.load_any(name, MAX_DEPTH)
    }

    /// How many files were handed to the kernel.
    pub fn nr_loaded(&self) -> usize {
        self.done.borrow().len()
    }

    fn load_any(&self, name: &str, depth: u8) -> bool {
        let plain = normalise(name);
        if self.files.contains_key(&plain) || self.builtin.contains(&plain) {
            return self.load(&plain, depth);
        }
        // All that answer to the name, as modprobe does: for a checksum the generic one and that of the processor.
        let loaded = self.by_alias(name).filter(|module| self.load(module, depth));
        loaded.count() > 0
    }

    /// The modules whose aliases fit.
    fn by_alias<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.aliases.iter().filter(move |alias| alias.fits(name)).map(|alias| alias.module)
    }

    /// Loads a module, with what it needs before and after it.
    fn load(&self, module: &str, depth: u8) -> bool {
        let module = normalise(module);
        let Some(files) = self.files.get(&module) else { return self.builtin.contains(&module) };
        if self.done.borrow().contains(files.own) {
            return true;
        }
        let soft = self.soft.get(module.as_str());
        let load_all = |names: &[&str]| {
            for name in names {
                if let Some(depth) = depth.checked_sub(1) {
                    self.load_any(name, depth);
                }
            }
        };
        load_all(soft.map_or(&[], |soft| &soft.before));
        let needs = files.needs.split_ascii_whitespace().rev();
        let loaded = needs.chain([files.own]).all(|file| self.insert(file));
        load_all(soft.map_or(&[], |soft| &soft.after));
        loaded
    }

    /// Hands one file to the kernel.
    fn insert(&self, file: &'a str) -> bool {
        if self.done.borrow().contains(file) {
            return true;
        }
        let path = self.dir.join(file);
        let inserted = File::open(&path).and_then(|opened| {
            match finit_module(opened, parameters(file), ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(io::Error::from(errno)),
            }
        });
        match inserted {
            Ok(()) => {
                self.done.borrow_mut().insert(file);
                true
            }
            // Common, and no fault: a driver for what the machine turns out not to have.
            Err(cause) => {
                log::debug!("module {}: {cause}", path.display());
                false
            }
        }
    }
}

impl Alias<'_> {
    fn fits(&self, name: &str) -> bool {
        let Some(literal) = self.pattern.get(..self.literal) else { return false };
        if self.literal == self.pattern.len() {
            return name == literal || normalise(name) == normalise(literal);
        }
        name.starts_with(literal)
            // The crate takes two stars only as a whole path component; one means the same here.
            && glob::Pattern::new(&self.pattern.replace("**", "*")).is_ok_and(|pattern| pattern.matches(name))
    }
}

/// `softdep NAME pre: A B post: C`
fn parse_softdep(line: &str) -> Option<(&str, Soft<'_>)> {
    let mut words = line.strip_prefix("softdep ")?.split_ascii_whitespace();
    let name = words.next()?;
    let mut soft = Soft::default();
    let mut list = None;
    for word in words {
        match (word, list) {
            ("pre:" | "post:", _) => list = Some(word),
            (name, Some("pre:")) => soft.before.push(name),
            (name, Some(_)) => soft.after.push(name),
            (_, None) => {}
        }
    }
    Some((name, soft))
}

/// The name of the module in a file: without directories and suffixes, with the one spelling of dashes.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    normalise(name.split_once(".ko").map_or(name, |(name, _)| name))
}

/// A module's parameters.
fn parameters(file: &str) -> &'static CStr {
    if module_name(file) == IN_ORDER { c"" } else { DO_NOT_WAIT }
}

/// Dashes and underscores are the same in a module's name.
fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads every `modalias` below a directory of sysfs, without following links.
fn collect_modaliases(dir: &Path, into: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_modaliases(&entry.path(), into);
        } else if entry.file_name() == "modalias"
            && let Ok(modalias) = std::fs::read_to_string(entry.path())
        {
            into.insert(modalias.trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index {
            dep: "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n\
                  kernel/fs/mbcache.ko:\nkernel/drivers/usb/usb-storage.ko:\n"
                .into(),
            alias: "# Aliases extracted from modules themselves.\n\
                    alias pci:v*d*sv*sd*bc01sc06i01* ahci\nalias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage\n\
                    alias fs-ext4 ext4\nalias cpu:type:x86,ven*fam*mod*:feature:*0133* aesni_intel\n\
                    alias of:N*T*Cfoo,bar** odd\nalias crypto-crc32c crc32c_generic\n"
                .into(),
            softdep: "softdep ext4 pre: crypto-crc32c post: x y\nsoftdep cifs gcm ccm\n".into(),
            builtin: "kernel/drivers/virtio/virtio-pci.ko\n".into(),
            ..Index::default()
        }
    }

    #[test]
    fn aliases_are_patterns() {
        let index = index();
        let modules = Modules::parse(&index);
        let by = |name: &'static str| modules.by_alias(name).collect::<Vec<_>>();
        assert_eq!(by("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"), ["ahci"]);
        assert_eq!(by("pci:v00008086d00002922sv00001AF4sd00001100bc01sc01i80"), [""; 0]);
        assert_eq!(by("fs-ext4"), ["ext4"]);
        assert_eq!(by("crypto_crc32c"), ["crc32c_generic"]);
        assert_eq!(by("cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0133,"), ["aesni_intel"]);
        assert_eq!(by("of:NxTyCfoo,barz"), ["odd"]);
    }

    #[test]
    fn indices_are_parsed() {
        let index = index();
        let modules = Modules::parse(&index);
        assert_eq!(modules.files["usb_storage"].own, "kernel/drivers/usb/usb-storage.ko");
        assert_eq!(modules.soft["ext4"].before, ["crypto-crc32c"]);
        assert_eq!(modules.soft["ext4"].after, ["x", "y"]);
        assert!(modules.soft["cifs"].before.is_empty());
        assert!(modules.request("virtio_pci"), "built in");
        assert!(!modules.request("nothing"));
    }
}
