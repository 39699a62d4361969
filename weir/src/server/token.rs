//! The words that open a server's ports: how they are made, what is kept of them, and what they may open.

use std::fmt::Write as _;

use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, gen_salted_password};
use sha2::{Digest, Sha256};
use weir_connectors::Blame;
use weir_engine::{Failure, history::tokens::Scram, query::SCOPES};
use weir_pipelines::Diagnostic;

/// What a token begins with, so that one that was committed by mistake can be found.
const PREFIX: &str = "weir_";
/// Bytes of chance in a token: nobody guesses 256 bits.
const CHANCE_BYTES: usize = 32;
/// Bytes of chance in a salt, as Postgres has them.
const SALT_BYTES: usize = 16;
/// What is longer is none of ours.
const LENGTH_MAX: usize = 256;
/// Letters of a name: Postgres has no longer users.
const NAME_MAX: usize = 63;
/// What stands before a connection's name in a scope of it alone.
const CONNECTION: &str = "connection:";
/// The scopes of a token that is made without saying any.
pub const DEFAULT_SCOPES: [&str; 2] = ["runs", "sql"];
/// The name that the token of `--print-urls` goes by: none other has it.
pub const OWN_NAME: &str = "weir";

/// Makes a token. It is shown once; only its [`hash`] and what [`salted`] makes of it are kept.
pub fn generate() -> Result<String, Failure> {
    Ok(format!("{PREFIX}{}", hex(&chance::<CHANCE_BYTES>()?)))
}

fn chance<const BYTES: usize>() -> Result<[u8; BYTES], Failure> {
    let mut chance = [0; BYTES];
    getrandom::fill(&mut chance).map_err(|error| {
        Failure::error("no-random-numbers", format!("the system gives no random numbers: {error}")).blame(Blame::System)
    })?;
    Ok(chance)
}

/// What is kept of a token: its SHA-256 in hexadecimal. A hash that is slow on purpose would add nothing to 256 bits of chance.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// A word that nobody guesses, for what is kept in memory for a while.
pub fn ticket() -> Result<String, Failure> {
    Ok(hex(&chance::<SALT_BYTES>()?))
}

/// What SCRAM-SHA-256 compares with a token, under a salt of its own.
pub fn salted(token: &str) -> Result<Scram, Failure> {
    let salt = chance::<SALT_BYTES>()?;
    Ok(Scram { salt: hex(&salt), salted_password: hex(&gen_salted_password(token, &salt, SCRAM_ITERATIONS)) })
}

/// The token of an `Authorization` header; none where there is no bearer token, or it cannot be one of ours.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let is_one = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LENGTH_MAX;
    is_one.then_some(token)
}

/// Checks the name of a new token: it is a user of Postgres too, and stands in URLs.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if name.is_empty() || name.len() > NAME_MAX || !is_plain {
        let found = Diagnostic::error("bad-name", format!("\"{name}\" cannot be the name of a token"));
        return Err(found.help(format!("a name has letters, digits, \"_\", \"-\" and \".\", up to {NAME_MAX} of them")).into());
    }
    if name == OWN_NAME {
        let found = Diagnostic::error("bad-name", format!("\"{name}\" is what the token of weir serve --print-urls is called"));
        return Err(found.help("choose another name").into());
    }
    Ok(())
}

/// Checks the scopes of a new token, and leaves out what is said twice; none said are [`DEFAULT_SCOPES`].
pub fn scopes(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut scopes: Vec<String> = Vec::new();
    for word in words {
        if !is_scope(word) {
            let found = Diagnostic::error("unknown-word", format!("\"--scope\" cannot be \"{word}\""));
            let known = SCOPES.join(", ");
            return Err(found.did_you_mean(word, SCOPES).help(format!("words are: {known}, {CONNECTION}NAME")).into());
        }
        if !scopes.contains(word) {
            scopes.push(word.clone());
        }
    }
    Ok(if scopes.is_empty() { DEFAULT_SCOPES.map(str::to_owned).to_vec() } else { scopes })
}

/// Whether a word is a scope. That there is a connection of the name may come later.
pub fn is_scope(word: &str) -> bool {
    let is_plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    SCOPES.contains(&word) || word.strip_prefix(CONNECTION).is_some_and(is_plain)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a text in hexadecimal; none where it is none.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
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
    fn a_token_is_salted_as_scram_does() {
        // RFC 7677, section 3: the password "pencil", and this salt.
        let salt = bytes("5b6d99689d12358eeca04b141236fa81").expect("hexadecimal");
        let salted = hex(&gen_salted_password("pencil", &salt, SCRAM_ITERATIONS));
        assert_eq!(
            salted, "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d",
            "as PBKDF2 of Python's hashlib says, over 4096 rounds"
        );
        let (one, other) = (super::salted("weir_1").expect("chance"), super::salted("weir_1").expect("chance"));
        assert!(one.salt != other.salt && one.salted_password != other.salted_password);
        let again = gen_salted_password("weir_1", &bytes(&one.salt).expect("hexadecimal"), SCRAM_ITERATIONS);
        assert_eq!((one.salt.len(), one.salted_password), (32, hex(&again)));
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

    #[test]
    fn scopes_are_words_of_the_list_or_a_connection() {
        let said = |words: &[&str]| scopes(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(said(&[]).expect("right"), ["runs", "sql"]);
        assert_eq!(said(&["sql", "connection:crm", "sql"]).expect("right"), ["sql", "connection:crm"]);
        for wrong in ["", "sqll", "connection:", "connection:a,b", "SQL", "connection"] {
            assert!(said(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        for none in ["0", "0g", "é0", "+1"] {
            assert_eq!(bytes(none), None, "{none}");
        }
    }
}
