//! Walking what the kernel sent: headers and attributes as bytes, nothing assumed.

/// Bytes of an attribute's header: u16 length (header included), u16 kind.
const HEADER: usize = 4;

/// The attributes of a payload, as (kind without its flag bits, value). Ends at the first that is
/// broken. Shape: include/uapi/linux/netlink.h, struct nlattr.
pub(super) fn attributes(mut payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*payload.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*payload.get(2..)?.first_chunk::<2>()?);
        let value = payload.get(HEADER..length)?;
        payload = payload.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND_MASK, value))
    })
}

/// The value of one attribute.
pub(super) fn attribute(payload: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(payload).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A native-endian u32 at an offset.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk::<4>()?))
}

/// A native-endian u64 at the begin.
pub(super) fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.first_chunk::<8>()?))
}

/// Text up to its final zero; what is not UTF-8 is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_end_at_the_first_broken_one() {
        // given "ab" as kind 3 with padding, kind 0x8001 (nested) empty, then a length that lies
        let bytes = [6, 0, 3, 0, b'a', b'b', 0, 0, 4, 0, 1, 0x80, 200, 0, 9, 0];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(3, &b"ab"[..]), (1, &b""[..])]);
        assert_eq!(attribute(&bytes, 9), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= 50);
        }
    }
}
