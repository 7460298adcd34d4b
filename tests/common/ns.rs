//! Commands inside a namespace. Knows `nsenter` and nothing of what runs there.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The namespaces of one holder process, by its id.
#[derive(Clone, Debug)]
pub struct Ns {
    /// Process that holds the namespaces open.
    pub pid: u32,
    /// The holder is in a user namespace of its own: enter that too.
    pub user: bool,
    /// How failures and snapshots call it.
    pub label: String,
}

impl Ns {
    /// The network namespace as a path: what a runtime would hand over in `CNI_NETNS`.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid)
    }

    /// `nsenter` into the network, mount (and user) namespace, then `argv`.
    pub fn command(&self, argv: &[&str]) -> Command {
        // An absolute path: the caller may clear the environment, and PATH with it.
        let mut command = Command::new(super::peer("nsenter").expect("Lab::open asked for it"));
        command.args(["-t", &self.pid.to_string(), "-n", "-m"]);
        if self.user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("--").args(argv).env("LC_ALL", "C");
        command
    }

    /// Runs `argv` to its end, whatever that is.
    pub fn attempt(&self, argv: &[&str]) -> Output {
        self.command(argv).stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// Runs `argv`, which must succeed, and gives back its standard output.
    pub fn run(&self, argv: &[&str]) -> String {
        let output = self.attempt(argv);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "in {}: {}: {}\n{}{}",
            self.label,
            argv.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// [`Ns::run`] with the arguments as one line of words between blanks; no quotes, no shell.
    pub fn sh(&self, line: &str) -> String {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs lines of `ip`/`tc` words one after another; empty lines are skipped.
    pub fn script(&self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.sh(line);
        }
    }

    /// Runs `argv` and reads its output as JSON. iproute2 prints nothing at all where it has
    /// nothing to say, and some versions print several arrays one after another.
    pub fn json(&self, argv: &[&str]) -> Value {
        let text = self.run(argv);
        let mut all = Vec::new();
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            match value {
                Ok(Value::Array(items)) => all.extend(items),
                Ok(other) => all.push(other),
                Err(error) => panic!("{} printed no JSON: {error}\n{text}", argv.join(" ")),
            }
        }
        Value::Array(all)
    }

    /// Starts `argv` and leaves it running; the kernel kills it when this thread ends.
    pub fn spawn(&self, argv: &[&str], environment: &[(&str, &str)]) -> Child {
        // setpriv comes after nsenter: entering a user namespace clears the death signal.
        let setpriv = ["setpriv", "--pdeathsig", "KILL", "--"];
        self.command(&[&setpriv[..], argv].concat())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter starts")
    }

    /// Writes one of the namespace's own settings, as `sysctl net.…=value` does.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(&["sh", "-c", "echo \"$1\" > \"$2\"", "sh", value, &path]);
    }
}

/// Hands `text` to `child` and waits for its end.
pub fn feed(mut child: Child, text: &[u8]) -> Output {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A plugin may end before it has read its input: what it says then is the test's business.
    let _ = stdin.write_all(text);
    drop(stdin);
    child.wait_with_output().expect("the child can be waited for")
}
