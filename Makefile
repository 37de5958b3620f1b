# The static binary, the small bootable system around it, and what proves both. Everything made lies under target/.
#
#   make                static musl release binary: target/musl/ntfsrescue
#   make completions    write the shell completions in doc/completions anew, from the options
#   make initramfs      target/initramfs/initramfs.cpio.zst and vmlinuz (KERNEL=, MODULES=, LEVEL=: initramfs/build.sh)
#   make qemu           boot them here: make qemu DISKS="a.raw b.raw" ARGS="ntfsrescue.action=shell"; QEMU_KVM=1 for KVM
#   make demo           a rescue from a failing disk to an image, shown in QEMU
#   make test           every check that CI runs
#   make setup          install by apt-get what is missing on Debian (demo and test do so themselves)
#   make clean

BINARY := target/musl/ntfsrescue
KERNEL ?= target/kernel/vmlinuz
export KERNEL MODULES LEVEL ARGS QEMU_KVM

.PHONY: all completions initramfs qemu demo test setup clean FORCE
.DELETE_ON_ERROR:

all: $(BINARY)

# cargo knows what is out of date; the script leaves an unchanged binary alone.
$(BINARY): FORCE
	initramfs/build-musl.sh $@

completions:
	WRITE_COMPLETIONS=1 cargo test --quiet --test documents completions

target/kernel/vmlinuz:
	initramfs/fetch-kernel.sh

initramfs: $(BINARY) $(KERNEL)
	initramfs/build.sh $(BINARY) target/initramfs

qemu: initramfs
	qemu/run.sh $(DISKS)

demo: setup
	$(MAKE) initramfs
	qemu/demo.sh

# rustfmt and clippy are not everywhere; CI has them, so nothing gets past it for want of them here.
test: setup
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check; fi
	@if cargo clippy --version >/dev/null 2>&1; then cargo clippy --all-targets -- -D warnings; fi
	$(MAKE) initramfs
	cargo test

setup:
	.ci/setup test

clean:
	rm -rf target
