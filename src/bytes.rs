//! A quick look at many bytes: most of what a sparse volume or a large bitmap holds is one byte over and over.

/// Is each of these bytes this one?
pub fn are_all(bytes: &[u8], byte: u8) -> bool {
    // Stretches of a fixed length are compared as one.
    let (stretches, rest) = bytes.as_chunks::<128>();
    let differs = |stretch: &[u8]| stretch.iter().fold(0, |differs, other| differs | (other ^ byte)) != 0;
    !stretches.iter().any(|stretch| differs(stretch)) && !differs(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_enough_to_differ() {
        for byte in [0, 0xff, 0x5a] {
            let mut bytes = [byte; 300];
            assert!(are_all(&bytes, byte) && are_all(&[], byte));
            for at in 0..bytes.len() {
                bytes[at] ^= 0x80;
                assert!(!are_all(&bytes, byte), "{at}");
                bytes[at] = byte;
            }
        }
    }
}
