//! One process from its start to its end: wall time, processor time, peak memory.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::Ns;
use crate::subject::Invocation;

/// What one call cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From before the start until the end was known, in microseconds.
    pub(crate) wall_us: f64,
    /// Processor time of the process and the kernel for it, in microseconds.
    pub(crate) cpu_us: f64,
}

/// Runs `work` on a thread that is in the network namespace `ns`: processes that it starts are there
/// from their beginning, and no `nsenter` is measured with them.
pub(crate) fn inside<T: Send>(ns: &Ns, work: impl FnOnce() -> T + Send) -> T {
    let path = ns.path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            setns(file, CloneFlags::CLONE_NEWNET).expect("setns: scripts/bench gave us the right");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the call, which must succeed. Nothing else may run a process meanwhile: the processor
/// time is that of all children.
pub(crate) fn cost(call: &Invocation) -> Cost {
    let before = children_us();
    let began = Instant::now();
    finish(start(call), call);
    let wall_us = began.elapsed().as_secs_f64() * 1e6;
    Cost { wall_us, cpu_us: children_us() - before }
}

/// As [`cost`], among others: only the wall time, in microseconds.
pub(crate) fn wall_us(call: &Invocation) -> f64 {
    let began = Instant::now();
    finish(start(call), call);
    began.elapsed().as_secs_f64() * 1e6
}

/// What the call prints, whether it succeeds or not.
pub(crate) fn answer(call: &Invocation) -> String {
    let output = start(call).wait_with_output().expect("a child can be waited for");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The most memory that the call ever had resident, in KiB: `VmHWM`, read as the process ends. A
/// `ru_maxrss` would not do: a child's begins with that of the process it was forked from. `None` where the
/// kernel did not stop its first thread at the end, which it does not promise.
pub(crate) fn peak_kib(call: &Invocation) -> Option<u64> {
    let mut child = start_without_input(call);
    let pid = Pid::from_raw(child.id() as i32);
    // It waits for its input, so it cannot end before it is seized.
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).expect("a child can be traced");
    feed(&mut child, call);
    let mut peak = None;
    loop {
        match waitpid(pid, None).expect("a child can be waited for") {
            WaitStatus::PtraceEvent(..) => {
                peak = peak.or_else(|| high_water_kib(pid));
                ptrace::cont(pid, None).expect("it is stopped");
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).expect("it is stopped"),
            WaitStatus::Exited(_, 0) => break,
            WaitStatus::PtraceSyscall(_) | WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
            other => panic!("{}: {other:?}", call.program.display()),
        }
    }
    peak
}

fn high_water_kib(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn start(call: &Invocation) -> Child {
    let mut child = start_without_input(call);
    feed(&mut child, call);
    child
}

fn start_without_input(call: &Invocation) -> Child {
    Command::new(&call.program)
        .env_clear()
        .envs(call.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", call.program.display()))
}

fn feed(child: &mut Child, call: &Invocation) {
    let mut stdin = child.stdin.take().expect("piped");
    // The empty program reads nothing.
    let _ = stdin.write_all(&call.input);
}

fn finish(mut child: Child, call: &Invocation) {
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "{} {:?}: {status}: {said}", call.program.display(), verb(call));
}

fn verb(call: &Invocation) -> Option<&str> {
    let found = call.environment.iter().find(|(key, _)| key == "CNI_COMMAND");
    found.map(|(_, verb)| verb.as_str())
}

fn children_us() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let micros = |time: TimeVal| time.num_microseconds() as f64;
    micros(usage.user_time()) + micros(usage.system_time())
}
