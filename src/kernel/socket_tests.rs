use super::*;

/// The answer of Linux 6.18 to `tc qdisc add dev lo root nosuch`, with both options set:
/// "Specified qdisc kind is unknown."
fn unknown_kind() -> Vec<u8> {
    let text = b"Specified qdisc kind is unknown.\0";
    let mut bytes = vec![0; 36];
    bytes.extend((4 + text.len() as u16).to_ne_bytes());
    bytes.extend(1u16.to_ne_bytes());
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_CAPPED | NLM_F_ACK_TLVS).to_ne_bytes());
    bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
    bytes[16..20].copy_from_slice(&(-(Errno::ENOENT as i32)).to_ne_bytes());
    bytes
}

#[test]
fn a_refusal_carries_the_kernels_words_and_what_helps() {
    let bytes = unknown_kind();
    let (message, rest) = Message::first(&bytes).unwrap();
    let mut answer = Ok(Vec::new());
    assert!(message.add_to(&mut answer, "add a TBF to eth0"));
    assert!(rest.is_empty());
    let error = answer.unwrap_err();
    assert_eq!(
        error.to_string(),
        "add a TBF to eth0: the kernel said \"No such file or directory\" (ENOENT): \
         \"Specified qdisc kind is unknown.\"; this kernel lacks sch_tbf and sch_ingress: \
         load the module (modprobe) or install it"
    );
    assert!(error.is_missing_feature() && !error.is_race());
}

#[test]
fn answers_that_find_no_room_are_told_as_lost_and_not_waited_for() {
    // given a socket whose queue holds a few answers
    let mut socket = Socket::open().unwrap();
    setsockopt(&socket.inner, sockopt::RcvBuf, &1).unwrap();
    // when more are asked for at once
    let ask = |number: usize| super::super::link::get_by_name(&format!("no-such-{number}"));
    let begin = std::time::Instant::now();
    let answers = socket.exchange((0..300).map(ask).collect()).unwrap();
    // then the first ones are there, and the others are said to be unclear, at once
    let unclear: Vec<bool> =
        answers.iter().map(|answer| answer.as_ref().unwrap_err().is_unclear()).collect();
    assert_eq!((unclear[0], unclear[299]), (false, true), "{unclear:?}");
    assert!(begin.elapsed() < TIMEOUT, "{:?}", begin.elapsed());
    // and the next request is answered again
    let next = socket.exchange(vec![ask(300)]).unwrap();
    assert!(next[0].as_ref().unwrap_err().is_gone(), "{next:?}");
}

#[test]
fn an_error_number_without_a_negative_is_an_error_too() {
    let mut bytes = unknown_kind();
    bytes[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
    let (message, _) = Message::first(&bytes).unwrap();
    let mut answer = Ok(Vec::new());
    assert!(message.add_to(&mut answer, "add a TBF to eth0"));
    assert_eq!(answer.unwrap_err().errno(), Some(Errno::UnknownErrno));
}

#[test]
fn cut_off_messages_end_the_walk() {
    let bytes = unknown_kind();
    for length in 0..bytes.len() - 1 {
        assert!(Message::first(&bytes[..length]).is_none(), "{length} bytes");
    }
}

/// A part of an answer, or its end.
fn part(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

#[test]
fn an_interrupted_dump_is_an_error_that_holds_all_its_parts() {
    // given a dump whose second part tells of a change
    let parts = [
        part(16, 0, b"one "),
        part(16, NLM_F_DUMP_INTR, b"two "),
        part(16, NLM_F_DUMP_INTR, b"then"),
        part(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]),
    ];
    let mut answer = Ok(Vec::new());
    let ends =
        parts.map(|bytes| Message::first(&bytes).unwrap().0.add_to(&mut answer, "list the IFBs"));
    assert_eq!(ends, [false, false, false, true]);
    let error = answer.unwrap_err();
    assert!(error.is_passing(), "{error}");
    let KernelError::Interrupted { partial, .. } = error else { panic!("{error:?}") };
    assert_eq!(partial, [b"one ", b"two ", b"then"]);
}
