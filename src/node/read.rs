//! What every command that looks at the node has in common: where the cache is, and a reading of it
//! and of the kernel.

use std::path::PathBuf;

use clap::Args;
use thiserror::Error;

use super::cache::{self, Cache, CacheError};
use super::inventory::{Inventory, Shaped};
use super::shadows;
use crate::kernel::KernelError;

/// Why nothing could be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The runtime's cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernel.
    #[error("{0}; run this as root in the node's network namespace")]
    Kernel(#[from] KernelError),
}

/// Where to read.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// Folder in which the runtime keeps which pod is which
    #[arg(long, value_name = "FOLDER", default_value = cache::FOLDER)]
    pub cache: PathBuf,
}

/// Which pods.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only pods whose NAMESPACE/NAME contains one of these
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Only pods of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only attachments to this network
    #[arg(long)]
    network: Option<String>,
}

impl Source {
    /// Reads the cache, then the kernel.
    ///
    /// # Errors
    /// [`ReadError`] where one of them cannot be read at all.
    pub fn read(&self) -> Result<Inventory, ReadError> {
        Ok(Inventory::read(&Cache::read(&self.cache)?)?)
    }

    /// Looks for filters of other programs before the limits of an inventory.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_shadows(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        Ok(shadows::enter(inventory, &Cache::read(&self.cache)?)?)
    }
}

impl Filter {
    /// Whether these words ask for this one.
    pub fn takes(&self, shaped: &Shaped) -> bool {
        let pod = shaped.owner.pod();
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        (self.pods.is_empty() || self.pods.iter().any(|part| pod.contains(part)))
            && fits(&self.namespace, &shaped.owner.namespace)
            && fits(&self.network, &shaped.owner.network)
    }
}
