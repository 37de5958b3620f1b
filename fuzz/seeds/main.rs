//! Writes the inputs that the fuzz targets begin with: `seeds FOLDER NTFSRESCUE VOLUME...`, a folder for each target.
//!
//! From volumes come records, lists of runs, attribute lists, blocks of indexes, boot sectors and, of those with 4 MiB at
//! most, the whole volume packed; images and maps are made of them by the program, and compressed by others.

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ntfsrescue::image::trailer;
use ntfsrescue::ntfs::attr::{Body, types};
use ntfsrescue::ntfs::record::Record;
use ntfsrescue_fuzz::{SECTOR, pack};

/// Most seeds of one target from one volume: more of a kind add little.
const MOST: usize = 150;

/// Bytes of a record and of a block of an index, as far as they matter here.
const RECORD: usize = 1024;
const BLOCK: usize = 4096;

/// How far a volume is read, and the largest that is packed.
const READ: u64 = 256 << 20;
const PACKED: u64 = 4 << 20;

/// Sectors of a packed volume: enough for its records and bitmaps, and few enough to be fast.
const NR_PACKED: usize = 200;

const CONFIGS: &[&[u8]] = &[
    b"ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/{serial}/{date}.img",
    b"quiet ntfsrescue.action=restore ntfsrescue.source=UUID=1234-ABCD:/a.img ntfsrescue.target=MODEL=\"a b*\":2-4 \
      ntfsrescue.confirm=SERIAL=X ntfsrescue.then=reboot ntfsrescue.wait=30 ntfsrescue.console=ttyS0,tty0",
    b"ntfsrescue.action=shell ntfsrescue.run-id=7 ntfsrescue.stick=0123-ab\0action = save\nsource = all\n# comment\n\
      target = LABEL=RESCUE:/{model}-{serial}-{volume}.img\noptions = --retries 2 --first 'Users/*'\n",
];

/// From VCN 0 on, without an end, on a volume of 2^20 clusters.
const RUN_LIST: [u8; 13] = [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0];

/// Programs that compress what they read, and how they are called.
const COMPRESSORS: &[(&str, &[&str])] = &[
    ("gzip", &["-c"]),
    ("xz", &["-c", "-0"]),
    ("xz", &["-c", "--x86", "--delta", "--lzma2=preset=1", "--check=sha256"]),
    ("bzip2", &["-c", "-1"]),
    ("lz4", &["-c", "-BD", "-BX"]),
    ("zstd", &["-c", "-1", "--no-check"]),
];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(program)) = (words.next(), words.next()) else {
        return Err("wanted: seeds FOLDER NTFSRESCUE VOLUME...".into());
    };
    let mut seeds = Seeds { folder, total: 0, written: HashMap::new() };
    for config in CONFIGS {
        seeds.add("config", &[], config)?;
    }
    for volume in words {
        seeds.written.clear();
        seeds.of_volume(&volume).map_err(|error| format!("{}: {error}", volume.display()))?;
        if fs::metadata(&volume)?.len() <= PACKED {
            seeds.of_program(&program, &volume)?;
        }
    }
    Ok(())
}

struct Seeds {
    folder: PathBuf,
    total: usize,
    /// How many there are from this volume, by target.
    written: HashMap<&'static str, usize>,
}

impl Seeds {
    /// Adds an input: `content`, and the fields that the target takes besides, which come first.
    fn add(&mut self, target: &'static str, fields: &[u8], content: &[u8]) -> Outcome<()> {
        let nr = self.written.entry(target).or_default();
        if *nr >= MOST {
            return Ok(());
        }
        *nr += 1;
        self.total += 1;
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(format!("seed-{:05}", self.total)), [fields, content].concat())?)
    }

    fn of_volume(&mut self, path: &Path) -> Outcome<()> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut boot = [0; SECTOR];
        file.read_exact_at(&mut boot, 0)?;
        self.add("boot_sector", &len.to_le_bytes(), &boot)?;
        let mut block = vec![0; BLOCK];
        for pos in (0..len.min(READ) / BLOCK as u64 * BLOCK as u64).step_by(BLOCK) {
            file.read_exact_at(&mut block, pos)?;
            if block.starts_with(b"INDX") || block.starts_with(b"RSTR") || block.starts_with(b"RCRD") {
                self.add("index_block", &[0; 6], &block)?;
            }
            for record in block.chunks_mut(RECORD).filter(|record| record.starts_with(b"FILE")) {
                self.of_record(record)?;
            }
        }
        if len <= PACKED {
            let bytes = fs::read(path)?;
            let is_kept = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
            let sectors = bytes.chunks_exact(SECTOR).enumerate().filter(|(_, sector)| is_kept(sector));
            // The tail has the backup boot sector.
            let all: Vec<_> = sectors.map(|(number, bytes)| (number as u16, bytes)).collect();
            let last = all.last().copied().into_iter();
            let first = all.iter().copied().take(NR_PACKED);
            let nr_sectors = (bytes.len() / SECTOR) as u16;
            let packed = pack(nr_sectors, &[], first.clone().chain(last.clone()));
            self.add("volume", &[], &packed)?;
            self.add("partition_table", &[], &packed)?;
            self.add("volume", &[], &pack(nr_sectors, &[0, 9, 40, 900], first.chain(last)))?;
        }
        Ok(())
    }

    fn of_record(&mut self, bytes: &mut [u8]) -> Outcome<()> {
        self.add("record", &[0; 3], bytes)?;
        let Ok(record) = Record::parse(bytes) else { return Ok(()) };
        for attribute in record.attributes().map_while(Result::ok) {
            match attribute.body {
                Body::Resident(value) if attribute.kind == types::ATTRIBUTE_LIST => {
                    self.add("attribute_list", &[], value)?;
                }
                Body::Resident(value) if attribute.kind == types::INDEX_ROOT => {
                    self.add("index_block", &[0; 6], value)?;
                }
                Body::Resident(value) if attribute.kind == types::REPARSE_POINT => {
                    self.add("index_block", &[0, 0xc0, 0, 0, 0, 0], value)?;
                }
                Body::Resident(_) => {}
                Body::NonResident { runs, .. } => self.add("run_list", &RUN_LIST, runs)?,
            }
        }
        Ok(())
    }

    /// Images of a volume, their trailers, and a map of a rescue of it.
    fn of_program(&mut self, program: &Path, volume: &Path) -> Outcome<()> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let run = |words: &[&str], out: &Path| -> Outcome<()> {
            let status = Command::new(program).args(words).arg(out).arg(volume).status()?;
            if status.success() { Ok(()) } else { Err(format!("{}: {status}", program.display()).into()) }
        };
        run(&["-q", "-s", "-f", "-o"], &at("image"))?;
        run(&["-q", "-m", "-s", "-f", "-o"], &at("metadata"))?;
        let map = at("map");
        let rescue = ["-q", "--rescue", "-f", "--map", map.to_str().ok_or("a folder that is no text")?, "-o"];
        run(&rescue, &at("clone"))?;
        self.add("mapfile", &[], &fs::read(&map)?)?;
        for (compressor, words) in COMPRESSORS {
            let packed = Command::new(compressor).args(*words).stdin(File::open(at("metadata"))?).output()?;
            self.add("compressed", &[], &packed.stdout)?;
        }
        for compression in ["zstd", "zstd:19", "lz4"] {
            let packed = at(&format!("packed-{compression}"));
            run(&["-q", "-m", "-s", "-f", "--compress", compression, "-o"], &packed)?;
            self.add("compressed", &[], &fs::read(packed)?)?;
        }
        for name in ["image", "metadata"] {
            let image = fs::read(at(name))?;
            if let Some(start) = trailer::find_begin(&image) {
                self.add("trailer", &[], &image[start..])?;
                // The commands of the image without what lies between them would be none.
                self.add("image", &[0, 16], &image)?;
            }
        }
        Ok(())
    }
}
