//! Collecting: which answer belongs to which request of one send, and when all are there.
//!
//! Apart from the socket, so that it can be tested, and fuzzed, on bytes.

use super::error::KernelError;
use super::socket::{Answer, Message};

/// The answers to the requests of one send, as far as they have come.
pub(super) struct Collection<'a> {
    /// Sequence number of the first request; the others follow.
    first: u32,
    /// What each request does, in words.
    doing: &'a [String],
    /// What each request brought so far, and whether that is all.
    answers: Vec<(Answer, bool)>,
}

impl<'a> Collection<'a> {
    pub(super) fn new(first: u32, doing: &'a [String]) -> Self {
        Self { first, doing, answers: doing.iter().map(|_| (Ok(Vec::new()), false)).collect() }
    }

    /// Whether every request has its whole answer.
    pub(super) fn is_complete(&self) -> bool {
        self.answers.iter().all(|(_, complete)| *complete)
    }

    /// Adds the messages of one datagram.
    pub(super) fn add(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((message, next)) = Message::first(rest) {
            rest = next;
            // Answers to a request that was given up carry an older number.
            let index = message.sequence.wrapping_sub(self.first) as usize;
            if let (Some((answer, complete)), Some(doing)) =
                (self.answers.get_mut(index), self.doing.get(index))
                // A second end of one answer must not count as the end of another one.
                && !*complete
            {
                *complete = message.add_to(answer, doing);
            }
        }
    }

    /// Ends every answer that is not whole with this error.
    pub(super) fn give_up(&mut self, error: impl Fn(&str) -> KernelError) {
        let open = self.answers.iter_mut().zip(self.doing).filter(|((_, complete), _)| !*complete);
        for ((answer, complete), doing) in open {
            *answer = Err(error(doing));
            *complete = true;
        }
    }

    /// The answers in the order of the requests.
    pub(super) fn into_answers(self) -> Vec<Answer> {
        self.answers.into_iter().map(|(answer, _)| answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};
    use nix::errno::Errno;

    use super::*;

    const FIRST: u32 = u32::MAX;
    const ANSWER: u16 = 16;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn end(kind: u16, sequence: u32, errno: i32) -> Vec<u8> {
        message(kind, sequence, &(-errno).to_ne_bytes())
    }

    #[test]
    fn each_request_gets_what_carries_its_number() {
        // given two requests, whose numbers wrap, and an answer to an older one
        let doing = ["one".to_string(), "two".to_string()];
        let mut collection = Collection::new(FIRST, &doing);
        // when the answers come in two datagrams, the second request's end first
        let mut datagram = message(ANSWER, FIRST.wrapping_sub(1), b"old");
        datagram.extend(message(ANSWER, FIRST, b"a"));
        datagram.extend(end(NLMSG_DONE, FIRST.wrapping_add(1), Errno::EPERM as i32));
        collection.add(&datagram);
        assert!(!collection.is_complete());
        collection.add(&end(NLMSG_ERROR, FIRST, 0));
        // then each has its own
        assert!(collection.is_complete());
        let answers = collection.into_answers();
        assert_eq!(answers[0].as_ref().unwrap(), &[b"a".to_vec()]);
        assert_eq!(answers[1].as_ref().unwrap_err().errno(), Some(Errno::EPERM));
    }

    #[test]
    fn an_answer_that_ends_twice_ends_no_other() {
        let doing = ["one".to_string(), "two".to_string()];
        let mut collection = Collection::new(1, &doing);
        collection
            .add(&[end(NLMSG_ERROR, 1, 0), end(NLMSG_ERROR, 1, Errno::EPERM as i32)].concat());
        assert!(!collection.is_complete());
        collection.add(&end(NLMSG_ERROR, 2, 0));
        assert!(collection.is_complete());
        assert!(collection.into_answers().iter().all(Result::is_ok));
    }
}
