//! Keys as the original's rotator keeps them: `key_versions`, a JSON list. Facts: the protocol reference §6.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use p256::elliptic_curve::sec1::ToSec1Point;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::KeyError;

/// What stands in a Secret that has no key yet.
const PLACEHOLDER: &str = "not-a-real-key";
/// The first byte of a key on P-256.
const P256: u8 = 1;
/// That byte, the compressed point and the scalar.
const KEY_BYTES: usize = 1 + 33 + 32;
/// The longest list, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Go writes this base64 without padding; with padding it is as clear.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One version. Debug shows no key.
pub struct OriginalVersion {
    /// Seconds since 1970; part of the key's id, 0: no part.
    pub created: i64,
    /// Whether it is used for new work.
    pub primary: bool,
    /// The private half, big-endian.
    pub scalar: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for OriginalVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginalVersion")
            .field("created", &self.created)
            .field("primary", &self.primary)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Written<'a> {
    /// Never a copy, which nobody would wipe.
    key: &'a str,
    creation_time: String,
    #[serde(default)]
    primary: bool,
}

/// Reads `key_versions`, oldest first.
///
/// # Errors
/// [`KeyError::OriginalVersions`]; it never says what a key holds.
pub fn read_versions(text: &str) -> Result<Vec<OriginalVersion>, KeyError> {
    let wrong = |detail: String| KeyError::OriginalVersions { detail };
    if text.trim() == PLACEHOLDER {
        return Err(wrong(
            "the Secret is a placeholder that the rotator has not filled yet".to_owned(),
        ));
    }
    if text.len() > MAX_BYTES {
        return Err(wrong(format!("they are longer than {MAX_BYTES} bytes")));
    }
    let plain =
        unescaped(text).ok_or_else(|| wrong("a backslash in them stands before no character of base64".to_owned()))?;
    // The error's own text may quote what is there.
    let written: Vec<Written<'_>> = serde_json::from_str(&plain).map_err(|error| {
        wrong(format!(
            "line {}, column {} is no JSON list of them",
            error.line(),
            error.column()
        ))
    })?;
    // Neither grown nor sorted by way of other memory, in which scalars would stay.
    let mut versions = Vec::with_capacity(written.len());
    for one in &written {
        versions.push(read_version(one)?);
    }
    versions.sort_unstable_by_key(|version| version.created);
    let twice = versions.windows(2).any(|pair| pair[0].created == pair[1].created);
    if twice {
        return Err(wrong("two have the same creation_time".to_owned()));
    }
    match versions.iter().filter(|version| version.primary).count() {
        1 => Ok(versions),
        count => Err(wrong(format!("{count} are primary, and one must be"))),
    }
}

/// The list without the escapes that JSON allows in base64 (`\/`, `\u002b`), in memory that is wiped: `serde_json` would
/// resolve them in memory that isn't. `None`: there is another one.
fn unescaped(text: &str) -> Option<Zeroizing<String>> {
    // An escape is longer than what it stands for.
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        let (character, after) = match escape.strip_prefix('u') {
            Some(escape) => {
                let (digits, after) = escape.split_at_checked(4)?;
                (base64_character(digits)?, after)
            }
            None => ('/', escape.strip_prefix('/')?),
        };
        plain.push(character);
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

/// The character of base64 that has this number, in hexadecimal digits.
fn base64_character(digits: &str) -> Option<char> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let code = u8::from_str_radix(digits, 16).ok().filter(|_| is_number)?;
    let is_base64 = code.is_ascii_alphanumeric() || b"+/=".contains(&code);
    is_base64.then(|| char::from(code))
}

fn read_version(written: &Written<'_>) -> Result<OriginalVersion, KeyError> {
    let wrong = |detail: &str| KeyError::OriginalVersions {
        detail: detail.to_owned(),
    };
    let created = written.creation_time.parse();
    let created: i64 = created.map_err(|_| wrong("a creation_time is no number of seconds"))?;
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(written.key.len())]);
    let length = BASE64
        .decode_slice(written.key.as_bytes(), &mut bytes)
        .map_err(|_| KeyError::Base64)?;
    if length != KEY_BYTES || bytes[0] != P256 {
        return Err(wrong(
            "a key isn't one on P-256: 1, a compressed point of 33 bytes and a scalar of 32",
        ));
    }
    let mut scalar = Zeroizing::new([0; 32]);
    scalar.copy_from_slice(&bytes[34..KEY_BYTES]);
    let key = p256::SecretKey::from_slice(scalar.as_slice()).map_err(|_| KeyError::Scalar)?;
    let point = key.public_key().to_sec1_point(true);
    if point.as_bytes() != &bytes[1..34] {
        return Err(wrong("a key's point doesn't belong to its scalar"));
    }
    Ok(OriginalVersion {
        created,
        primary: written.primary,
        scalar,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// 1, the compressed point of the scalar 1 (the generator), the scalar 1: base64 without padding, as Go writes it.
    fn generator() -> String {
        let hex = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        let mut bytes = vec![P256];
        bytes.extend((0..33).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()));
        bytes.extend([0; 31]);
        bytes.push(1);
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
    }

    fn list(entries: &[(&str, &str, bool)]) -> String {
        let entries = entries.iter().map(
            |(key, created, primary)| serde_json::json!({"key": key, "creation_time": created, "primary": primary}),
        );
        serde_json::Value::Array(entries.collect()).to_string()
    }

    #[test]
    fn versions_are_read_oldest_first() {
        let key = generator();
        let padded = format!("{key}{}", "=".repeat((4 - key.len() % 4) % 4));
        let versions = read_versions(&list(&[(&key, "1700000000", true), (&padded, "0", false)])).unwrap();
        let read: Vec<_> = versions.iter().map(|v| (v.created, v.primary, v.scalar[31])).collect();
        assert_eq!(read, [(0, false, 1), (1_700_000_000, true, 1)]);
        assert!(!format!("{versions:?}").contains("scalar"));
    }

    #[test]
    fn escapes_of_base64_are_resolved_and_no_others_are_taken() {
        let table = [
            ("a", Some("a")),
            (r"\/", Some("/")),
            (r"a\u002bb\u003D\/", Some("a+b=/")),
            (r"\u0041\u007a", Some("Az")),
            (r"\n", None),
            (r"\\/", None),
            (r"\u0022", None),
            (r"\u005c", None),
            (r"\u0141", None),
            (r"\u+02b", None),
            (r"\u00", None),
            (r"\u00é", None),
            ("\\", None),
        ];
        for (text, expected) in table {
            let plain = unescaped(text);
            assert_eq!(plain.as_ref().map(|plain| plain.as_str()), expected, "{text}");
        }
        let key = generator();
        let escaped = list(&[(&key, "1", true)]).replacen(&key[..1], r"\u0041", 1);
        assert_eq!(&key[..1], "A");
        assert_eq!(read_versions(&escaped).unwrap()[0].scalar[31], 1);
    }

    #[test]
    fn what_is_not_a_list_of_usable_keys_is_refused_and_never_quoted() {
        let key = generator();
        let mut other = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&key).unwrap();
        other[65] = 2;
        let other = base64::engine::general_purpose::STANDARD_NO_PAD.encode(other);
        let table = [
            (PLACEHOLDER.to_owned(), "placeholder"),
            ("secret text".to_owned(), "no JSON list"),
            (list(&[(&key, "1", false)]), "0 are primary"),
            (list(&[(&key, "1", true), (&key, "2", true)]), "2 are primary"),
            (list(&[(&key, "1", true), (&key, "1", false)]), "the same creation_time"),
            (list(&[(&key, "yesterday", true)]), "no number of seconds"),
            (list(&[(&key[..60], "1", true)]), "isn't one on P-256"),
            (list(&[("secret text", "1", true)]), "no standard base64"),
            (list(&[(&other, "1", true)]), "doesn't belong to its scalar"),
            (list(&[("secret text\n", "1", true)]), "a backslash"),
        ];
        for (text, expected) in table {
            let error = read_versions(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret text") && !error.contains(&key[..20]), "{error}");
        }
    }
}
