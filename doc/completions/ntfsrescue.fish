complete -c ntfsrescue -s o -l output -d 'Write to FILE, which must not exist; \'-\' is standard output' -r -F
complete -c ntfsrescue -s O -l overwrite -d 'Write to FILE, a device or an existing file, replacing its content' -r -F
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
complete -c ntfsrescue -s h -l help -d 'Print help'
complete -c ntfsrescue -s V -l version -d 'Print version'
complete -c ntfsclone -w ntfsrescue
