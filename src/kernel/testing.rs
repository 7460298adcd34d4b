//! For byte-level tests and fuzzing: what a request looks like on the wire, and hex as fixtures have it.

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};

use super::socket::Request;

/// A request's type, flags beyond REQUEST and ACK, and bytes behind the netlink header.
pub(super) fn wire(request: Request) -> (u16, u16, Vec<u8>) {
    let payload = NetlinkPayload::InnerMessage(request.message);
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    (message.header.message_type, request.flags, bytes.split_off(16))
}

/// A whole message as `strace` showed it, split in the same way.
#[cfg(test)]
pub(super) fn captured(hex: &str) -> (u16, u16, Vec<u8>) {
    const REQUEST_AND_ACK: u16 = 5;
    let mut bytes = unhex(hex);
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) & !REQUEST_AND_ACK;
    (kind, flags, bytes.split_off(16))
}

/// Bytes from hex digits; blanks and line ends do not count.
#[cfg(test)]
pub(super) fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
