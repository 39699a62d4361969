//! Who calls? The holder of a token, which comes as a bearer with each call, or once as the password of a handshake.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tonic::metadata::MetadataValue;
use weir_engine::{
    Failure,
    query::{Door, Who},
};

use crate::server::{token, users::Users};

/// RFC 4648's base64; clients in Go leave the padding out.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// Bytes of a header with a user and a password.
const BASIC_MAX: usize = 1024;

/// Who a call is from.
#[derive(Clone)]
pub struct Caller {
    /// Tells owners of handles apart: the user and the hash of the token.
    pub key: String,
    /// What they come with to the engine.
    pub who: Who,
    /// The token.
    pub token: String,
}

/// The caller, whose token is looked up, by the header "authorization" of a call.
pub async fn caller(users: &Users, header: Option<&str>) -> Result<Caller, Failure> {
    let (name, token) = header.and_then(credentials).ok_or_else(nobody)?;
    let user = users.by_token(&token).await?.filter(|user| name.is_none_or(|name| name == user.name));
    let user = user.ok_or_else(|| refuse("this token is not known, it is revoked, or it is another user's"))?;
    if !user.scopes.has("sql") {
        return Err(Failure::error("not-allowed", format!("the token \"{}\" does not open \"sql\"", user.name))
            .help("make one that does with: weir serve token new NAME --scope sql"));
    }
    Ok(Caller { key: format!("{} {}", token::hash(&token), user.name), who: user.who(Door::Flight), token })
}

/// What a client sends with its calls after a handshake.
pub fn bearer(token: &str) -> Result<MetadataValue<tonic::metadata::Ascii>, Failure> {
    format!("Bearer {token}").parse().map_err(|_| refuse("this token is not known"))
}

/// Whoever shows nothing is told what to show.
pub fn nobody() -> Failure {
    refuse("this needs a token, as the header \"authorization: Bearer TOKEN\", or as the password of a user with the token's name")
}

fn refuse(message: &str) -> Failure {
    Failure::error("unauthorized", message).help("make one with: weir serve token new NAME --scope sql")
}

/// The name, where there is one, and the token.
fn credentials(header: &str) -> Option<(Option<String>, String)> {
    if let Some(token) = token::bearer(header) {
        return Some((None, token.to_owned()));
    }
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > BASIC_MAX {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (name, token) = text.split_once(':')?;
    Some((Some(name.to_owned()), token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_a_bearer_or_as_a_password() {
        assert_eq!(credentials("Bearer weir_1"), Some((None, "weir_1".to_owned())));
        let both = Some((Some("ann".to_owned()), "weir_1:2".to_owned()));
        assert_eq!(credentials("Basic YW5uOndlaXJfMToy"), both);
        assert_eq!(credentials("basic  YW5uOndlaXJfMToy"), both);
        assert_eq!(credentials("Basic OndlaXI"), Some((Some(String::new()), "weir".to_owned())));
        assert_eq!(credentials("Basic OndlaXI="), Some((Some(String::new()), "weir".to_owned())));
        for none in ["", "Basic", "Basic ", "Basic ****", "Basic YW5u", "Basic /w==", "Digest YW5uOndlaXJfMToy", "YW5uOndlaXJfMToy"] {
            assert_eq!(credentials(none), None, "{none:?}");
        }
        assert_eq!(credentials(&format!("Basic {}", "YW5u".repeat(BASIC_MAX))), None);
    }
}
