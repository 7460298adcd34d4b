//! Programs that a test needs and that may be missing. A missing one skips the test in words that
//! `scripts/test` counts, or fails it where nothing may be skipped.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The program `name`: in `POD_BANDWIDTH_PEERS`, in `.cache/peers/bin` of the project, or on PATH.
pub fn peer(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("POD_BANDWIDTH_PEERS").map(PathBuf::from);
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A plain user's PATH often lacks the folders of ip and tc.
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    own.into_iter()
        .chain([cache])
        .chain(std::env::split_paths(&path))
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// [`peer`], and where it is missing [`skip`]: the test returns on `None`.
pub fn require_peer(name: &str) -> Option<PathBuf> {
    let found = peer(name);
    if found.is_none() {
        skip(&format!("{name} is not installed (scripts/test installs it)"));
    }
    found
}

/// Says that the running test is skipped and why; fails it where `POD_BANDWIDTH_REQUIRE_PEERS` is 1.
pub fn skip(reason: &str) {
    let test = test_name();
    assert!(
        std::env::var("POD_BANDWIDTH_REQUIRE_PEERS").as_deref() != Ok("1"),
        "{test} cannot run and nothing may be skipped: {reason}"
    );
    let line = format!("SKIPPED {test}: {reason}\n");
    // Straight to the descriptor: libtest swallows what a passing test prints with eprint.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("POD_BANDWIDTH_SKIP_FILE") {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        let _ = opened
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| panic!("POD_BANDWIDTH_SKIP_FILE {}: {error}", file.display()));
    }
}

/// The running test, as libtest names its thread.
pub(super) fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}
