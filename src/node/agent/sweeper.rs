//! Leaks are removed when two slow looks in a row have seen them: an ADD makes its IFBs before its
//! filters, and the runtime writes its cache when the whole chain is done.

use std::collections::BTreeSet;

use crate::kernel::{KernelError, Socket};
use crate::log::Log;
use crate::node::cache::{Attached, Cache};
use crate::plugin::leak::{Leak, leaks, remove};
use crate::shaping::tag::Tag;

/// What was seen at the look before.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    seen: Vec<Leak>,
    error: Option<String>,
}

impl Sweeper {
    /// One look. Says on `log` what was removed; what cannot be is said once.
    pub(super) fn sweep(&mut self, cache: &Cache, log: &Log) {
        // A file that could not be read may be that of any attachment.
        if !cache.skipped.is_empty() {
            self.seen.clear();
            return;
        }
        let result = self.look(cache, log);
        let error = result.err().map(|error| format!("looking for leaks: {error}"));
        if let Some(text) = error.as_ref().filter(|_| self.error != error) {
            log.warn(text);
        }
        self.error = error;
    }

    fn look(&mut self, cache: &Cache, log: &Log) -> Result<(), KernelError> {
        let known: BTreeSet<Tag> = cache.attached.iter().map(Attached::tag).collect();
        let mut host = Socket::open()?;
        let found = leaks(&mut host, &known)?;
        let (old, new): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|leak| self.seen.contains(leak));
        self.seen = new;
        for leak in old {
            let whose = if leak.alias.is_empty() { "without an alias" } else { &leak.alias };
            log.info(&format!(
                "removing IFBs of an attachment that is gone: …{}, {whose}",
                leak.tag
            ));
            if let Some(error) = remove(&mut host, &leak).into_iter().next() {
                return Err(error);
            }
        }
        Ok(())
    }
}
