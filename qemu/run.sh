#!/bin/bash
# Boots the initramfs in QEMU with its serial console on this terminal. Leave with C-a x.
#
#   run.sh [DISK...] [-OPTION...]
#                         raw disk files, attached as /dev/vda, /dev/vdb, ... with the file's name as serial number;
#                         from the first option on the rest is QEMU's
#
#   ARGS       kernel arguments, added to those below
#   QEMU_KVM   1 uses KVM; otherwise the processor is emulated, which works anywhere
set -euo pipefail
built=$(dirname "$(realpath "$0")")/../target/initramfs

cpu=(-accel tcg)
[[ ${QEMU_KVM:-0} != 1 ]] || cpu=(-accel kvm -cpu host)

disks=()
while [[ $# -gt 0 && $1 != -* ]]; do
    disk=$1
    shift
    [[ -r $disk ]] || { echo "run.sh: $disk: cannot be read" >&2; exit 1; }
    id=disk${#disks[@]} path=${disk//,/,,} serial=$(basename "$disk") # QEMU wants a comma in a value doubled
    disks+=(-drive "if=none,id=$id,format=raw,file=$path" -device "virtio-blk-pci,drive=$id,serial=${serial//,/,,}")
done

# panic=-1 reboots at once, which -no-reboot turns into an exit: a kernel that panics does not leave QEMU hanging.
exec qemu-system-x86_64 -machine q35 "${cpu[@]}" -m 512 -nographic -no-reboot -nic none \
    -kernel "$built/vmlinuz" -initrd "$built/initramfs.cpio.zst" \
    -append "console=ttyS0 panic=-1 quiet ${ARGS:-}" "${disks[@]}" "$@"
