//! Base64 and PEM, without echoing what they hold.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use snafu::ensure;
use zeroize::Zeroizing;

use super::KeyError;

/// The longest text of a key, in bytes: several keys of a Secret have some 140 each.
const MAX_TEXT_BYTES: usize = 64 << 10;

pub(super) fn decode_base64(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    ensure!(
        text.len() <= MAX_TEXT_BYTES,
        super::TooLongSnafu { limit: MAX_TEXT_BYTES }
    );
    STANDARD
        .decode(text.trim())
        .map(Zeroizing::new)
        .map_err(|_| KeyError::Base64)
}

/// The content of the only PEM block of a text.
pub(super) fn decode_pem(text: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    ensure!(
        text.len() <= MAX_TEXT_BYTES,
        super::TooLongSnafu { limit: MAX_TEXT_BYTES }
    );
    let wrong = KeyError::Pem { label };
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let body = text
        .trim()
        .strip_prefix(&begin)
        .and_then(|rest| rest.strip_suffix(&end))
        .ok_or(wrong.clone())?;
    let joined = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    STANDARD
        .decode(joined.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| wrong)
}
