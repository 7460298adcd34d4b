//! The plugin under strace: its system calls counted, failed, stopped or ended in a kill.

use std::time::{Duration, Instant};

use super::{Call, Outcome, TempDir, require_peer};

/// System calls by which netlink requests go out: each is one or several requests.
pub const SENDS: &str = "sendto,sendmsg";

/// System calls by which netlink answers come in.
pub const RECEIVES: &str = "recvfrom,recvmsg";

/// strace, and a folder for what it writes.
pub struct Strace {
    program: String,
    folder: TempDir,
}

impl Strace {
    /// Looks for strace; where it is missing, skips the test (`None`).
    pub fn find() -> Option<Self> {
        let program = require_peer("strace")?.to_str().expect("a path in UTF-8").to_owned();
        Some(Self { program, folder: TempDir::new() })
    }

    /// Makes the call, which must succeed, and says how often it made these system calls.
    pub fn count(&self, call: &Call, names: &str) -> usize {
        self.with(call, &[(names, "")]).ok();
        let log = self.log();
        let count = log.lines().filter(|line| line.contains('(')).count();
        assert!(count > 0, "no {names} in:\n{log}");
        count
    }

    /// Makes the call, which must succeed, and gives the netlink requests that it sent: type and
    /// flags of each, as strace prints them.
    pub fn requests(&self, call: &Call) -> Vec<(String, String)> {
        self.with(call, &[(SENDS, "")]).ok();
        let log = self.log();
        let word = |text: &str| text.split([',', ' ', '}']).next().unwrap_or_default().to_owned();
        let requests = log.split("nlmsg_type=").skip(1).map(|request| {
            let flags = request.split("nlmsg_flags=").nth(1).unwrap_or_default();
            (word(request), word(flags))
        });
        requests.collect()
    }

    /// The call, killed as it is about to make the system call number `at` (from 1) of `names`.
    pub fn killed(&self, call: &Call, names: &str, at: usize) -> Outcome {
        self.with(call, &[(names, &format!("signal=KILL:when={at}"))]).run()
    }

    /// The call whose send number `fault` is refused, killed as it is about to receive answer number
    /// `at` (both from 1): so when the request before it has been done.
    pub fn killed_after_a_fault(&self, call: &Call, fault: usize, at: usize) -> Outcome {
        let (error, kill) = (format!("error=EPERM:when={fault}"), format!("signal=KILL:when={at}"));
        self.with(call, &[(SENDS, &error), (RECEIVES, &kill)]).run()
    }

    /// The call with a system call that fails: `when` is a number from 1, or `3+` for the third and
    /// all after it. The kernel does not see that system call.
    pub fn failed(&self, call: &Call, names: &str, error: &str, when: &str) -> Outcome {
        self.with(call, &[(names, &format!("error={error}:when={when}"))]).run()
    }

    /// The call with a request that the kernel refuses in its answer (EOPNOTSUPP): the first one of
    /// send number `at` (from 1), which gets a type that does not exist. `firsts` is what [`Strace::firsts`] gives for the same
    /// call from the same state.
    pub fn refused(&self, call: &Call, firsts: &[u32], at: usize) -> Outcome {
        // struct nlmsghdr begins with the length (32 bits) and the type (16 bits).
        let length: String =
            firsts[at - 1].to_ne_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let poke = format!("poke_enter=@arg2={length}ffff:when={at}");
        self.with(call, &[("sendto", &poke)]).run()
    }

    /// Makes the call, which must succeed, and gives the length of the first request of each send.
    pub fn firsts(&self, call: &Call) -> Vec<u32> {
        self.with(call, &[("sendto", "")]).ok();
        let length = |line: &str| {
            let digits = line.split_once("nlmsg_len=")?.1.split(|c: char| !c.is_ascii_digit());
            digits.map(|digits| digits.parse().expect("a length")).next()
        };
        let firsts: Vec<u32> = self.log().lines().filter_map(length).collect();
        assert!(!firsts.is_empty(), "no sendto in:\n{}", self.log());
        firsts
    }

    /// The call, stopped after the system call number `at` (from 1); meanwhile `deed` is done.
    pub fn stopped(&self, call: &Call, names: &str, at: usize, deed: impl FnOnce()) -> Outcome {
        let call = self.with(call, &[(names, &format!("signal=STOP:when={at}"))]);
        let _ = std::fs::remove_file(self.folder.path().join("log"));
        std::thread::scope(|scope| {
            let running = scope.spawn(|| call.run());
            let patience = Instant::now() + Duration::from_secs(10);
            let stopped = loop {
                let log = self.log();
                if let Some(line) = log.lines().find(|line| line.contains("stopped by SIGSTOP")) {
                    break line.split(' ').next().expect("-f prints the process").to_owned();
                }
                assert!(Instant::now() < patience, "not stopped at {at}:\n{log}");
                std::thread::sleep(Duration::from_millis(2));
            };
            deed();
            let pid = nix::unistd::Pid::from_raw(stopped.parse().expect("a number"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("it waits");
            running.join().expect("the call ends")
        })
    }

    /// `faults`: system calls that are traced, and what is done to them, if anything.
    fn with(&self, call: &Call, faults: &[(&str, &str)]) -> Call {
        let names: Vec<&str> = faults.iter().map(|(names, _)| *names).collect();
        let mut expressions = vec![format!("trace={}", names.join(","))];
        let injected = faults.iter().filter(|(_, what)| !what.is_empty());
        expressions.extend(injected.map(|(names, what)| format!("inject={names}:{what}")));
        let log = self.folder.file("log");
        let mut words = vec![self.program.as_str(), "-f", "-o", &log];
        expressions.iter().for_each(|expression| words.extend(["-e", expression]));
        call.clone().under(&words)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
