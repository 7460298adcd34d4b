use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use super::*;

/// A line as an earlier call left it.
const LINE: &str = "2026-11-23T22:25:06.042Z info pod-bandwidth pod default/a interface eth0: x\n";

/// A folder that goes with the test. As in /tmp, everybody may write to it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pod-bandwidth-log-{name}-{}", std::process::id());
        let path = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The words of the refusal, which comes at once.
fn refused(path: &Path) -> String {
    let begin = Instant::now();
    let error = open(path).map(|_| ()).expect_err("it must be refused").to_string();
    assert!(begin.elapsed() < Duration::from_secs(2), "{}: {:?}", path.display(), begin.elapsed());
    error
}

#[test]
fn a_new_log_is_created_for_its_owner_and_group_alone() {
    let folder = Folder::new("new");
    let path = folder.path("a.log");
    open(&path).unwrap().write_all(LINE.as_bytes()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), LINE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn an_earlier_log_is_appended_to() {
    let folder = Folder::new("earlier");
    for text in ["", LINE] {
        let path = folder.file("a.log", text);
        open(&path).unwrap().write_all(LINE.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}{LINE}"));
    }
}

#[test]
fn a_file_of_other_content_is_left_alone() {
    let folder = Folder::new("content");
    for text in [
        "root:x:0:0:root:/root:/bin/bash\n",
        "2026-11-23T22:25:06.042Z node sshd[1]: Accepted\n",
        &format!("\n{LINE}"),
        "\u{0}",
    ] {
        let path = folder.file("auth.log", text);
        assert!(refused(&path).contains("begin with a line of pod-bandwidth"), "{text:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_name_that_is_not_of_a_log_is_neither_written_nor_created() {
    let folder = Folder::new("name");
    for name in ["nologin", "passwd", "log", "a.log.conf", ".log", "a.LOG"] {
        assert!(refused(&folder.path(name)).contains("ends in .log"), "{name}");
        assert!(!folder.path(name).exists(), "{name}");
    }
    let empty = folder.file("cron.allow", "");
    assert!(refused(&empty).contains("ends in .log"));
    for path in ["/", "/proc/sysrq-trigger", "/dev/watchdog", "/dev/null", "/dev/full"] {
        assert!(refused(Path::new(path)).contains("ends in .log"), "{path}");
    }
}

#[test]
fn a_fifo_keeps_nobody_waiting() {
    let folder = Folder::new("fifo");
    let path = folder.path("fifo.log");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    // without a reader
    assert!(refused(&path).contains("not a regular file"));
    // and with one, who gets nothing
    let flags = OFlag::O_NONBLOCK.bits();
    let mut reader = File::options().read(true).custom_flags(flags).open(&path).unwrap();
    assert!(refused(&path).contains("not a regular file"));
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = Folder::new("kind");
    fs::create_dir(folder.path("folder.log")).unwrap();
    let _listening = std::os::unix::net::UnixListener::bind(folder.path("socket.log")).unwrap();
    for name in ["folder.log", "socket.log"] {
        assert!(refused(&folder.path(name)).contains("not a regular file"), "{name}");
    }
}

#[test]
fn no_link_is_followed() {
    let folder = Folder::new("link");
    let target = folder.file("target.log", LINE);
    symlink(&target, folder.path("link.log")).unwrap();
    symlink(folder.path("absent.log"), folder.path("dangling.log")).unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    symlink(folder.path("folder"), folder.path("linked")).unwrap();
    for name in ["link.log", "dangling.log", "linked/a.log"] {
        assert!(refused(&folder.path(name)).contains("symbolic link"), "{name}");
    }
    for name in ["absent.log", "folder/a.log"] {
        assert!(!folder.path(name).exists(), "{name}");
    }
    // and no second name of a file
    fs::hard_link(&target, folder.path("hard.log")).unwrap();
    assert!(refused(&folder.path("hard.log")).contains("2 hard links"));
    assert_eq!(fs::read_to_string(&target).unwrap(), LINE);
}

#[test]
fn a_link_that_root_has_made_where_only_root_can_is_as_good_as_the_folder() {
    let linked = ["/var/run", "/var/lock", "/bin", "/lib"].map(Path::new);
    let is_roots = |path: &&&Path| path.is_symlink() && fs::metadata("/").unwrap().uid() == 0;
    let Some(linked) = linked.iter().find(is_roots) else { return };
    let path = without_links(&linked.join("a.log")).unwrap();
    assert_eq!(path, linked.canonicalize().unwrap().join("a.log"));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let folder = Folder::new("owner");
    let path = folder.file("a.log", LINE);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        assert!(refused(&path).contains("the user 12345"));
    }
}

#[test]
fn a_folder_that_is_not_there_is_named_by_its_error() {
    assert!(refused(Path::new("/nowhere/at/all/x.log")).contains("No such file or directory"));
}
