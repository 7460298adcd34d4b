//! What is attached on this node: the runtime's cache, and the traces of pods that it has no entry of.

use std::path::PathBuf;

use super::traces::Traces;
use super::wanted::Wanted;
use crate::log::Log;
use crate::node::cache::Cache;
use crate::node::call::Folders;

/// Reads it anew each time. What goes wrong is told once.
#[derive(Debug)]
pub(super) struct Attachments {
    folder: PathBuf,
    folders: Folders,
    traces: Traces,
    error: Option<String>,
}

impl Attachments {
    /// By the runtime's cache in `folder`, and the node's other folders.
    pub(super) fn new(folder: PathBuf, folders: Folders) -> Self {
        Self { folder, folders, traces: Traces::default(), error: None }
    }

    /// What is attached; `None` where the cache cannot be read.
    pub(super) fn read(&mut self, log: &Log) -> Option<Cache> {
        let mut cache = self.cache(log)?;
        self.traces.complete(&mut cache);
        Some(cache)
    }

    /// The same, after a look for traces.
    pub(super) fn look(&mut self, wanted: &Wanted, log: &Log) -> Option<Cache> {
        let mut cache = self.cache(log)?;
        // A file that could not be read may be the entry of any pod.
        if wanted.is_complete() && cache.skipped.is_empty() {
            self.traces.look(wanted, &cache, &self.folders, log);
        }
        self.traces.complete(&mut cache);
        Some(cache)
    }

    fn cache(&mut self, log: &Log) -> Option<Cache> {
        let read = Cache::read(&self.folder);
        let error = read.as_ref().err().map(ToString::to_string);
        if let Some(text) = error.as_ref().filter(|_| self.error != error) {
            log.error(text);
        }
        self.error = error;
        read.ok()
    }
}
