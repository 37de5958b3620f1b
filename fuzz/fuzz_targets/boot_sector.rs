//! A boot sector, and the search for its backup.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use ntfsrescue_fuzz::assert_plain;

fuzz_target!(|input: (u64, &[u8])| {
    let (device_size, bytes) = input;
    let _place = BootSector::find_backup(device_size, bytes);
    let Some(bytes) = bytes.get(..BOOT_SECTOR_LEN) else { return };
    let boot = match BootSector::parse(bytes) {
        Ok(boot) => boot,
        Err(error) => return assert_plain(&error),
    };
    let _backup = boot.backup_pos();
    match boot.geometry(device_size) {
        Ok(geometry) => assert!(geometry.volume_size() <= geometry.written_end()),
        Err(error) => assert_plain(&error),
    }
    // A new serial number changes nothing else.
    let mut renewed = bytes.to_vec();
    BootSector::set_serial(&mut renewed, !boot.serial);
    let again = BootSector::parse(&renewed).expect("it was one before");
    assert_eq!((again.serial, again.backup_pos()), (!boot.serial, boot.backup_pos()));
});
