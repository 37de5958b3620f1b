# The static binary, the small bootable system around it, and what proves both. Everything made lies under target/.
#
#   make                static musl release binary: target/musl/ntfsrescue
#   make install        put it in place, with its man page and completions (DESTDIR=, PREFIX=: packaging/install.sh)
#   make uninstall
#   make deb            a Debian package: target/deb/ntfsrescue_VERSION-1_amd64.deb
#   make completions    write the shell completions in doc/completions anew, from the options
#   make initramfs      target/initramfs/initramfs.cpio.zst and vmlinuz (KERNEL=, MODULES=, LEVEL=: initramfs/build.sh)
#   make stick          target/stick/stick.img, to dd to a USB stick that boots under BIOS and UEFI: CONF= bakes a
#                       configuration in, DATA=, SIZE=, STICK_ID=, TIMEOUT= (initramfs/stick.sh); KERNEL=, MODULES=,
#                       LEVEL= as for the initramfs, but LEVEL is 19
#   make netboot        target/netboot/: the same kernel and initramfs for PXE, with examples for iPXE, PXELINUX, GRUB
#   make qemu           boot them here: make qemu DISKS="a.raw b.raw" ARGS="ntfsrescue.action=shell"; QEMU_KVM=1 for KVM
#   make demo           a rescue from a failing disk to an image, shown in QEMU
#   make test           every check that CI runs
#   make test-all       the same, and the tests that are too long for CI: for each night
#   make deny           the crates that this is built of: licences, doubles, sources, and advisories where their database can
#                       be had (deny.toml); part of test-all
#   make msrv           does the oldest Rust that Cargo.toml names still build all of it? It must be here, by rustup or else
#   make fuzz           all fuzz targets, two at a time, each for SECONDS (60): fuzz/run.sh. Inputs are kept under target/fuzz
#   make fuzz-nightly   the same, 30 minutes each: for each night
#   make bench          time and memory on healthy volumes, compared with ntfsclone, partclone, cp and dd, as root (RUNS=5,
#                       ROWS='save,small-*', OURS=PROGRAM, VOLUMES=FOLDER for what is copied and written, KEEP=no to remove
#                       the volumes afterwards, PRIME=no for a page cache as it is found: benches/speed/main.rs); 20 minutes.
#                       All rows: into doc/performance.md
#   make bench-growth   the same for 1 to 8 GB and for 50,000 to 1,000,000 files, and a figure; 25 minutes, or 40 with KEEP=no
#   make bench-rescue   what is saved from dying disks, compared with ntfsclone and ddrescue, as root (SEEDS=20,
#                       PATTERNS=a,b, JOBS=2, FIGURE=FILE.svg: benches/rescue/main.rs); 20 minutes
#   make setup          install by apt-get what is missing on Debian (stick, netboot, demo, test, test-all, fuzz and
#                       the benchmarks do so themselves)
#   make clean

BINARY := target/musl/ntfsrescue
KERNEL ?= target/kernel/vmlinuz
PREFIX ?= /usr/local
export KERNEL MODULES LEVEL CONF DATA SIZE STICK_ID TIMEOUT ARGS QEMU_KVM DESTDIR PREFIX

CARGO_DEB_VERSION := 3.8.0
CARGO_DEB := target/tools/cargo-deb-$(CARGO_DEB_VERSION)/bin/cargo-deb
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := target/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := target/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz
SECONDS ?= 60

# The oldest Rust: what Cargo.toml says.
RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: all install uninstall deb completions initramfs stick netboot qemu demo test test-all deny msrv fuzz fuzz-nightly bench bench-growth bench-rescue setup clean FORCE
.DELETE_ON_ERROR:

all: $(BINARY)

# cargo knows what is out of date; the script leaves an unchanged binary alone.
$(BINARY): FORCE
	initramfs/build-musl.sh $@

# Root may have no Rust, so what is built is installed as it is.
install:
	@[ -e $(BINARY) ] || $(MAKE) $(BINARY)
	packaging/install.sh install

uninstall:
	packaging/install.sh uninstall

deb: $(BINARY) $(CARGO_DEB)
	$(CARGO_DEB) --quiet --no-build --locked --offline --output target/deb/

# Debian has no packages of these. Without its default features cargo-deb compresses by the command xz and needs no
# liblzma; unoptimised they take half the time to build, and none to speak of to run.
install_tool = CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install --quiet --locked --no-track --no-default-features \
	--version =$(1) --root $(@D:/bin=)

$(CARGO_DEB):
	$(call install_tool,$(CARGO_DEB_VERSION)) cargo-deb

$(CARGO_DENY):
	$(call install_tool,$(CARGO_DENY_VERSION)) cargo-deny

$(CARGO_FUZZ):
	$(call install_tool,$(CARGO_FUZZ_VERSION)) cargo-fuzz

completions:
	WRITE_COMPLETIONS=1 cargo test --quiet --test documents completions

target/kernel/vmlinuz:
	initramfs/fetch-kernel.sh

initramfs: $(BINARY) $(KERNEL)
	initramfs/build.sh $(BINARY) target/initramfs

# What leaves the house is packed as tight as it gets.
stick netboot: LEVEL := $(or $(LEVEL),19)

stick:
	.ci/setup build
	$(MAKE) $(BINARY) $(KERNEL)
	initramfs/build.sh $(BINARY) target/stick
	initramfs/stick.sh $(BINARY) target/stick target/stick/stick.img

netboot:
	.ci/setup build
	$(MAKE) $(BINARY) $(KERNEL)
	initramfs/build.sh $(BINARY) target/netboot
	install -m 644 initramfs/netboot/* target/netboot

qemu: initramfs
	qemu/run.sh $(DISKS)

demo: setup
	$(MAKE) initramfs
	qemu/demo.sh

# rustfmt and clippy are not everywhere; CI has them, so nothing gets past it for want of them here.
test: setup
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check; fi
	@if cargo clippy --version >/dev/null 2>&1; then cargo clippy --all-targets -- -D warnings; fi
	$(MAKE) initramfs deb
	cargo test $(TESTS)

test-all: deny
	$(MAKE) test TESTS="-- --include-ignored"

# What cannot be asked about is not passed over in silence: the last line says what was checked.
deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked check bans licenses sources
	@if timeout 120 $(CARGO_DENY) --log-level off --locked fetch db 2>/dev/null; then \
		$(CARGO_DENY) --locked check advisories && echo "deny: advisories were checked too"; \
	else \
		echo "deny: the database of advisories cannot be had from here: advisories were NOT checked"; \
	fi

msrv:
	@cargo=$$(rustup which --toolchain $(RUST_VERSION) cargo 2>/dev/null || command -v cargo); \
	PATH=$$(dirname "$$cargo"):$$PATH; found=$$(rustc --version | cut -d ' ' -f 2); \
	case $$found in \
	$(RUST_VERSION) | $(RUST_VERSION).*) ;; \
	*) echo "msrv: Rust $(RUST_VERSION) is not here, but $$found: nothing was tested" >&2; exit 1 ;; \
	esac; \
	CARGO_TARGET_DIR=target/msrv cargo check --quiet --locked --all-targets && echo "msrv: Rust $$found builds all of it"

fuzz:
	.ci/setup fuzz
	$(MAKE) $(BINARY) $(CARGO_FUZZ)
	fuzz/run.sh $(SECONDS) $(CARGO_FUZZ) $(BINARY) $(TARGETS)

fuzz-nightly:
	$(MAKE) fuzz SECONDS=1800

# What is measured is the binary that is installed.
bench bench-growth: BENCH_WORDS = ours=$(or $(OURS),$(BINARY)) runs=$(RUNS) volumes=$(VOLUMES) keep=$(KEEP) prime=$(PRIME)

bench: $(BINARY)
	.ci/setup bench
	cargo bench --quiet --bench speed -- $(BENCH_WORDS) rows='$(ROWS)' $(if $(ROWS),,document=doc/performance.md)

bench-growth: $(BINARY)
	.ci/setup bench
	cargo bench --quiet --bench speed -- growth $(BENCH_WORDS) document=doc/performance.md figure=doc/performance.svg

bench-rescue:
	.ci/setup bench
	cargo bench --quiet --bench rescue -- seeds=$(SEEDS) patterns=$(PATTERNS) jobs=$(JOBS) figure=$(FIGURE)

setup:
	.ci/setup test

clean:
	rm -rf target
