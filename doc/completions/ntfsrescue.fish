complete -c ntfsrescue -s o -l output -d 'Write to FILE, which must not exist; \'-\' is standard output' -r -F
complete -c ntfsrescue -s O -l overwrite -d 'Write to FILE, a device or an existing file, replacing its content' -r -F
complete -c ntfsrescue -l map -d 'Keep what was read and what was lost in FILE, in GNU ddrescue\'s format, and go on where it says' -r -F
complete -c ntfsrescue -l map-interval -d 'Write the map so often at most' -r
complete -c ntfsrescue -l first -d 'Read the files that match before all others: a path or a pattern such as \'Users/*/Documents\'' -r
complete -c ntfsrescue -l retries -d 'Try bad sectors N times more' -r
complete -c ntfsrescue -l max-errors -d 'End after N reads have failed' -r
complete -c ntfsrescue -l max-time -d 'End after TIME: seconds, or a number followed by s, m, h or d' -r
complete -c ntfsrescue -l reconnect -d 'Wait so long for a disk that has gone away to come back' -r
complete -c ntfsrescue -l report -d 'Write a report of what was saved and lost to FILE, as JSON' -r -F
complete -c ntfsrescue -l domain-out -d 'Write the bytes in use to FILE, as a domain map for \'ddrescue -m\'' -r -F
complete -c ntfsrescue -l split -d 'With --save-image: write numbered parts of SIZE bytes, FILE.001 and so on; SIZE may end with K, M or G' -r
complete -c ntfsrescue -l compress -d 'With --save-image: compress the image with zstd, by default at level 3, or with lz4' -r
complete -c ntfsrescue -l against -d 'With --verify: compare the image with the volume on DEVICE too' -r -F
complete -c ntfsrescue -l events -d 'Write events as lines to this open file descriptor' -r
complete -c ntfsrescue -l finish -d 'Make the TARGET of a rescue that has ended complete, without its disk: mark what the map MAP says is missing' -r -F
complete -c ntfsrescue -l check-config -d 'Check FILE, an ntfsrescue.conf of the bootable system, and tell its job in words; do nothing else' -r -F
complete -c ntfsrescue -s s -l save-image -d 'Write the special image format'
complete -c ntfsrescue -s r -l restore-image -d 'SOURCE is a special image; \'-\' is standard input'
complete -c ntfsrescue -l rescue -d 'Go on after read errors: what cannot be read is marked BadSectoR'
complete -c ntfsrescue -s m -l metadata -d 'Copy metadata only: no contents of files, and nothing else that is private'
complete -c ntfsrescue -s n -l no-action -d 'With --restore-image: check the image, write nothing'
complete -c ntfsrescue -l ignore-fs-check -d 'With --rescue or --metadata: go on although the volume\'s structures are damaged or disagree'
complete -c ntfsrescue -l new-serial -d 'Give the clone a new random serial number'
complete -c ntfsrescue -l new-half-serial -d 'Give the clone a serial number whose upper half is new'
complete -c ntfsrescue -s t -l preserve-timestamps -d 'With --metadata: keep the times of files'
complete -c ntfsrescue -l full-logfile -d 'With --metadata: keep the whole $LogFile, as it is'
complete -c ntfsrescue -s f -l force -d 'Go on although the volume is marked dirty, or with --metadata to a device'
complete -c ntfsrescue -s q -l quiet -d 'Show no progress'
complete -c ntfsrescue -l strict -d 'Exit with status 3 if anything was lost'
complete -c ntfsrescue -l whole -d 'Read free space too, after all else'
complete -c ntfsrescue -l no-repair -d 'Mark what has a copy elsewhere too, instead of writing the copy in its place'
complete -c ntfsrescue -l checksum -d 'With --save-image: end the image with checksums on standard output and in pipes too, where it has none by itself'
complete -c ntfsrescue -l no-checksum -d 'Write an image without checksums, byte for byte as ntfsclone does; read one without comparing those it has'
complete -c ntfsrescue -l verify -d 'Check the image SOURCE, write nothing. With --restore-image: read the target back when it is written, and compare it with the image'
complete -c ntfsrescue -l no-verify -d 'Do not, whatever --verify says'
complete -c ntfsrescue -s h -l help -d 'Print help'
complete -c ntfsrescue -s V -l version -d 'Print version'
complete -c ntfsclone -w ntfsrescue
