//! Whether there is room for volumes and outputs, before anything is made.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::rows::{Makes, Source, Target, Tool};
use crate::shared::programs::Outcome;
use crate::volumes::Recipe;

/// Bytes in the unit in which room is told.
const GB: f64 = 1e9;

/// Bytes of memory that a volume in memory takes.
const IN_MEMORY: u64 = 1 << 30;

/// What is to be done on a volume.
pub struct Need<'a> {
    pub recipe: &'a Recipe,
    pub tools: &'a [Tool],
    pub source: Source,
    pub target: Target,
}

impl Need<'_> {
    /// Bytes of the outputs that are there at the same time.
    fn outputs(&self) -> u64 {
        let nr_images = if self.source == Source::Image { self.tools.len() as u64 } else { 0 };
        // It is restored before it is removed.
        let is_restored = self.tools.iter().any(|tool| tool.makes == Makes::PartcloneImage);
        let out = if self.target == Target::Device { self.recipe.len } else { self.recipe.room() };
        out + self.recipe.room() * (nr_images + u64::from(is_restored))
    }
}

/// Fails if the folder's file system has no room for what is needed. Volumes that are not kept are there one at a time.
pub fn check(folder: &Path, needs: &[Need<'_>], keep: bool) -> Outcome<()> {
    let mut volumes: Vec<&Recipe> = Vec::new();
    for need in needs {
        if !volumes.contains(&need.recipe) {
            volumes.push(need.recipe);
        }
    }
    let missing = |recipe: &&Recipe| recipe.missing_room(folder);
    let needed = if keep {
        let outputs = needs.iter().map(Need::outputs).max().unwrap_or(0);
        volumes.iter().map(missing).sum::<u64>() + outputs
    } else {
        needs.iter().map(|need| missing(&need.recipe) + need.outputs()).max().unwrap_or(0)
    };
    enough(folder, needed, "; KEEP=no removes each volume after its use, VOLUMES= takes another folder")?;
    if volumes.iter().any(|recipe| recipe.mix.is_none()) {
        enough(Path::new(crate::volumes::IN_MEMORY), IN_MEMORY, "")?;
    }
    Ok(())
}

fn enough(place: &Path, needed: u64, hint: &str) -> Outcome<()> {
    let found = statvfs(place)?;
    let free = found.blocks_available() * found.fragment_size();
    if free < needed {
        let (place, needed, free) = (place.display(), needed as f64 / GB, free as f64 / GB);
        return Err(format!("{needed:.1} GB are needed in {place}, and {free:.1} GB are free{hint}").into());
    }
    Ok(())
}
