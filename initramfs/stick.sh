#!/bin/bash
# Makes the image of a bootable stick, for dd: it starts under BIOS and UEFI, also with Secure Boot, through the shim,
# the GRUB and the kernel that Debian has signed.
#
#   stick.sh BINARY BOOT IMAGE    BOOT is the folder in which build.sh left vmlinuz and initramfs.cpio.zst; BINARY is
#                                 what it packed, and here checks the configuration
#
#   CONF      the stick's ntfsrescue.conf (default: one that only explains itself, and asks for nothing)
#   DATA      file system of the data partition: ext4 (the default) or exfat
#   SIZE      its size in bytes, or with K, M, G (default: 64M; it grows to fill the stick at first boot)
#   TIMEOUT   seconds for which the boot menu counts down (default: 10)
#   STICK_ID  any text, from which the identifiers of the disk, its partitions and file systems are made (default: random)
#
# Needs no root. The same input and STICK_ID give the same bytes.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin # sgdisk, mkfs, for a plain user
# The time of everything that has one: mtools, e2fsprogs, and e2fsprogs before 1.47.1.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1577836800 E2FSPROGS_FAKE_TIME=1577836800

die() { echo "stick: $*" >&2; exit 1; }
[[ $# == 3 ]] || die "usage: stick.sh BINARY BOOT IMAGE"
binary=$1 boot=$2 image=$3
conf=${CONF:-initramfs/ntfsrescue.conf}
id=${STICK_ID:-$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')}
timeout=${TIMEOUT:-10}
shim=/usr/lib/shim
signed=/usr/lib/grub/x86_64-efi-signed
bios=/usr/lib/grub/i386-pc

[[ $timeout =~ ^[0-9]{1,4}$ ]] || die "TIMEOUT=$timeout: wanted seconds, 0 to 9999"
size=$(numfmt --from=iec "${SIZE:-64M}" 2>/dev/null) || die "SIZE=$SIZE: wanted bytes, or a number with K, M, G or T"
case ${DATA:=ext4} in
ext4) type=8300 ;;
exfat) type=0700 ;;
*) die "DATA=$DATA: wanted ext4 or exfat" ;;
esac
for file in "$boot"/{vmlinuz,initramfs.cpio.zst} "$shim"/{shim,mm}x64.efi.signed "$signed/gcdx64.efi.signed" \
    "$bios/boot.img"; do
    [[ -r $file ]] || die "$file: cannot be read; run .ci/setup build and make initramfs"
done
[[ -r $conf ]] || die "$conf: cannot be read"
# By the code that reads it at boot.
if [[ -n ${CONF:-} ]]; then
    "$binary" --check-config "$conf" || exit 1
fi

work=$image.parts
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT

# Runs a program that says too much; what it said comes out if it fails.
quietly() { "$@" >"$work/said" 2>&1 || die "$1: $(cat "$work/said")"; }
# Digits for a thing on this stick, the same for the same STICK_ID.
hex() { printf '%s\n' "$id $1" | sha256sum; }
uuid() { hex "$1" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-a\4-\5/'; }
# A number as so many little-endian bytes, over what is in a file at a place.
put() { # FILE PLACE NUMBER BYTES
    local i bytes=
    for ((i = 0; i < $4; i++)); do
        bytes+=$(printf '\\x%02x' $(($3 >> 8 * i & 255)))
    done
    printf '%b' "$bytes" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
# A file into the image, at a sector.
place() { dd if="$1" of="$work/image" bs=512 seek="$2" conv=notrunc,sparse status=none; }

# In sectors of 512 bytes. The first partition takes what is left in front of the first MiB.
mib=2048
esp=$mib esp_len=$((96 * mib))
data=$((esp + esp_len)) data_len=$(((size / 512 + mib - 1) / mib * mib))
((data_len >= 32 * mib)) || die "SIZE=$SIZE: wanted at least 32M"
partuuid=$(uuid 'boot partition')
truncate --size $(((data + data_len + mib) * 512)) "$work/image"
quietly sgdisk --set-alignment=1 --disk-guid="$(uuid disk)" \
    --new=1:34:2047 --typecode=1:EF02 --change-name=1:BIOS --partition-guid="1:$(uuid 'BIOS partition')" \
    --new=2:$esp:+$((esp_len / 2))K --typecode=2:EF00 --change-name=2:RESCUEBOOT --partition-guid="2:$partuuid" \
    --new=3:$data:+$((data_len / 2))K --typecode=3:$type --change-name=3:RESCUE \
    --partition-guid="3:$(uuid 'data partition')" "$work/image"

# The boot partition. Clusters of 1 KiB: as many as FAT32 must have at least, and no more to follow for GRUB.
fat_id=$(hex 'boot file system' | cut -c 1-8 | tr a-f A-F)
# --invariant: without it the label gets the time of now; the identifier behind it counts.
quietly mkfs.fat -F 32 -s 2 -n RESCUEBOOT --invariant -i "$fat_id" -C "$work/esp" $((esp_len / 2))
sed "s/@PARTUUID@/$partuuid/; s/@TIMEOUT@/$timeout/" initramfs/grub/grub.cfg >"$work/grub.cfg"
mmd -i "$work/esp" ::/EFI ::/EFI/BOOT ::/boot ::/boot/grub
onto_esp() { mcopy -i "$work/esp" "$1" "::$2"; }
onto_esp "$boot/vmlinuz" /boot/vmlinuz
onto_esp "$boot/initramfs.cpio.zst" /boot/initramfs.cpio.zst
onto_esp "$work/grub.cfg" /boot/grub/grub.cfg
onto_esp "$conf" /ntfsrescue.conf
# The GRUB that Debian builds for CDs looks for its menu on the partition from which the firmware started it.
onto_esp "$shim/shimx64.efi.signed" /EFI/BOOT/BOOTX64.EFI
onto_esp "$signed/gcdx64.efi.signed" /EFI/BOOT/grubx64.efi
onto_esp "$shim/mmx64.efi.signed" /EFI/BOOT/mmx64.efi
place "$work/esp" $esp

# The data partition. An ext4 that is to grow while it is mounted: up to 2 TiB by the block descriptors that are kept
# free for that, and beyond by the kernel's change to meta_bg. The journal must hold, in a quarter of it, one operation
# on all of those (fs/ext4/resize.c, ext4_flex_group_add): 4 MiB do not suffice. An inode for each 256 KiB, for few and
# large files. All features are named, so that the host's mke2fs.conf does not matter and GRUB can read them.
truncate --size $((data_len * 512)) "$work/data"
data_id=$(uuid 'data file system')
case $DATA in
ext4)
    features=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file
    features+=,huge_file,dir_nlink,extra_isize,metadata_csum
    quietly mke2fs -q -F -t ext4 -L RESCUE -U "$data_id" -O $features -b 4096 -I 256 -i 262144 -m 0 -J size=8 \
        -E "resize=536870912,hash_seed=$data_id,root_owner=0:0,lazy_itable_init=0,nodiscard" "$work/data"
    ;;
exfat)
    quietly mkfs.exfat -L RESCUE "$work/data"
    quietly tune.exfat -I "0x${data_id:0:8}" "$work/data"
    ;;
esac
place "$work/data" $data

# GRUB for BIOS machines, as grub-bios-setup installs it, which would want a device: boot.img in front of the partition
# table loads the first sector of core.img, and that the rest. Offsets: grub-core/boot/i386/pc/boot.S and diskboot.S.
sed "s/@FAT_ID@/${fat_id:0:4}-${fat_id:4}/" initramfs/grub/early.cfg >"$work/early.cfg"
grub-mkimage --format=i386-pc --directory="$bios" --output="$work/core" --prefix='(,gpt2)/boot/grub' \
    --config="$work/early.cfg" biosdisk part_gpt fat ext2 exfat search_fs_uuid normal regexp test echo cat serial \
    terminal linux ls reboot halt
core=34
core_len=$((($(stat --format %s "$work/core") + 511) / 512))
((core_len <= mib - core)) || die "GRUB's core image takes $core_len sectors, wanted at most $((mib - core))"
head -c 440 "$bios/boot.img" >"$work/mbr"
put "$work/mbr" $((0x5c)) $core 8
put "$work/mbr" $((0x66)) $((0x9090)) 2 # a disk, not a floppy: no jump past the check of the drive's number
put "$work/core" $((0x1f4)) $((core + 1)) 8
put "$work/core" $((0x1fc)) $((core_len - 1)) 2
place "$work/core" $core
dd if="$work/mbr" of="$work/image" conv=notrunc status=none

mv "$work/image" "$image"
echo "stick: $image, $(stat --format %s "$image" | awk '{ printf "%.0f MB", $1 / 1e6 }'), data $DATA, STICK_ID=$id"
