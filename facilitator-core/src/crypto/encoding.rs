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
    decode(text.trim().as_bytes()).ok_or(KeyError::Base64)
}

/// Into memory that is wiped even where the text turns out not to be base64 after all.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = STANDARD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
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
    let mut joined = Zeroizing::new(String::with_capacity(body.len()));
    joined.extend(body.split_ascii_whitespace());
    decode(joined.as_bytes()).ok_or(wrong)
}
