#!/bin/bash
# Unpacks Debian's newest kernel for this release into target/kernel: vmlinuz and lib/modules/VERSION. Nothing is
# installed, and the running kernel does not matter. Does nothing when there is one: delete target/kernel for a newer.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin # depmod, for a plain user

die() { echo "fetch-kernel: $*" >&2; exit 1; }
[[ ! -e target/kernel/vmlinuz ]] || exit 0

# The newest kernel package that a metapackage stands for. Debian 12's linux-image-amd64 is a 6.1 without any NTFS
# driver; its linux-image-6.12-amd64 has ntfs3.
newest_kernel() {
    apt-cache pkgnames linux-image- | sed -nE '/^linux-image-([0-9]+\.[0-9]+-)?amd64$/p' |
        xargs apt-cache --no-all-versions show 2>/dev/null |
        sed -nE 's/^Depends: .*\<(linux-image-[0-9][^ ,]*).*/\1/p' | sort --version-sort | tail -n 1
}
# Downloads as the caller: without the sandbox user, whom root's apt-get would miss the right to write here for.
download() {
    package=$(newest_kernel) && [[ -n $package ]] &&
        (cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package")
}

work=target/kernel.new
rm -rf "$work"
mkdir -p "$work"
if ! download 2>/dev/null; then
    # No package lists yet, or lists so old that the mirror has dropped what they name.
    as_root=()
    [[ $(id -u) == 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update
    download || die "no kernel package to download (looked for linux-image-amd64 and linux-image-X.Y-amd64)"
fi

dpkg --extract "$work"/*.deb "$work/package"
version=${package#linux-image-}
mv "$work/package/boot/vmlinuz-$version" "$work/vmlinuz"
mkdir "$work/lib"
for lib in "$work"/package/{usr/lib,lib}/modules; do # Debian 13, Debian 12
    [[ ! -d $lib ]] || mv "$lib" "$work/lib/modules"
done
# The package leaves modules.dep to its installation. A depmod that works in usr/lib finds the modules through the link.
mkdir "$work/usr" && ln -s ../lib "$work/usr/lib"
depmod --basedir "$work" "$version"

rm -rf "${work:?}"/{package,usr,*.deb} target/kernel
mv "$work" target/kernel
echo "fetch-kernel: $package"
