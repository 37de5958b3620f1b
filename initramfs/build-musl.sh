#!/bin/bash
# Builds the static release binary for x86_64 Linux.
#
#   build-musl.sh OUTPUT      build, and copy the binary to OUTPUT where it differs
#   build-musl.sh --has-std   say by exit status whether the Rust in PATH has a standard library for musl
#
# libzstd is in C and compiled by musl-gcc, which cargo finds by its name. For what is in Rust there are two ways. A
# toolchain with the musl target installed (rustup target add x86_64-unknown-linux-musl) builds plainly. Otherwise
# Debian's rustc builds the standard library itself, from its source package, and links with musl-gcc.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-musl
# A build directory of its own: host builds with other flags must not evict this one's 90 seconds of standard library.
export CARGO_TARGET_DIR=$PWD/target/musl-build

die() { echo "build-musl: $*" >&2; exit 1; }

has_musl_gcc() { command -v musl-gcc >/dev/null; }

has_std() {
    local libdir
    libdir=$(rustc --print target-libdir --target "$target" 2>/dev/null) || return 1
    compgen -G "$libdir/libstd-*.rlib" >/dev/null
}

build_with_installed_std() {
    cargo build --release --target "$target"
}

# Debian's Rust and what it needs for this, whichever Rust comes first in PATH.
has_debian_source() {
    local sysroot
    sysroot=$(/usr/bin/rustc --print sysroot 2>/dev/null) || return 1
    [[ -x /usr/bin/cargo && -e $sysroot/lib/rustlib/src/rust/library/Cargo.toml ]]
}

build_with_debian_std() {
    local rustflags

    # cargo does not notice when the stub alone changes; it is three lines that never do.
    mkdir -p "$CARGO_TARGET_DIR/lib"
    musl-gcc -O2 -c initramfs/unwind-stub.c -o "$CARGO_TARGET_DIR/lib/unwind-stub.o"
    rm -f "$CARGO_TARGET_DIR/lib/libunwind.a"
    ar rcsD "$CARGO_TARGET_DIR/lib/libunwind.a" "$CARGO_TARGET_DIR/lib/unwind-stub.o"

    # With relocation-model=pic musl-gcc would link a PIE that names an interpreter, which an initramfs does not have.
    rustflags=(-C linker=musl-gcc -C link-self-contained=no -C relocation-model=static -L "$CARGO_TARGET_DIR/lib")
    # PATH, so that cargo finds no other toolchain's rustc; RUSTC_BOOTSTRAP for -Z build-std. The flags are handed over
    # encoded (separated by a unit separator), so that they survive spaces in the path, and beat an inherited RUSTFLAGS.
    env PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CC_x86_64_unknown_linux_musl=musl-gcc \
        CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f' && echo "${rustflags[*]}")" \
        /usr/bin/cargo build --release -Z build-std=std,panic_abort --target "$target"
}

case ${1:-} in
--has-std) has_std && exit 0 || exit 1 ;;
'' | -*) die "usage: build-musl.sh OUTPUT | --has-std" ;;
esac

has_musl_gcc || die "no musl-gcc: run .ci/setup build, or install musl-tools"
if has_std; then
    build_with_installed_std
elif has_debian_source; then
    build_with_debian_std
else
    die "no Rust for $target: run .ci/setup build, or rustup target add $target"
fi

built=$CARGO_TARGET_DIR/$target/release/ntfsrescue
if readelf --wide --program-headers "$built" | grep INTERP >/dev/null; then
    die "$built is not static: it names an interpreter"
fi
# An unchanged binary keeps its time stamp, so that nothing made from it is made again.
cmp -s "$built" "$1" || install -D "$built" "$1"
