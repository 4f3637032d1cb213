//! Page bitmaps: portable Roaring, of untrusted origin.
//!
//! A bitmap may *name* up to 2^32 pages in a few bytes (runs), so anyone who walks one must first cut it at the database's
//! size; decoding it allocates at most a small multiple of its bytes.

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::error::WireError;

/// The longest serialised bitmap that is accepted: what a full, incompressible bitmap of 2^27 pages takes.
pub const BITMAP_LIMIT: usize = 16 << 20;

/// The portable serialised form; never empty, so it is told apart from "all pages".
pub fn encode_bitmap(ids: &RoaringBitmap) -> Bytes {
    let mut ids = ids.clone();
    ids.optimize();
    let mut bytes = Vec::with_capacity(ids.serialized_size());
    ids.serialize_into(&mut bytes)
        .expect("writing to a Vec cannot fail");
    bytes.into()
}

/// Reads a bitmap, all of `bytes` and not more than [`BITMAP_LIMIT`] of them, checking its inner structure.
pub fn decode_bitmap(bytes: &[u8]) -> Result<RoaringBitmap, WireError> {
    if bytes.len() > BITMAP_LIMIT {
        return Err(WireError::Bitmap(format!(
            "it has {} bytes, the most allowed is {BITMAP_LIMIT}",
            bytes.len()
        )));
    }
    let mut rest = bytes;
    let ids = RoaringBitmap::deserialize_from(&mut rest).map_err(|e| WireError::Bitmap(e.to_string()))?;
    if !rest.is_empty() {
        return Err(WireError::Bitmap(format!("{} bytes follow it", rest.len())));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_run_takes_few_bytes_and_comes_back() {
        let ids: RoaringBitmap = (0..1_000_000).collect();
        let bytes = encode_bitmap(&ids);
        assert!(bytes.len() < 400, "{} bytes", bytes.len());
        assert_eq!(decode_bitmap(&bytes).unwrap(), ids);
    }

    #[test]
    fn an_empty_bitmap_is_not_empty_bytes() {
        let bytes = encode_bitmap(&RoaringBitmap::new());
        assert!(!bytes.is_empty());
        assert!(decode_bitmap(&bytes).unwrap().is_empty());
    }

    #[test]
    fn trailing_bytes_and_oversize_are_refused() {
        let mut bytes = encode_bitmap(&(0..9).collect()).to_vec();
        bytes.push(0);
        assert!(matches!(decode_bitmap(&bytes), Err(WireError::Bitmap(_))));
        assert!(matches!(
            decode_bitmap(&vec![0; BITMAP_LIMIT + 1]),
            Err(WireError::Bitmap(_))
        ));
    }

    proptest! {
        #[test]
        fn invariant_11_any_bytes_make_a_bitmap_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_bitmap(&bytes);
        }

        #[test]
        fn invariant_11_a_damaged_bitmap_makes_a_bitmap_or_an_error(
            ids in prop::collection::vec(0u32..200_000, 0..300),
            at in any::<prop::sample::Index>(),
            xor in any::<u8>(),
        ) {
            let ids: RoaringBitmap = ids.into_iter().collect();
            let mut bytes = encode_bitmap(&ids).to_vec();
            prop_assert_eq!(&decode_bitmap(&bytes).unwrap(), &ids);
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            if let Ok(read) = decode_bitmap(&bytes) {
                // Walking what was accepted, up to a bound, must be safe too.
                let _ = read.iter().take(1000).count();
            }
        }
    }
}
