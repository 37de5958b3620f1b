//! Making odd volumes from ordinary ones by editing their structures, in terms of NTFS and not of our parser.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Clusters in a run, and the first of them: what a list of runs is made from.
pub type Run = (u64, Option<u64>);

/// What a restart page says. Nobody's log has client 0xffff, a closed one flag 2.
#[derive(Clone, Copy)]
pub struct RestartPage {
    pub lsn: u64,
    pub client: u16,
    pub flags: u16,
    pub torn: bool,
}

/// A volume whose bytes are edited. `$MFT` must be in one run, as mkntfs leaves it.
pub struct Editor {
    file: File,
    pub sector_size: u64,
    pub cluster_size: u64,
    pub total_sectors: u64,
    mft: u64,
    mftmirr: u64,
    record_size: u64,
}

pub fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Editor {
    pub fn open(path: &Path) -> Editor {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut boot = [0; 512];
        file.read_exact_at(&mut boot, 0).unwrap();
        let sector_size = u16_at(&boot, 11);
        let per_cluster = boot[13];
        let sectors =
            if per_cluster > 128 { 1 << (256 - u64::from(per_cluster)) } else { per_cluster.into() };
        let cluster_size = sector_size * sectors;
        let record = boot[0x40] as i8;
        let record_size = if record < 0 { 1 << -record } else { record as u64 * cluster_size };
        Editor {
            file,
            sector_size,
            cluster_size,
            total_sectors: u64_at(&boot, 0x28),
            mft: u64_at(&boot, 0x30) * cluster_size,
            mftmirr: u64_at(&boot, 0x38) * cluster_size,
            record_size,
        }
    }

    pub fn nr_clusters(&self) -> u64 {
        self.total_sectors * self.sector_size / self.cluster_size
    }

    /// Where a record lies.
    pub fn record_pos(&self, mft_no: u64) -> u64 {
        self.mft + mft_no * self.record_size
    }

    pub fn read(&self, pos: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, pos).unwrap();
        bytes
    }

    pub fn write(&self, pos: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, pos).unwrap();
    }

    /// A record with its fixups applied.
    pub fn record(&self, mft_no: u64) -> Vec<u8> {
        let mut record = self.read(self.record_pos(mft_no), self.record_size);
        assert_eq!(&record[..4], b"FILE", "record {mft_no}");
        let usa = u16_at(&record, 4) as usize;
        for sector in 0..record.len() / 512 {
            let kept = [record[usa + 2 * sector + 2], record[usa + 2 * sector + 3]];
            put(&mut record, sector * 512 + 510, &kept);
        }
        record
    }

    /// Writes a record, and its copy in `$MFTMirr`.
    pub fn put_record(&self, mft_no: u64, mut record: Vec<u8>) {
        let usa = u16_at(&record, 4) as usize;
        let number = [record[usa], record[usa + 1]];
        for sector in 0..record.len() / 512 {
            let end = sector * 512 + 510;
            let kept = [record[end], record[end + 1]];
            put(&mut record, usa + 2 * sector + 2, &kept);
            put(&mut record, end, &number);
        }
        self.write(self.record_pos(mft_no), &record);
        if mft_no < 4 {
            self.write(self.mftmirr + mft_no * self.record_size, &record);
        }
    }

    /// The attributes of a record, each with its bytes.
    pub fn attributes(&self, record: &[u8]) -> Vec<Vec<u8>> {
        let mut at = u16_at(record, 0x14) as usize;
        let mut attributes = Vec::new();
        while u32_at(record, at) != 0xffff_ffff {
            let len = u32_at(record, at + 4) as usize;
            attributes.push(record[at..at + len].to_vec());
            at += len;
        }
        attributes
    }

    /// The record with these attributes instead of its own.
    pub fn with_attributes(&self, mut record: Vec<u8>, attributes: &[Vec<u8>]) -> Vec<u8> {
        let start = u16_at(&record, 0x14) as usize;
        let body: Vec<u8> = attributes.iter().flatten().copied().chain([0xff; 4]).chain([0; 4]).collect();
        let end = start + body.len();
        assert!(end <= record.len(), "the attributes do not fit");
        record[start..].fill(0);
        put(&mut record, start, &body);
        put(&mut record, 0x18, &(end as u32).to_le_bytes());
        record
    }

    /// The only run of `$Bitmap`, as position.
    pub fn bitmap_pos(&self) -> u64 {
        let data = data_of(&self.attributes(&self.record(6)));
        let runs = decode(&data[u16_at(&data, 32) as usize..]);
        assert_eq!(runs.len(), 1, "$Bitmap in one run");
        runs[0].1.unwrap() * self.cluster_size
    }

    /// Marks clusters as used or free in `$Bitmap`.
    pub fn mark(&self, lcn: u64, len: u64, used: bool) {
        let bitmap = self.bitmap_pos();
        for lcn in lcn..lcn + len {
            let mut byte = self.read(bitmap + lcn / 8, 1)[0];
            let mask = 1 << (lcn % 8);
            assert_eq!(byte & mask == 0, used, "cluster {lcn}");
            byte ^= mask;
            self.write(bitmap + lcn / 8, &[byte]);
        }
    }

    /// The first of `len` free clusters at or behind `from`.
    pub fn free_clusters(&self, from: u64, len: u64) -> u64 {
        let bitmap = self.read(self.bitmap_pos(), self.nr_clusters().div_ceil(8));
        let is_free = |lcn: u64| bitmap[(lcn / 8) as usize] >> (lcn % 8) & 1 == 0;
        (from..self.nr_clusters() - len).find(|lcn| (*lcn..lcn + len).all(is_free)).unwrap()
    }

    /// Moves the clusters of `$MFT` from VCN `from` on elsewhere: its runs after that.
    fn move_mft_tail(&self, from: u64, pieces: u64) -> (Vec<Run>, Vec<Vec<u8>>, Vec<u8>) {
        let record = self.record(0);
        let attributes = self.attributes(&record);
        let data = data_of(&attributes);
        let old = decode(&data[u16_at(&data, 32) as usize..]);
        assert_eq!(old.len(), 1, "$MFT in one run");
        let (len, lcn) = (old[0].0, old[0].1.unwrap());
        let mut runs = vec![(from, Some(lcn))];
        let per_piece = (len - from).div_ceil(pieces);
        // Each piece lies before the one before it: negative distances.
        let mut end = self.nr_clusters();
        let mut vcn = from;
        while vcn < len {
            let n = per_piece.min(len - vcn);
            let place = self.free_clusters(end / 2, n);
            self.mark(place, n, true);
            let bytes = self.read((lcn + vcn) * self.cluster_size, n * self.cluster_size);
            self.write(place * self.cluster_size, &bytes);
            runs.push((n, Some(place)));
            end = place;
            vcn += n;
        }
        self.mark(lcn + from, len - from, false);
        // Whatever finds the old place by mistake shall notice.
        self.write(
            (lcn + from) * self.cluster_size,
            &vec![0xee; ((len - from) * self.cluster_size) as usize],
        );
        (runs, attributes, record)
    }

    /// Spreads `$MFT` over several runs, the first of `first` clusters, all in record 0.
    pub fn fragment_mft(&self, first: u64) {
        let (runs, mut attributes, record) = self.move_mft_tail(first, 3);
        let data = attributes.iter_mut().find(|attribute| is_data(attribute)).unwrap();
        *data = with_runs(data, &runs, 0);
        self.put_record(0, self.with_attributes(record, &attributes));
    }

    /// The record with other runs for its unnamed data, which is as long as they are.
    pub fn with_data_runs(&self, record: Vec<u8>, runs: &[Run]) -> Vec<u8> {
        let mut attributes = self.attributes(&record);
        let data = attributes.iter_mut().find(|attribute| is_data(attribute)).unwrap();
        *data = with_runs(data, runs, 0);
        let bytes = runs.iter().map(|(len, _)| len).sum::<u64>().wrapping_mul(self.cluster_size);
        for at in [40, 48, 56] {
            put(data, at, &bytes.to_le_bytes());
        }
        self.with_attributes(record, &attributes)
    }

    /// Spreads `$MFT` over two runs, of which record 0 holds the first; an attribute list names the extension
    /// record `extension`, which must be unused and within the first run, with the second.
    pub fn extend_mft(&self, first: u64, extension: u64) {
        let (runs, mut attributes, record) = self.move_mft_tail(first, 1);
        let at = attributes.iter().position(|attribute| is_data(attribute)).unwrap();
        let whole = attributes[at].clone();
        attributes[at] = with_runs(&whole, &runs[..1], 0);
        let mut piece = with_runs(&whole, &runs[1..], first);
        put(&mut piece, 40, &[0; 24]); // the sizes are in the first piece

        let base_reference = u16_at(&record, 0x10) << 48;
        let sequence = self.put_extension(extension, base_reference, piece);

        let mut list = Vec::new();
        for attribute in &attributes {
            list.extend(list_entry(attribute, 0, base_reference));
        }
        let second = list_entry(&whole, first, extension | sequence << 48);
        let behind = (at + 1) * 32;
        list.splice(behind..behind, second);
        let mut listed = vec![0; 24];
        put(&mut listed, 0, &0x20u32.to_le_bytes());
        put(&mut listed, 4, &(24 + list.len() as u32).to_le_bytes());
        put(&mut listed, 14, &9u16.to_le_bytes());
        put(&mut listed, 16, &(list.len() as u32).to_le_bytes());
        put(&mut listed, 20, &24u16.to_le_bytes());
        listed.extend(&list);
        attributes.insert(1, listed);
        self.put_record(0, self.with_attributes(record, &attributes));
        self.mark_record_used(extension);
    }

    /// Makes an unused record the extension of a base record, with one attribute. Returns its sequence number.
    fn put_extension(&self, mft_no: u64, base_reference: u64, attribute: Vec<u8>) -> u64 {
        let mut record = self.record(mft_no);
        let sequence = u16_at(&record, 0x10).max(1);
        put(&mut record, 0x10, &(sequence as u16).to_le_bytes());
        put(&mut record, 0x16, &1u16.to_le_bytes());
        put(&mut record, 0x20, &base_reference.to_le_bytes());
        self.put_record(mft_no, self.with_attributes(record, &[attribute]));
        sequence
    }

    /// Makes an unused record an extension of this base record that nothing names, with these runs of data.
    pub fn make_extension(&self, mft_no: u64, base_reference: u64, runs: &[Run]) {
        let attributes = self.attributes(&self.record(0));
        self.put_extension(mft_no, base_reference, with_runs(&data_of(&attributes), runs, 0));
        self.mark_record_used(mft_no);
    }

    /// The record with a named stream more, in clusters.
    pub fn with_another_stream(&self, record: Vec<u8>, runs: &[Run]) -> Vec<u8> {
        let mut attributes = self.attributes(&record);
        attributes.push(self.stream(0x80, "s", runs));
        self.with_attributes(record, &attributes)
    }

    /// The record without anything but a folder's index of one cluster, and a bitmap of it that is a hole.
    pub fn with_index_of_holes(&self, record: Vec<u8>, clusters: u64) -> Vec<u8> {
        let blocks = self.stream(0xa0, "$I30", &[(1, Some(1))]);
        let bitmap = self.stream(0xb0, "$I30", &[(clusters, None)]);
        let first = self.attributes(&record).swap_remove(0);
        self.with_attributes(record, &[first, blocks, bitmap])
    }

    /// An attribute in clusters, as long as they are.
    fn stream(&self, kind: u32, name: &str, runs: &[Run]) -> Vec<u8> {
        let whole = data_of(&self.attributes(&self.record(0)));
        let mut stream = with_runs(&whole, runs, 0);
        let bytes = runs.iter().map(|(len, _)| len).sum::<u64>() * self.cluster_size;
        for at in [40, 48, 56] {
            put(&mut stream, at, &bytes.to_le_bytes());
        }
        // The name goes between header and runs.
        let mut units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let nr_units = units.len() / 2;
        units.resize(units.len().next_multiple_of(8), 0);
        let runs_at = u16_at(&stream, 32) as usize;
        let mut named = stream[..runs_at].to_vec();
        named.extend(&units);
        named.extend(&stream[runs_at..]);
        let len = named.len() as u32;
        put(&mut named, 0, &kind.to_le_bytes());
        put(&mut named, 4, &len.to_le_bytes());
        named[9] = nr_units as u8;
        put(&mut named, 10, &(runs_at as u16).to_le_bytes());
        put(&mut named, 14, &50u16.to_le_bytes());
        put(&mut named, 32, &((runs_at + units.len()) as u16).to_le_bytes());
        named
    }

    /// The record with one more attribute behind the others: resident, without a name, or with one of `name`'s units.
    pub fn with_resident(&self, record: Vec<u8>, kind: u32, name: &str, value: &[u8]) -> Vec<u8> {
        let mut attributes = self.attributes(&record);
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let value_at = (24 + units.len()).next_multiple_of(8);
        let mut attribute = vec![0; (value_at + value.len()).next_multiple_of(8)];
        let len = attribute.len() as u32;
        put(&mut attribute, 0, &kind.to_le_bytes());
        put(&mut attribute, 4, &len.to_le_bytes());
        attribute[9] = (units.len() / 2) as u8;
        put(&mut attribute, 10, &24u16.to_le_bytes());
        put(&mut attribute, 14, &60u16.to_le_bytes());
        put(&mut attribute, 16, &(value.len() as u32).to_le_bytes());
        put(&mut attribute, 20, &(value_at as u16).to_le_bytes());
        put(&mut attribute, 24, &units);
        put(&mut attribute, value_at, value);
        let behind = attributes.iter().position(|other| u32_at(other, 0) > kind.into());
        attributes.insert(behind.unwrap_or(attributes.len()), attribute);
        self.with_attributes(record, &attributes)
    }

    /// The first record of a file called `name`.
    pub fn find(&self, name: &str) -> u64 {
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let is_called = |attribute: &Vec<u8>| {
            let value = u16_at(attribute, 20) as usize;
            u32_at(attribute, 0) == 0x30 && attribute[value + 66..].starts_with(&units)
        };
        let is_wanted = |mft_no: &u64| {
            let record = self.record(*mft_no);
            record[0x16] & 1 == 1 && self.attributes(&record).iter().any(is_called)
        };
        (0..2000).find(is_wanted).unwrap()
    }

    /// Where the first attribute of this kind begins in a record.
    pub fn offset_of(&self, record: &[u8], kind: u64) -> usize {
        let mut at = u16_at(record, 0x14) as usize;
        while u32_at(record, at) != kind {
            at += u32_at(record, at + 4) as usize;
        }
        at
    }

    /// Where the last attribute begins in a record.
    pub fn last_offset_of(&self, record: &[u8]) -> usize {
        let last = self.attributes(record).pop().unwrap();
        self.offset_of(record, 0xffff_ffff) - last.len()
    }

    /// The runs of a record's attribute in clusters.
    pub fn runs_of(&self, mft_no: u64, kind: u64) -> Vec<Run> {
        let record = self.record(mft_no);
        let attribute = &record[self.offset_of(&record, kind)..];
        decode(&attribute[u16_at(attribute, 32) as usize..])
    }

    /// The record with other runs for its attribute of this kind.
    pub fn with_runs_of(&self, record: Vec<u8>, kind: u64, runs: &[Run]) -> Vec<u8> {
        let mut attributes = self.attributes(&record);
        let attribute = attributes.iter_mut().find(|attribute| u32_at(attribute, 0) == kind).unwrap();
        *attribute = with_runs(attribute, runs, 0);
        self.with_attributes(record, &attributes)
    }

    /// Where the blocks lie that a folder's index uses, on a volume whose clusters are as large as a block.
    pub fn blocks_of(&self, mft_no: u64) -> Vec<u64> {
        let attributes = self.attributes(&self.record(mft_no));
        let of_kind = |kind: u64| attributes.iter().find(|attribute| u32_at(attribute, 0) == kind).unwrap();
        let clusters =
            self.runs_of(mft_no, 0xa0).into_iter().flat_map(|(len, lcn)| lcn.unwrap()..lcn.unwrap() + len);
        let bits = of_kind(0xb0);
        let bits = &bits[u16_at(bits, 20) as usize..];
        let in_use = clusters.enumerate().filter(|(nr, _)| bits[nr / 8] >> (nr % 8) & 1 == 1);
        in_use.map(|(_, lcn)| lcn * self.cluster_size).collect()
    }

    /// Where the clusters of a record's attribute in clusters begin.
    pub fn first_cluster_of(&self, mft_no: u64, kind: u64) -> u64 {
        self.runs_of(mft_no, kind)[0].1.unwrap() * self.cluster_size
    }

    /// Sets a record's bit in `$MFT`'s own bitmap.
    fn mark_record_used(&self, mft_no: u64) {
        let attributes = self.attributes(&self.record(0));
        let bitmap = attributes.iter().find(|attribute| u32_at(attribute, 0) == 0xb0).unwrap();
        let runs = decode(&bitmap[u16_at(bitmap, 32) as usize..]);
        let pos = runs[0].1.unwrap() * self.cluster_size + mft_no / 8;
        let byte = self.read(pos, 1)[0] | 1 << (mft_no % 8);
        self.write(pos, &[byte]);
    }

    /// Adds free clusters to `$BadClus:$Bad` and marks them as used.
    pub fn add_bad_clusters(&self, lcn: u64, len: u64) {
        let record = self.record(8);
        let mut attributes = self.attributes(&record);
        let bad = attributes
            .iter_mut()
            .find(|attribute| u32_at(attribute, 0) == 0x80 && attribute[9] == 4)
            .unwrap();
        let runs = [(lcn, None), (len, Some(lcn)), (self.nr_clusters() - lcn - len, None)];
        *bad = with_runs(bad, &runs, 0);
        self.put_record(8, self.with_attributes(record, &attributes));
        self.mark(lcn, len, true);
    }

    /// Writes one of the two restart pages of `$LogFile`, as Windows does when it opens or closes the log.
    pub fn put_restart_page(&self, number: u64, page: &RestartPage) {
        const USA: usize = 30;
        const AREA: usize = 48;
        let mut bytes = vec![0; 4096];
        put(&mut bytes, 0, b"RSTR");
        put(&mut bytes, 4, &(USA as u16).to_le_bytes());
        put(&mut bytes, 6, &9u16.to_le_bytes());
        put(&mut bytes, 16, &4096u32.to_le_bytes());
        put(&mut bytes, 20, &4096u32.to_le_bytes());
        put(&mut bytes, 24, &(AREA as u16).to_le_bytes());
        put(&mut bytes, 26, &1u16.to_le_bytes());
        put(&mut bytes, 28, &1u16.to_le_bytes());
        put(&mut bytes, AREA, &page.lsn.to_le_bytes());
        put(&mut bytes, AREA + 8, &1u16.to_le_bytes());
        put(&mut bytes, AREA + 10, &0xffffu16.to_le_bytes());
        put(&mut bytes, AREA + 12, &page.client.to_le_bytes());
        put(&mut bytes, AREA + 14, &page.flags.to_le_bytes());
        put(&mut bytes, AREA + 20, &208u16.to_le_bytes());
        put(&mut bytes, AREA + 22, &64u16.to_le_bytes());
        let size = self.log_run().0 * self.cluster_size;
        put(&mut bytes, AREA + 24, &size.to_le_bytes());
        put(&mut bytes, USA, &7u16.to_le_bytes());
        for sector in 0..8 {
            put(&mut bytes, sector * 512 + 510, &7u16.to_le_bytes());
        }
        if page.torn {
            put(&mut bytes, 4 * 512 - 2, &8u16.to_le_bytes());
        }
        self.write(self.log_pos() + number * 4096, &bytes);
    }

    /// Where `$LogFile` begins, which must be in one run.
    pub fn log_pos(&self) -> u64 {
        self.log_run().1.unwrap() * self.cluster_size
    }

    fn log_run(&self) -> Run {
        let data = data_of(&self.attributes(&self.record(2)));
        let runs = decode(&data[u16_at(&data, 32) as usize..]);
        assert_eq!(runs.len(), 1, "$LogFile in one run");
        runs[0]
    }

    /// Sets the flag of a volume that was not unmounted.
    pub fn make_dirty(&self) {
        let mut record = self.record(3);
        let at = self.offset_of(&record, 0x70);
        let flags = at + u16_at(&record, at + 20) as usize + 10;
        record[flags] |= 1;
        self.put_record(3, record);
    }
}

fn is_data(attribute: &[u8]) -> bool {
    u32_at(attribute, 0) == 0x80 && attribute[9] == 0
}

fn data_of(attributes: &[Vec<u8>]) -> Vec<u8> {
    attributes.iter().find(|attribute| is_data(attribute)).unwrap().clone()
}

/// The 32 bytes of an attribute list's entry for an unnamed attribute.
fn list_entry(attribute: &[u8], lowest_vcn: u64, reference: u64) -> Vec<u8> {
    assert_eq!(attribute[9], 0, "a name");
    let mut entry = vec![0; 32];
    put(&mut entry, 0, &attribute[..4]);
    put(&mut entry, 4, &32u16.to_le_bytes());
    entry[7] = 26;
    put(&mut entry, 8, &lowest_vcn.to_le_bytes());
    put(&mut entry, 16, &reference.to_le_bytes());
    put(&mut entry, 24, &attribute[14..16]);
    entry
}

/// The attribute with other runs, which begin at this VCN. The sizes stay.
fn with_runs(attribute: &[u8], runs: &[Run], lowest_vcn: u64) -> Vec<u8> {
    let runs_at = u16_at(attribute, 32) as usize;
    let mut changed = attribute[..runs_at].to_vec();
    changed.extend(encode(runs));
    changed.resize(changed.len().next_multiple_of(8), 0);
    let len = changed.len() as u32;
    put(&mut changed, 4, &len.to_le_bytes());
    put(&mut changed, 16, &lowest_vcn.to_le_bytes());
    let highest = lowest_vcn + runs.iter().map(|(len, _)| len).sum::<u64>() - 1;
    put(&mut changed, 24, &highest.to_le_bytes());
    changed
}

fn encode(runs: &[Run]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut last = 0;
    for (len, lcn) in runs {
        list.push(if lcn.is_some() { 0x88 } else { 0x08 });
        list.extend(len.to_le_bytes());
        if let Some(lcn) = lcn {
            list.extend((*lcn as i64).wrapping_sub(last).to_le_bytes());
            last = *lcn as i64;
        }
    }
    list.push(0);
    list
}

pub fn decode(list: &[u8]) -> Vec<Run> {
    let number = |bytes: &[u8]| {
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(all)
    };
    let (mut at, mut last, mut runs) = (0, 0, Vec::new());
    while list[at] != 0 {
        let (nr_len, nr_delta) = (usize::from(list[at] & 15), usize::from(list[at] >> 4));
        let (len, delta) = list[at + 1..at + 1 + nr_len + nr_delta].split_at(nr_len);
        last += number(delta);
        runs.push((number(len) as u64, (nr_delta > 0).then_some(last as u64)));
        at += 1 + nr_len + nr_delta;
    }
    runs
}
