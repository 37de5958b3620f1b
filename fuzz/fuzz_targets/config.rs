//! The kernel's command line and a configuration file, NUL between them; their values.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::init::config::{ConfFile, Config, Endings, stick_of, wants_shell};
use ntfsrescue::init::spec::{Confirm, DeviceSpec, ImageSpec, Volumes};
use ntfsrescue::init::template::{Template, harmless};
use ntfsrescue_fuzz::assert_plain;

fuzz_target!(|bytes: &[u8]| {
    let (line, file) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    };
    let line = String::from_utf8_lossy(line);
    let files: Vec<_> = file.iter().map(|bytes| ConfFile { name: "ntfsrescue.conf", bytes }).collect();
    if let Err(error) = Config::parse(&line, &files) {
        assert_plain(&error);
    }
    let _rest = (Endings::of(&line, &files), stick_of(&line), wants_shell(&line));

    let _device = (DeviceSpec::source(&line).is_ok(), DeviceSpec::target(&line).is_ok());
    let _rest =
        (Volumes::parse(&line).is_ok(), ImageSpec::existing(&line).is_ok(), Confirm::parse(&line).is_ok());
    if let Ok(template) = Template::parse(&line) {
        assert_eq!(template.as_str(), line);
    }
    let name = harmless(&line);
    assert!(!name.contains('/') && !name.chars().any(char::is_control), "{name:?}");
});
