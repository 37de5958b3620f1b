#!/bin/bash
# Packs the bootable system: our binary as /init, busybox as its shell, mkfs.exfat, which makes a stick's data partition
# anew at full size, and the kernel modules named in modules.txt.
#
#   build.sh BINARY DIRECTORY     writes DIRECTORY/initramfs.cpio.zst and DIRECTORY/vmlinuz
#
#   KERNEL   kernel image (default: target/kernel/vmlinuz, which fetch-kernel.sh brings)
#   MODULES  its modules, a .../lib/modules/VERSION (default: as fetched; for a KERNEL of your own, the host's)
#   BUSYBOX  a static busybox (default: the one in PATH)
#   LEVEL    zstd level (default: 3, for tests; 19 for a release takes half a minute and saves a fifth)
#
# Needs no root: the kernel brings /dev/console itself, and devtmpfs the rest. The same input gives the same bytes.
set -euo pipefail
umask 022
export LC_ALL=C
top=$(realpath "$(dirname "$0")/..")
kernel_dir=$top/target/kernel
PATH=$PATH:/usr/sbin # depmod, modprobe and mkfs.exfat, for a plain user

die() { echo "initramfs: $*" >&2; exit 1; }
[[ $# == 2 ]] || die "usage: build.sh BINARY DIRECTORY"
binary=$1
mkdir -p "$2"
out=$(realpath "$2")

require_static() {
    [[ -r $1 ]] || die "$1: cannot be read"
    if readelf --wide --program-headers "$1" | grep INTERP >/dev/null; then
        die "$1 is not static: it would find no libraries in the initramfs"
    fi
}

# At 0x20e a bzImage has the offset of its version string, less 0x200 (Documentation/arch/x86/boot.rst, kernel_version).
kernel_version() {
    local offset
    offset=$(od -An -tu2 -j $((0x20e)) -N 2 "$1")
    dd if="$1" bs=1 skip=$((offset + 0x200)) count=128 status=none | tr '\0' ' ' | cut -d ' ' -f 1
}

kernel=${KERNEL:-$kernel_dir/vmlinuz}
[[ -r $kernel ]] || die "$kernel: cannot be read; run initramfs/fetch-kernel.sh, or set KERNEL"
version=$(kernel_version "$kernel")
if [[ -n ${KERNEL:-} && ! $KERNEL -ef $kernel_dir/vmlinuz ]]; then
    modules=${MODULES:-/lib/modules/$version}
else
    modules=${MODULES:-$kernel_dir/lib/modules/$version}
fi
modules=$(realpath --canonicalize-missing "$modules")
[[ ${modules##*/} == "$version" ]] || die "$modules: not the modules of $kernel, which is $version"
[[ -e $modules/modules.dep ]] || die "$modules: no modules.dep; run depmod $version"
busybox=${BUSYBOX:-$(command -v busybox)} || die "no busybox; run .ci/setup build"
require_static "$binary"
require_static "$busybox"

root=$out/root
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,dev,lib/modules,mnt,proc,run,sys,tmp}

install -m 755 "$binary" "$root/init"
install -m 755 "$busybox" "$root/bin/busybox"
# What the kernel runs to load a file system or a checksum: /init answers under this name.
ln -s ../init "$root/sbin/modprobe"
for applet in $("$busybox" --list); do
    case $applet in
    busybox | modprobe) ;;
    *) ln -s busybox "$root/bin/$applet" ;;
    esac
done

# Debian has no static one: its libraries and their loader come along, each under its own path.
exfat=$(command -v mkfs.exfat) || die "no mkfs.exfat; run .ci/setup build"
install -D -m 755 "$exfat" "$root/usr/sbin/mkfs.exfat"
mapfile -t libraries < <(ldd "$exfat" | sed -nE 's|^(.*[[:space:]])?(/[^ ]+) \(0x.*|\2|p')
[[ ${#libraries[@]} -ge 2 ]] || die "$exfat: ldd names no libraries: $(ldd "$exfat" 2>&1)"
cp --dereference --parents --target-directory "$root" "${libraries[@]}"

# modprobe names every file that a module needs, soft dependencies included. It is asked about the kernel to be packed,
# through links in a tree of its own (some versions look in lib, some in usr/lib), without the host's configuration.
view=$out/view
rm -rf "$view"
mkdir -p "$view"/{lib/modules,usr}
ln -s ../lib "$view/usr/lib"
ln -s "$modules" "$view/lib/modules/$version"
mapfile -t wanted < <(sed 's/#.*//' "$top/initramfs/modules.txt" | tr -s ' \t' '\n' | grep .)
# It fails when this kernel lacks a name, and says so line by line: worth knowing, and no reason to stop.
modprobe --dirname "$view" --set-version "$version" --config /dev/null --all --show-depends "${wanted[@]}" \
    >"$out/closure" 2>"$out/unknown" || true
unknown=$(sed -n 's/.*Module \([^ ]*\) not found.*/\1/p' "$out/unknown" | paste -sd ' ')
[[ -z $unknown ]] || echo "initramfs: $version has no $unknown"
sed -n "s|^insmod .*/modules/$version/\([^ ]*\).*|\1|p" "$out/closure" | sort -u >"$out/files"
[[ -s $out/files ]] || die "modprobe found no module: $(cat "$out/unknown")"

# Decompressed, so that plain finit_module takes them, and zstd sees all of them at once. Never stripped: that would cut
# off the signature, and a kernel under Secure Boot would refuse the module.
packed=$root/lib/modules/$version
mkdir "$packed"
(cd "$modules" && xargs cp --parents --target-directory "$packed" <"$out/files")
find "$packed" -name '*.ko.xz' -exec xz --decompress {} +
find "$packed" -name '*.ko.zst' -exec zstd --quiet --decompress --rm {} +

# The indices are made anew, so that they name just what is packed; those that /init and busybox read are kept.
ln -s ../lib "$root/usr/lib"
cp "$modules"/modules.{builtin,builtin.modinfo,order} "$packed"
depmod --basedir "$root" "$version"
find "$packed" -maxdepth 1 -type f ! -name modules.dep ! -name modules.alias ! -name modules.softdep \
    ! -name modules.builtin -delete
rm "$root/usr/lib"

find "$root" -exec touch --no-dereference --date=@0 {} +
(cd "$root" && find . -print0 | sort -z | cpio --quiet --create --null --format newc --reproducible --owner 0:0) \
    >"$out/initramfs.cpio"
zstd --quiet --force "-${LEVEL:-3}" "$out/initramfs.cpio" -o "$out/initramfs.cpio.zst"
install -m 644 "$kernel" "$out/vmlinuz"

mb() { stat --format %s "$1" | awk '{ printf "%.1f MB", $1 / 1e6 }'; }
echo "initramfs: $version, $(wc -l <"$out/files") modules," \
    "$(mb "$out/initramfs.cpio"), compressed $(mb "$out/initramfs.cpio.zst")"
rm -r "$root" "$view" "$out"/{initramfs.cpio,closure,files,unknown}
