//! What types of secrets can't do at all: checked by the compiler.

use std::fmt::Display;

use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::crypto::original::OriginalVersion;
use facilitator_core::crypto::{BatchSigningKey, ClaimKey, PacketDecryptionKey};
use facilitator_core::intake::Accumulated;
use facilitator_core::processor::{MountedPacketKey, Processor};
use facilitator_core::proof::{QueryBuffer, Shares};
use serde::Serialize;

/// Doesn't compile where the type implements one of the traits: it can't be told then which `ambiguous` is meant.
macro_rules! never {
    ($type:ty: $($trait:path),+) => {$(
        const _: fn() = || {
            trait Either<A> {
                fn ambiguous() {}
            }
            impl<T: ?Sized> Either<()> for T {}
            #[allow(dead_code)]
            struct Implemented;
            impl<T: ?Sized + $trait> Either<Implemented> for T {}
            <$type as Either<_>>::ambiguous();
        };
    )+};
}

// A comparison by `==` stops at the first difference, whoever prints or serialises a key tells it, and a copy is one more to wipe.
never!(PacketDecryptionKey: PartialEq, Display, Serialize, Clone);
never!(BatchSigningKey: PartialEq, Display, Serialize, Clone);
never!(NewKey: PartialEq, Display, Serialize, Clone);
never!(OriginalVersion: PartialEq, Display, Serialize, Clone);
never!(ClaimKey: PartialEq, Display, Serialize, Clone);
never!(MountedPacketKey: PartialEq, Display, Serialize, Clone);
never!(Processor: PartialEq, Display, Serialize, Clone);
never!(Accumulated: PartialEq, Display, Serialize, Clone);
never!(Shares: PartialEq, Display, Serialize, std::fmt::Debug);
never!(QueryBuffer: PartialEq, Display, Serialize);
