#!/bin/bash
# Shows a rescue from beginning to end: a Windows disk with sectors that cannot be read, a machine booted from the
# initramfs that saves it to a second disk with nobody watching, and a comparison of every file afterwards.
# Needs no root: files go in and out of the volumes by ntfs-3g's and e2fsprogs' own tools, without mounting.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin # mkntfs, mkfs.ext4, debugfs, sfdisk, for a plain user
ours=target/musl/ntfsrescue
work=target/demo

die() { echo "demo: $*" >&2; exit 1; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
rm -rf "$work"
mkdir -p "$work/restored"

say "A disk with a Windows partition, and real files on it"
volume=$work/volume.ntfs
truncate --size 96M "$volume"
mkntfs --quick --force --quiet --label Windows --partition-start 2048 --heads 255 --sectors-per-track 63 "$volume" \
    >"$work/mkntfs.log" 2>&1 || die "mkntfs failed: $(cat "$work/mkntfs.log")"
# Programs and texts of this machine, as many as fit into 48 MB, 100 at the most.
mapfile -t files < <(
    find /usr/bin /usr/share/common-licenses -type f -readable -size +7k -size -3000k -printf '%s %p\n' |
        sort --numeric-sort --reverse | awk '(sum += $1) < 48e6 && NR <= 100 { print $2 }'
)
declare -A original
for file in "${files[@]}"; do
    name=$(basename "$file")
    [[ -z ${original[$name]:-} ]] || continue
    ntfscp --quiet "$volume" "$file" "$name"
    original[$name]=$file
done
disk=$work/dying.raw
truncate --size 98M "$disk"
echo 'start=2048, size=196608, type=7' | sfdisk --quiet "$disk"
dd if="$volume" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
echo "$disk: 98 MiB, partition 1 holds ${#original[@]} files"

say "Ten of its sectors go bad, in three of the files"
# The first cluster of a file: the one line of ntfscluster's that gives a run.
first_sector() {
    ntfscluster --quiet --filename "$1" "$volume" 2>/dev/null |
        awk '/0x80/ { data = 1 } data && $1 == 0 && NF == 3 { print $2 * 8; exit }'
}
mapfile -t victims < <(printf '%s\n' "${!original[@]}" | sort | awk 'NR % 5 == 0' | head -n 3)
[[ ${#victims[@]} == 3 ]] || die "too few files on this machine to show anything: ${#original[@]}"
bad=()
for i in 0 1 2; do
    sector=$(first_sector "${victims[i]}")
    [[ -n $sector ]] || die "cannot find the clusters of ${victims[i]}"
    case $i in
    0) bad+=("$((sector + 1))") ;;
    1) bad+=("$sector" "$((sector + 2))" "$((sector + 4))") ;;
    2) bad+=("$sector" "$((sector + 1))" "$((sector + 2))" "$((sector + 3))" "$((sector + 4))" "$((sector + 5))") ;;
    esac
done
echo "in ${victims[*]}: sectors ${bad[*]} of the partition"
rules=
for sector in "${bad[@]}"; do
    rules+="{\"event\":\"none\",\"iotype\":\"read\",\"errno\":5,\"sector\":$((2048 + sector))},"
done

say "A second disk to save to"
safe=$work/safe.raw
truncate --size 160M "$safe"
mkfs.ext4 -q -F -L RESCUE "$safe"
echo "$safe: 160 MiB, ext4, label RESCUE"

say "The machine boots and saves by itself"
start=$SECONDS
job="ntfsrescue.action=save ntfsrescue.source=SERIAL=DYING:1 ntfsrescue.target=LABEL=RESCUE:/windows.img"
echo "kernel arguments: $job"
ARGS="ntfsrescue.then-failed=poweroff $job" timeout -k 5 300 qemu/run.sh \
    -blockdev "driver=file,filename=$disk,node-name=dying.file" \
    -blockdev "{\"driver\":\"blkdebug\",\"node-name\":\"dying.faults\",\"image\":\"dying.file\",\"inject-error\":[${rules%,}]}" \
    -blockdev driver=raw,file=dying.faults,node-name=dying \
    -device virtio-blk-pci,drive=dying,serial=DYING \
    -drive "if=none,id=safe,format=raw,file=$safe" -device virtio-blk-pci,drive=safe,serial=SAFE \
    </dev/null 2>&1 | tr -d '\r' | tee "$work/console" || die "QEMU failed; its console is in $work/console"
echo "($((SECONDS - start)) s)"
grep --quiet '^ntfsrescue: result=damaged exit=3 ' "$work/console" || die "the machine did not report what was to come"

say "What came of it"
debugfs -R "dump /windows.img $work/windows.img" "$safe" 2>/dev/null
[[ -s $work/windows.img ]] || die "there is no image on the second disk"
"$ours" --quiet --restore-image --output "$work/restored.ntfs" "$work/windows.img" >"$work/restore.log"
whole=0 damaged=0 lost=0
for name in "${!original[@]}"; do
    ntfscat "$work/restored.ntfs" "$name" >"$work/restored/file" 2>/dev/null || : >"$work/restored/file"
    if cmp --silent "$work/restored/file" "${original[$name]}"; then
        whole=$((whole + 1))
        continue
    fi
    # Which sectors differ, and are all of them marked?
    differing=$({ cmp -l "$work/restored/file" "${original[$name]}" 2>/dev/null || true; } | awk '{ print int(($1 - 1) / 512) }' | uniq)
    marked=$(LC_ALL=C grep --text --only-matching --byte-offset 'BadSectoR' "$work/restored/file" |
        awk -F : '$1 % 512 == 0 { print $1 / 512 }')
    [[ $differing == "$marked" ]] || die "$name differs in other places than those that are marked"
    n=$(wc -l <<<"$marked")
    echo "damaged: $name, $n sectors"
    damaged=$((damaged + 1)) lost=$((lost + n))
done
echo "saved: $whole of ${#original[@]} files compare equal; lost: $lost sectors in $damaged files, each of them marked"
[[ $lost == "${#bad[@]}" && $damaged == 3 ]] || die "${#bad[@]} sectors in 3 files were bad"
