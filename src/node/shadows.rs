//! Which filters of other programs come before the limits of an inventory.

use super::cache::Cache;
use super::inventory::{Inventory, Placement, Shaped};
use crate::kernel::survey::Survey;
use crate::kernel::{KernelError, NetNs, Socket};
use crate::shaping::Side;
use crate::shaping::placement::Way;

/// Enters them, each with the interface that it is before. A pod that cannot be looked into is among
/// the problems.
///
/// # Errors
/// What the kernel returned about the namespace of this process.
pub(super) fn enter(inventory: &mut Inventory, cache: &Cache) -> Result<(), KernelError> {
    let host = Survey::take(&mut Socket::open()?)?;
    let mut problems = Vec::new();
    for shaped in &mut inventory.shaped {
        if shaped.placement != Placement::By(Way::Pod) {
            enter_from(&host, Side::Host, shaped);
            continue;
        }
        match inside(shaped, cache) {
            Ok(survey) => enter_from(&survey, Side::Pod, shaped),
            // The runtime takes the namespace away a moment before the cache's file.
            Err(error) if error.is_gone() => {}
            Err(error) => problems.push(format!("{}: {error}", shaped.owner.pod())),
        }
    }
    inventory.problems.extend(problems);
    Ok(())
}

fn enter_from(survey: &Survey, side: Side, shaped: &mut Shaped) {
    let device = survey.by_name(&shaped.device);
    shaped.shadows = device.map(|device| device.shadows(side)).unwrap_or_default();
}

fn inside(shaped: &Shaped, cache: &Cache) -> Result<Survey, KernelError> {
    let owner = &shaped.owner;
    let attached = cache.attached.iter().find(|one| {
        one.container_id == owner.container_id
            && one.ifname == owner.ifname
            && one.network == owner.network
    });
    match attached.and_then(|attached| attached.sandbox.as_ref()) {
        Some(path) => Survey::take(&mut Socket::open_in(&NetNs::open(path)?)?),
        None => Ok(Survey::default()),
    }
}
