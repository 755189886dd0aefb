//! AES-128-GCM with 16-byte nonces, opened by aws-lc.
//!
//! aws-lc-rs has 12-byte nonces alone, the library below it takes any. The nonce's length apart these are the calls that
//! aws-lc-rs makes itself; the only unsafe code of the cryptography is here, and RustCrypto's aes-gcm seals what it opens
//! in samples and tests.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys::{
    EVP_AEAD_CTX, EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open, EVP_AEAD_CTX_zero, EVP_aead_aes_128_gcm,
    OPENSSL_cleanse,
};
use snafu::{Snafu, ensure};
use zeroize::Zeroize;

/// Bytes of the tag behind a ciphertext.
const TAG: usize = 16;

/// Another key or nonce, or damaged. Never retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Snafu)]
#[snafu(display("the ciphertext isn't one of this key and nonce"))]
pub struct OpenError;

/// A key's schedule; wiped when dropped.
struct Context(EVP_AEAD_CTX);

impl Context {
    /// Without a key: made before the key, so that the schedule never moves and no copy of it stays behind.
    fn empty() -> Self {
        let mut context = MaybeUninit::uninit();
        // SAFETY: `EVP_AEAD_CTX_zero` initialises the whole structure.
        unsafe {
            EVP_AEAD_CTX_zero(context.as_mut_ptr());
            Self(context.assume_init())
        }
    }

    fn set_key(&mut self, key: &[u8; 16]) -> Result<(), OpenError> {
        // SAFETY: the structure is initialised, 16 bytes of the key are read, and the last argument, an engine, may be null.
        let done = unsafe {
            EVP_AEAD_CTX_init(
                &raw mut self.0,
                EVP_aead_aes_128_gcm(),
                key.as_ptr(),
                key.len(),
                TAG,
                ptr::null_mut(),
            )
        };
        ensure!(done == 1, OpenSnafu);
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the structure was initialised, and nothing of it is used after.
        unsafe {
            EVP_AEAD_CTX_cleanup(&raw mut self.0);
            OPENSSL_cleanse((&raw mut self.0).cast(), size_of::<EVP_AEAD_CTX>());
        }
    }
}

/// Opens a ciphertext with its tag behind it, without additional data, into a buffer that is used again and again.
///
/// # Errors
/// [`OpenError`]; the buffer holds nothing of the plaintext then.
pub fn open(key: &[u8; 16], nonce: &[u8; 16], sealed: &[u8], plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
    let length = sealed.len().checked_sub(TAG).ok_or(OpenError)?;
    // Never grown while it holds a secret: the block that is given back would hold what was opened before.
    if plaintext.capacity() < length {
        plaintext.zeroize();
        plaintext.reserve_exact(length);
    }
    plaintext.resize(length, 0);
    let mut context = Context::empty();
    context.set_key(key)?;
    let mut written = 0;
    // SAFETY: the context is of AES-128-GCM; the lengths are those of the slices, the output has room for the plaintext and
    // overlaps no input, and no additional data is read.
    let opened = unsafe {
        EVP_AEAD_CTX_open(
            &raw const context.0,
            plaintext.as_mut_ptr(),
            &raw mut written,
            plaintext.len(),
            nonce.as_ptr(),
            nonce.len(),
            sealed.as_ptr(),
            sealed.len(),
            ptr::null(),
            0,
        )
    };
    ensure!(opened == 1 && written == length, OpenSnafu);
    Ok(())
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::consts::U16;
    use aes_gcm::aes::Aes128;
    use aes_gcm::{AeadInOut, AesGcm, KeyInit};
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    #[test]
    fn opens_what_another_library_seals_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(21);
        let mut plaintext = vec![0xff; 100];
        for length in (0..100).chain([255, 256, 257, 1000, 12_300, 70_000]) {
            let (key, nonce): ([u8; 16], [u8; 16]) = (rng.random(), rng.random());
            let mut sealed = vec![0; length];
            rng.fill_bytes(&mut sealed);
            let expected = sealed.clone();
            let cipher = AesGcm::<Aes128, U16>::new(&key.into());
            let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], sealed.as_mut_slice().into());
            sealed.extend_from_slice(&tag.unwrap_or_default());
            assert_eq!(open(&key, &nonce, &sealed, &mut plaintext), Ok(()), "{length}");
            assert_eq!(plaintext, expected, "{length}");
            for i in [0, sealed.len() / 2, sealed.len() - 16, sealed.len() - 1] {
                let mut damaged = sealed.clone();
                damaged[i] ^= 1;
                assert_eq!(open(&key, &nonce, &damaged, &mut plaintext), Err(OpenError));
                assert!(plaintext.iter().all(|byte| *byte == 0), "nothing unverified is left");
            }
            assert_eq!(open(&nonce, &key, &sealed, &mut plaintext), Err(OpenError));
            assert_eq!(open(&key, &nonce, &sealed[1..], &mut plaintext), Err(OpenError));
        }
        assert_eq!(open(&[0; 16], &[0; 16], &[0; 15], &mut plaintext), Err(OpenError));
    }
}
