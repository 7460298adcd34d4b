//! The node agent: whether it is there and ready, as its port says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::finding::{Finding, Severity};

/// Time for each step of an answer. The agent has one thread, which may just be at a pod.
const PATIENCE: Duration = Duration::from_millis(300);

/// The most that is read: 2,000 limits are some megabytes.
const ANSWER_MAX: u64 = 8 << 20;

/// A counter that the agent alone tells, in what Prometheus reads.
const AGENTS_OWN: &str = "pod_bandwidth_reconciles_total";

/// What was found at the port.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// With its own words.
    NotReady(String),
    /// `pod-bandwidth-node metrics` or another program.
    Other,
    /// With the system's words.
    Absent(String),
}

/// Asks at this address. Also says whether an agent is at work there: then a limit that is missing is
/// one that nobody wants any more.
pub(super) fn look(address: SocketAddr) -> (Finding, bool) {
    let state = state(address);
    let is_ready = state == State::Ready;
    (told(&state, address), is_ready)
}

fn state(address: SocketAddr) -> State {
    match get(address, "/readyz") {
        Err(error) => State::Absent(error.to_string()),
        Ok((503, text)) => State::NotReady(text.trim().chars().take(200).collect()),
        Ok((200, _)) => match get(address, "/metrics") {
            Ok((_, text)) if text.lines().any(|line| line.starts_with(AGENTS_OWN)) => State::Ready,
            _ => State::Other,
        },
        Ok(_) => State::Other,
    }
}

fn told(state: &State, address: SocketAddr) -> Finding {
    let found = |severity, seen| Finding::new("agent", severity, address.to_string(), seen);
    let without = "annotations that change on running pods are not followed, and limits that others \
                   remove are not put back; what an ADD sets holds without it";
    match state {
        State::Ready => found(Severity::Ok, "the node agent is ready".into()),
        State::NotReady(words) => {
            found(Severity::Warning, format!("the node agent says: {words}")).why(without).remedy(
                "its log says what it waits for; mostly the API server, or the right to list pods",
            )
        }
        State::Other => found(Severity::Note, "another program than the node agent answers".into())
            .why(without)
            .remedy("--agent names another address"),
        State::Absent(words) => found(Severity::Note, format!("no node agent answers: {words}"))
            .why(without)
            .remedy("kubectl apply --kustomize conf/kustomize; --agent names another address"),
    }
}

/// HTTP/1.0, which ends an answer by closing: status and text.
fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;

    use super::*;

    /// Answers as many requests as there are answers; gives back the address.
    fn server(answers: Vec<(&'static str, &'static str)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (status, text) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                write!(stream, "HTTP/1.0 {status}\r\nServer: test\r\n\r\n{text}").unwrap();
            }
        });
        address
    }

    #[test]
    fn what_answers_is_told_apart() {
        let metrics = "# TYPE x counter\npod_bandwidth_reconciles_total 7\n";
        for (answers, want) in [
            (vec![("200 OK", "ok"), ("200 OK", metrics)], State::Ready),
            (vec![("200 OK", "ok"), ("200 OK", "node_cpu 1\n")], State::Other),
            (
                vec![("503 Service Unavailable", "not ready: x\n")],
                State::NotReady("not ready: x".into()),
            ),
            (vec![("404 Not Found", "")], State::Other),
            (vec![("", "")], State::Other),
        ] {
            assert_eq!(state(server(answers)), want);
        }
        // A port that was just given back.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(state(free), State::Absent(_)));
    }
}
