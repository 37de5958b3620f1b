#!/bin/bash
# Puts target/musl/ntfsrescue in place, with its man page and its completions, or takes all of it away again.
#
#   install.sh install|uninstall
#
#   DESTDIR  a directory that stands for the root (default: none)
#   PREFIX   (default: /usr/local)
#
# Beside everything named ntfsrescue lies a link named ntfsclone; where a file of this name is no link, it belongs to
# another package, and nothing is installed. With PREFIX=/usr, where the distribution has its own ntfsclone, the only
# link is $PREFIX/lib/ntfsrescue/ntfsclone: that directory goes first in PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

die() { echo "install: $*" >&2; exit 1; }

prefix=${PREFIX:-/usr/local}
prefix=${prefix%/}
root=${DESTDIR-}$prefix

# Under the root: each file with its source and mode, each link with its content.
files=(
    'sbin/ntfsrescue target/musl/ntfsrescue 755'
    'share/man/man8/ntfsrescue.8 doc/ntfsrescue.8 644'
    'share/bash-completion/completions/ntfsrescue doc/completions/ntfsrescue.bash 644'
    'share/zsh/site-functions/_ntfsrescue doc/completions/_ntfsrescue 644'
    'share/fish/vendor_completions.d/ntfsrescue.fish doc/completions/ntfsrescue.fish 644'
    'share/doc/ntfsrescue/README.md README.md 644'
    'share/doc/ntfsrescue/CHANGELOG.md CHANGELOG.md 644'
)
# zsh needs none: its file names both commands.
links=(
    'sbin/ntfsclone ntfsrescue'
    'share/man/man8/ntfsclone.8 ntfsrescue.8'
    'share/bash-completion/completions/ntfsclone ntfsrescue'
    'share/fish/vendor_completions.d/ntfsclone.fish ntfsrescue.fish'
)
case $prefix in
/usr | '') links=('lib/ntfsrescue/ntfsclone ../../sbin/ntfsrescue') ;;
esac

install_all() {
    local name source mode content
    for link in "${links[@]}"; do
        name=$root/${link% *}
        [[ -L $name || ! -e $name ]] || die "$name is another package's: take another PREFIX"
    done
    for file in "${files[@]}"; do
        read -r name source mode <<<"$file"
        install -D -m "$mode" "$source" "$root/$name"
    done
    for link in "${links[@]}"; do
        read -r name content <<<"$link"
        mkdir -p "$root/${name%/*}"
        ln -sfn "$content" "$root/$name"
    done
}

uninstall_all() {
    local name content
    for file in "${files[@]}"; do
        rm -f "$root/${file%% *}"
    done
    for link in "${links[@]}"; do
        read -r name content <<<"$link"
        [[ $(readlink "$root/$name") != "$content" ]] || rm "$root/$name"
    done
    # Ours alone, where they were made at all.
    for name in lib/ntfsrescue share/doc/ntfsrescue; do
        [[ ! -d $root/$name ]] || rmdir "$root/$name"
    done
}

case ${1-} in
install) install_all ;;
uninstall) uninstall_all ;;
*) die "usage: install.sh install|uninstall" ;;
esac
