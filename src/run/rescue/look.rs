//! What the target tells, once more is rescued, about which clusters are in use.

use super::super::RunError;
use super::source::TargetSource;
use crate::event::{Event, Observer, Silent};
use crate::extent::{ClusterSet, Extent};
use crate::io::PlacedSink;
use crate::ntfs::attr::types;
use crate::ntfs::mft::Value;
use crate::ntfs::runs::Run;
use crate::ntfs::scan::scan;
use crate::ntfs::{Error, Tolerance, Volume, mft_no};
use crate::plan::Plan;
use crate::rescue::Areas;
use crate::units::Lcn;

/// Adds the planned clusters that lie in short gaps between these: to read those costs less than to go past them.
pub(super) fn bridge(clusters: &mut ClusterSet, plan: &Plan) {
    let longest = SHORT_GAP / u64::from(plan.geometry.cluster_size);
    let mut next = clusters.extents().next();
    while let Some(extent) = next {
        let end = extent.end();
        let start = clusters.find(end, true);
        next = (start < clusters.bound())
            .then(|| Extent { lcn: Lcn(start), len: clusters.find(start, false) - start });
        if next.is_some() && start - end <= longest {
            plan.clusters().overlaps(Extent { lcn: Lcn(end), len: start - end }).for_each(|planned| {
                clusters.insert_extent(planned);
            });
        }
    }
}

/// Bytes that a disk reads in the time that it takes to find another place.
const SHORT_GAP: u64 = 1 << 20;

/// What a look at the target tells of the clusters in use.
pub(super) struct Looked {
    pub(super) used: ClusterSet,
    /// Those of them that are only taken for it.
    pub(super) doubtful: Option<ClusterSet>,
    pub(super) bitmaps: Vec<ClusterSet>,
}

/// Which clusters are in use, as far as what was rescued tells; none if it tells nothing.
pub(super) fn look(
    sink: &dyn PlacedSink,
    areas: &Areas,
    len: u64,
    observer: &dyn Observer,
) -> Result<Option<Looked>, RunError> {
    let source = TargetSource { sink, areas, repaired: &[], len };
    let Ok(volume) = Volume::open(&source, Tolerance::RESCUE, &Silent) else { return Ok(None) };
    let stoppable = Quiet(observer);
    match scan(&volume, Tolerance::RESCUE, None, &stoppable) {
        Ok(usage) => {
            let bitmaps = bitmaps(&volume);
            Ok(Some(Looked { used: usage.used, doubtful: usage.doubtful, bitmaps }))
        }
        Err(Error::Stopped) => Err(Error::Stopped.into()),
        Err(_) => Ok(None),
    }
}

/// Hears nothing, but may be told to stop.
struct Quiet<'a>(&'a dyn Observer);

impl Observer for Quiet<'_> {
    fn tell(&self, _: Event<'_>) {}

    fn wants_stop(&self) -> bool {
        self.0.wants_stop()
    }
}

/// The clusters of `$Bitmap`, and of the bitmap of `$MFT`, as far as they are known.
pub(super) fn bitmaps(volume: &Volume<'_>) -> Vec<ClusterSet> {
    let of = |(mft_no, kind)| {
        let Ok(Some(Value::Stream(bitmap))) = volume.mft.value(volume.source, mft_no, kind, &[]) else {
            return None;
        };
        let mut clusters = ClusterSet::new(volume.info.geometry.nr_clusters);
        bitmap.runs.runs().iter().filter_map(Run::extent).for_each(|extent| {
            clusters.insert_extent(extent);
        });
        Some(clusters)
    };
    [(mft_no::BITMAP, types::DATA), (mft_no::MFT, types::BITMAP)].into_iter().filter_map(of).collect()
}
