//! What is measured, as data: each row is some work, done by ours and by other tools.

use crate::volumes::{FILES, HUGE, Recipe, SMALL};

/// Some work on a volume.
pub struct Row {
    /// Its name, as typed.
    pub name: &'static str,
    /// As it is shown.
    pub title: &'static str,
    pub recipe: &'static Recipe,
    /// What `{src}` stands for.
    pub source: Source,
    pub target: Target,
    /// The first is ours, with which the others are compared.
    pub tools: &'static [Tool],
    pub goals: &'static [Goal],
}

/// What is read.
#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    /// The volume, as a file.
    File,
    /// The volume, as a loop device with direct I/O.
    Device,
    /// An image of it, made by the tool itself with its [`Tool::save`].
    Image,
}

/// Where it goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    /// A file, `{out}`, that is not there before.
    File,
    /// Standard output, which is /dev/null.
    Null,
    /// A loop device with direct I/O, also `{out}`.
    Device,
}

/// How a tool does it.
pub struct Tool {
    /// As it is shown, and as goals name it.
    pub title: &'static str,
    /// Its command line, a word each; `{src}`, `{out}`, `{log}` and `{ours}` stand for what they say, `{mib}` for the MiB in
    /// use.
    pub command: &'static [&'static str],
    /// The command that makes the image which it is to restore.
    pub save: &'static [&'static str],
    pub makes: Makes,
}

/// What comes out of it, and so how that is checked.
#[derive(Clone, Copy, PartialEq)]
pub enum Makes {
    /// An image in ntfsclone's format.
    Image,
    /// One of metadata only.
    MetadataImage,
    /// One of partclone's.
    PartcloneImage,
    /// The volume, or so much of it as is in use.
    Volume,
    /// The same, without the backup boot sector behind the last cluster.
    Clusters,
    /// As many bytes as are in use, but no copy: what the disk can take.
    Bytes,
}

/// Something to reach: ours takes at most so much of what the other takes.
pub struct Goal {
    pub against: &'static str,
    pub of: Of,
    pub at_most: f64,
}

/// What of a run is compared.
#[derive(Clone, Copy, PartialEq)]
pub enum Of {
    Wall,
    Cpu,
}

/// Peak memory that ours may take, in bytes; on other volumes than [`FILES`] one bit for each cluster in use comes to it.
pub const PEAK: u64 = 12 << 20;

const OURS: &str = "ntfsrescue";
const RESCUE: &str = "ntfsrescue --rescue (nothing bad)";
const NTFSCLONE: &str = "ntfsclone";
const PARTCLONE: &str = "partclone -a0 (no checksums)";
const PARTCLONE_SUMS: &str = "partclone -a1 (CRC32)";
const CP: &str = "cp --sparse=always";

/// What no copy that ends on the disk can be faster than, but by leaving zeros out.
const DISK: Tool = tool(
    "dd bs=1M oflag=direct of as many bytes",
    Makes::Bytes,
    &["dd", "bs=1M", "oflag=direct", "status=none", "count={mib}", "if={src}", "of={out}"],
);

const fn tool(title: &'static str, makes: Makes, command: &'static [&'static str]) -> Tool {
    Tool { title, command, save: &[], makes }
}

const fn goal(against: &'static str, of: Of, at_most: f64) -> Goal {
    Goal { against, of, at_most }
}

const OURS_SAVE: Tool = tool(OURS, Makes::Image, &["{ours}", "-q", "-s", "-o", "{out}", "{src}"]);
const OURS_CLONE: Tool = tool(OURS, Makes::Volume, &["{ours}", "-q", "-o", "{out}", "{src}"]);
const NTFSCLONE_SAVE: Tool =
    tool(NTFSCLONE, Makes::Image, &["ntfsclone", "-q", "-s", "-o", "{out}", "{src}"]);
const PARTCLONE_SAVE: Tool = tool(
    PARTCLONE,
    Makes::PartcloneImage,
    &["partclone.ntfs", "-q", "-c", "-a0", "-L", "{log}", "-s", "{src}", "-O", "{out}"],
);
const PARTCLONE_SUMS_SAVE: Tool = tool(
    PARTCLONE_SUMS,
    Makes::PartcloneImage,
    &["partclone.ntfs", "-q", "-c", "-a1", "-L", "{log}", "-s", "{src}", "-O", "{out}"],
);

/// What dd reads in the place of an image.
const COPY_OF_USED: &[&str] = &["dd", "bs=1M", "status=none", "count={mib}", "if={src}", "of={out}"];

/// partclone restores to a file with `-W`; without it, the file would have to be there.
pub const PARTCLONE_RESTORE: &[&str] =
    &["partclone.ntfs", "-q", "-r", "-W", "-L", "{log}", "-s", "{src}", "-O", "{out}"];

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "save",
        title: "save to a file",
        recipe: &FILES,
        source: Source::File,
        target: Target::File,
        tools: &[
            OURS_SAVE,
            NTFSCLONE_SAVE,
            PARTCLONE_SAVE,
            PARTCLONE_SUMS_SAVE,
            DISK,
            tool(RESCUE, Makes::Image, &["{ours}", "-q", "--rescue", "-s", "-o", "{out}", "{src}"]),
        ],
        goals: &[
            goal(NTFSCLONE, Of::Cpu, 0.25),
            goal(NTFSCLONE, Of::Wall, 0.40),
            goal(PARTCLONE, Of::Cpu, 1.0),
        ],
    },
    Row {
        name: "clone",
        title: "raw clone to a file",
        recipe: &FILES,
        source: Source::File,
        target: Target::File,
        tools: &[
            OURS_CLONE,
            tool(NTFSCLONE, Makes::Volume, &["ntfsclone", "-q", "-o", "{out}", "{src}"]),
            tool(CP, Makes::Volume, &["cp", "--sparse=always", "{src}", "{out}"]),
            tool(
                "cp --sparse=always, then sync",
                Makes::Volume,
                &["sh", "-c", "cp --sparse=always \"$1\" \"$2\" && sync \"$2\"", "sh", "{src}", "{out}"],
            ),
            tool(
                "dd bs=4M conv=sparse",
                Makes::Volume,
                &["dd", "bs=4M", "conv=sparse", "status=none", "if={src}", "of={out}"],
            ),
            tool(
                "dd bs=4M conv=sparse,fsync",
                Makes::Volume,
                &["dd", "bs=4M", "conv=sparse,fsync", "status=none", "if={src}", "of={out}"],
            ),
            DISK,
            tool(RESCUE, Makes::Volume, &["{ours}", "-q", "--rescue", "-o", "{out}", "{src}"]),
        ],
        goals: &[goal(NTFSCLONE, Of::Cpu, 0.20), goal(NTFSCLONE, Of::Wall, 0.35), goal(CP, Of::Wall, 1.05)],
    },
    Row {
        name: "restore",
        title: "restore to a file",
        recipe: &FILES,
        source: Source::Image,
        target: Target::File,
        tools: &[
            Tool {
                save: OURS_SAVE.command,
                ..tool(OURS, Makes::Volume, &["{ours}", "-q", "-r", "-o", "{out}", "{src}"])
            },
            Tool {
                save: NTFSCLONE_SAVE.command,
                ..tool(NTFSCLONE, Makes::Volume, &["ntfsclone", "-q", "-r", "-o", "{out}", "{src}"])
            },
            Tool {
                save: PARTCLONE_SUMS_SAVE.command,
                ..tool(PARTCLONE_SUMS, Makes::Clusters, PARTCLONE_RESTORE)
            },
            Tool { save: COPY_OF_USED, ..DISK },
        ],
        goals: &[goal(NTFSCLONE, Of::Cpu, 0.25), goal(NTFSCLONE, Of::Wall, 0.40)],
    },
    Row {
        name: "null",
        title: "save to /dev/null",
        recipe: &FILES,
        source: Source::File,
        target: Target::Null,
        tools: SAVE_TO_STDOUT,
        goals: &[goal(NTFSCLONE, Of::Cpu, 0.40)],
    },
    Row {
        name: "small-null",
        title: "save of 250,000 files to /dev/null",
        recipe: &SMALL,
        source: Source::File,
        target: Target::Null,
        tools: SAVE_TO_STDOUT,
        goals: &[goal(NTFSCLONE, Of::Cpu, 0.35)],
    },
    Row {
        name: "small-metadata-null",
        title: "metadata image of 250,000 files to /dev/null",
        recipe: &SMALL,
        source: Source::File,
        target: Target::Null,
        tools: METADATA_TO_STDOUT,
        goals: &[goal(NTFSCLONE, Of::Wall, 0.35)],
    },
    Row {
        name: "small-metadata",
        title: "metadata image of 250,000 files to a file",
        recipe: &SMALL,
        source: Source::File,
        target: Target::File,
        tools: METADATA_TO_FILE,
        goals: &[goal(NTFSCLONE, Of::Wall, 0.35)],
    },
    Row {
        name: "huge-null",
        title: "save of the 64 TiB volume to /dev/null",
        recipe: &HUGE,
        source: Source::File,
        target: Target::Null,
        tools: SAVE_TO_STDOUT,
        goals: &[goal(NTFSCLONE, Of::Wall, 0.08)],
    },
    Row {
        name: "device-save",
        title: "save from a device to a file",
        recipe: &FILES,
        source: Source::Device,
        target: Target::File,
        tools: &[OURS_SAVE, NTFSCLONE_SAVE],
        goals: &[],
    },
    Row {
        name: "device-clone",
        title: "raw clone to a device",
        recipe: &FILES,
        source: Source::File,
        target: Target::Device,
        tools: &[
            tool(OURS, Makes::Volume, &["{ours}", "-q", "-O", "{out}", "{src}"]),
            tool(NTFSCLONE, Makes::Volume, &["ntfsclone", "-q", "-O", "{out}", "{src}"]),
        ],
        goals: &[],
    },
    Row {
        name: "device-restore",
        title: "restore to a device",
        recipe: &FILES,
        source: Source::Image,
        target: Target::Device,
        tools: &[
            Tool {
                save: OURS_SAVE.command,
                ..tool(OURS, Makes::Volume, &["{ours}", "-q", "-r", "-O", "{out}", "{src}"])
            },
            Tool {
                save: NTFSCLONE_SAVE.command,
                ..tool(NTFSCLONE, Makes::Volume, &["ntfsclone", "-q", "-r", "-O", "{out}", "{src}"])
            },
        ],
        goals: &[],
    },
];

/// Saving to standard output.
pub const SAVE_TO_STDOUT: &[Tool] = &[
    tool(OURS, Makes::Image, &["{ours}", "-q", "-s", "-o", "-", "{src}"]),
    tool(NTFSCLONE, Makes::Image, &["ntfsclone", "-q", "-s", "-o", "-", "{src}"]),
];

/// Saving metadata there.
pub const METADATA_TO_STDOUT: &[Tool] = &[
    tool(OURS, Makes::MetadataImage, &["{ours}", "-q", "-m", "-s", "-o", "-", "{src}"]),
    tool(NTFSCLONE, Makes::MetadataImage, &["ntfsclone", "-q", "-m", "-s", "-o", "-", "{src}"]),
];

/// Saving metadata to a file.
pub const METADATA_TO_FILE: &[Tool] = &[
    tool(OURS, Makes::MetadataImage, &["{ours}", "-q", "-m", "-s", "-o", "{out}", "{src}"]),
    tool(NTFSCLONE, Makes::MetadataImage, &["ntfsclone", "-q", "-m", "-s", "-o", "{out}", "{src}"]),
];

/// Saving to a file.
pub const SAVE_TO_FILE: &[Tool] = &[OURS_SAVE, NTFSCLONE_SAVE];
