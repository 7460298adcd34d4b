//! The folders of a node that an installation is about, and `install --watch` on them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{TempDir, tests_dir};

/// What `--watch` says after a repair.
pub const REPAIRED: &str = "has the entry of pod-bandwidth now";

/// A list of `tests/conflists`.
pub fn list(name: &str) -> String {
    fs::read_to_string(tests_dir("conflists").join(name)).unwrap()
}

/// The folders of a node, and a program to install.
pub struct Node {
    /// Where they are, with room for other files.
    pub folder: TempDir,
}

impl Node {
    pub fn new() -> Self {
        let node = Self { folder: TempDir::new() };
        fs::create_dir(node.net("")).unwrap();
        fs::create_dir(node.bin("")).unwrap();
        fs::write(node.plugin(), b"\x7fELF and the rest of a program").unwrap();
        node
    }

    /// With one file in the folder of lists.
    pub fn with(name: &str, text: &str) -> Self {
        let node = Self::new();
        fs::write(node.net(name), text).unwrap();
        node
    }

    pub fn net(&self, name: &str) -> PathBuf {
        self.folder.path().join("net.d").join(name)
    }

    pub fn bin(&self, name: &str) -> PathBuf {
        self.folder.path().join("bin").join(name)
    }

    pub fn plugin(&self) -> String {
        self.folder.file("plugin")
    }

    pub fn words(&self, command: &str) -> Vec<String> {
        let mut words =
            vec![env!("CARGO_BIN_EXE_pod-bandwidth-node").to_owned(), command.to_owned()];
        for (option, value) in [("--net-dir", self.net("")), ("--bin-dir", self.bin(""))] {
            words.extend([option.to_owned(), value.to_str().unwrap().to_owned()]);
        }
        if command == "install" {
            words.extend(["--plugin".to_owned(), self.plugin()]);
        }
        words
    }

    /// The command behind others such as strace.
    pub fn under(&self, before: &[&str], command: &str, options: &[&str]) -> Command {
        let before = before.iter().map(|word| (*word).to_owned());
        let words: Vec<String> = before.chain(self.words(command)).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(options);
        command
    }

    pub fn run(&self, command: &str, options: &[&str]) -> Output {
        self.under(&[], command, options).output().unwrap()
    }

    pub fn ok(&self, command: &str, options: &[&str]) -> String {
        let output = self.run(command, options);
        assert!(output.status.success(), "{command}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn refused(&self, command: &str) -> String {
        let output = self.run(command, &[]);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", said(&output));
        said(&output)
    }

    /// Names, contents, modes and inodes of all files.
    pub fn state(&self) -> Vec<(PathBuf, Vec<u8>, u32, u64)> {
        let mut state = Vec::new();
        for folder in [self.net(""), self.bin("")] {
            let Ok(files) = fs::read_dir(&folder) else { continue };
            for file in files {
                let path = file.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = fs::read(&path).unwrap_or_default();
                state.push((path, content, meta.mode(), meta.ino()));
            }
        }
        state.sort();
        state
    }

    pub fn names(&self) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = self.state().into_iter().map(|(path, ..)| name(path)).collect();
        names.sort();
        names
    }
}

/// Its standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `install --watch`, and what it says.
pub struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Watch {
    pub fn on(node: &Node) -> Self {
        let mut child =
            node.under(&[], "install", &["--watch"]).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until it says this.
    pub fn until(&mut self, words: &str) {
        let found = self.lines.by_ref().map_while(Result::ok).any(|line| line.contains(words));
        assert!(found, "it ended without {words:?}");
    }

    /// Ends it as a kubelet does, and gives what it said since.
    pub fn end(mut self) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let rest = self.lines.by_ref().map_while(Result::ok).collect();
        assert!(self.child.wait().unwrap().success(), "{rest:?}");
        rest
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
