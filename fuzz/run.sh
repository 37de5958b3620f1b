#!/bin/bash
# Fuzzes every target for so many seconds, two at a time: fuzz/run.sh SECONDS CARGO_FUZZ NTFSRESCUE [TARGET...]
#
# Inputs are kept in target/fuzz/corpus from run to run; seeds come from volumes made now, and from the folder that
# NTFSRESCUE_VOLUMES names. A finding ends the run of its target and is named at the end, with status 1.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 cargo_fuzz=$(realpath "$2") program=$(realpath "$3")
shift 3
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(basename --suffix=.rs -a fuzz/fuzz_targets/*.rs)

# What libFuzzer needs of the compiler is not in stable Rust by its name; the compiler is the same.
export RUSTC_BOOTSTRAP=1
out=$PWD/target/fuzz
mkdir -p "$out"

volumes() {
    local i=0 size cluster sector
    for size in 1028 2048 4096; do
        for cluster in 512 1024 4096; do
            for sector in 512 4096; do
                [[ $cluster -ge $sector ]] || continue
                local file="$1/made-$((i++))"
                truncate -s ${size}K "$file"
                mkntfs -q -F -Q -s "$sector" -c "$cluster" -L fuzz "$file" >/dev/null 2>&1
                head -c 3000 /dev/urandom >"$1/content"
                for name in small folder.txt; do ntfscp -q "$file" "$1/content" "$name" 2>/dev/null; done
                rm "$1/content"
            done
        done
    done
    for given in "${NTFSRESCUE_VOLUMES:-/nonexistent}"/*.ntfs.zst; do
        [[ ! -e $given ]] || zstd -dq --long=27 --sparse "$given" -o "$1/$(basename "$given" .zst)"
    done
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
volumes "$scratch"
cargo run --quiet --release --manifest-path fuzz/Cargo.toml --target-dir "$out/build" --example seeds -- \
    "$out/corpus" "$program" "$scratch"/*
"$cargo_fuzz" build --sanitizer none --fuzz-dir fuzz --target-dir "$out/build"

fuzz() {
    local corpus=$out/corpus/$1 log=$out/$1.log
    mkdir -p "$corpus" "$out/artifacts/$1"
    # The limits: one input takes a second on no machine, and no more memory than a volume of its size needs.
    if "$cargo_fuzz" run --sanitizer none --fuzz-dir fuzz --target-dir "$out/build" "$1" "$corpus" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=128 -max_len=131072 \
        -artifact_prefix="$out/artifacts/$1/" -print_final_stats=1 >"$log" 2>&1; then
        echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, covered $(grep -o 'cov: [0-9]*' "$log" |
            tail -1 | cut -d' ' -f2), no finding"
    else
        echo "$1: FINDING, see $log and $out/artifacts/$1"
        return 1
    fi
}
export -f fuzz
export out cargo_fuzz seconds
# xargs ends with 123 where one of them had a finding.
printf '%s\n' "${targets[@]}" | xargs -P "${JOBS:-2}" -I{} bash -c 'fuzz {}'
