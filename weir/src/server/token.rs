//! The words that open the HTTP port: how they are made, and what is kept of them.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use weir_connectors::Blame;
use weir_engine::Failure;

/// What a token begins with, so that one that was committed by mistake can be found.
const PREFIX: &str = "weir_";
/// Bytes of chance in a token: nobody guesses 256 bits.
const CHANCE_BYTES: usize = 32;
/// What is longer is none of ours.
const LENGTH_MAX: usize = 256;

/// Makes a token. It is shown once; only its [`hash`] is kept.
pub fn generate() -> Result<String, Failure> {
    let mut chance = [0; CHANCE_BYTES];
    getrandom::fill(&mut chance).map_err(|error| {
        Failure::error("no-random-numbers", format!("the system gives no random numbers: {error}")).blame(Blame::System)
    })?;
    Ok(format!("{PREFIX}{}", hex(&chance)))
}

/// What is kept of a token: its SHA-256 in hexadecimal. A hash that is slow on purpose would add nothing to 256 bits of chance.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// The token of an `Authorization` header; none where there is no bearer token, or it cannot be one of ours.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let is_one = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LENGTH_MAX;
    is_one.then_some(token)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_chance_and_is_known_by_its_hash() {
        let (one, other) = (generate().expect("chance"), generate().expect("chance"));
        assert_ne!(one, other);
        assert!(one.starts_with("weir_") && one.len() == 5 + 64, "{one}");
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "of FIPS 180-4");
    }

    #[test]
    fn a_header_holds_a_token_or_none() {
        assert_eq!(bearer("Bearer weir_1"), Some("weir_1"));
        assert_eq!(bearer("bearer  weir_1 "), Some("weir_1"));
        for none in ["", "Bearer", "Bearer ", "Basic weir_1", "weir_1"] {
            assert_eq!(bearer(none), None, "{none:?}");
        }
        assert_eq!(bearer(&format!("Bearer {}", "a".repeat(LENGTH_MAX + 1))), None);
    }
}
