//! Limits: what all sources say together.
//!
//! Knows how the keys of different sources go together, what a pod may not ask for, and how the
//! node's maximum cuts the rest. Pure: no device, so no MTU and no derived burst.

use serde_json::{Map, Value};

use super::direction::Direction;
use super::error::PolicyError;
use super::sources::{Given, Partial, Sources};
use super::units::{Bits, BitsPerSecond, Bytes};

/// The limit of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// 1k to 1P, not rounded to whole bytes.
    pub rate: BitsPerSecond,
    /// The burst that somebody wrote, cut to `max_burst`; `None`: derive it from the rate.
    pub burst: Option<Bits>,
    /// The node's maximum, which a derived burst may not pass either.
    pub max_burst: Option<Bits>,
    /// The rate at which the burst may be spent; above `rate` also in whole bytes per second.
    pub peak_rate: Option<BitsPerSecond>,
    /// The bucket of the peak rate; only together with one. `None`: derive it.
    pub min_burst: Option<Bytes>,
}

/// The limits of one pod interface; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// To the pod.
    pub ingress: Option<Limit>,
    /// From the pod.
    pub egress: Option<Limit>,
}

impl Limits {
    /// Whether neither direction is limited.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }

    /// The directions that are limited, in the order of [`Direction`].
    pub fn directions(&self) -> [bool; 2] {
        [self.ingress.is_some(), self.egress.is_some()]
    }

    /// Reads the limits from a network configuration (without prevResult).
    ///
    /// Sources, strongest first and key by key: annotations `qos.projectcalico.org/*`, annotations
    /// `kubernetes.io/*-bandwidth` (both in `runtimeConfig["io.kubernetes.cri.pod-annotations"]`),
    /// `runtimeConfig.bandwidth`, the static keys of the reference plugin, the node's `defaults`.
    /// The node's `maximum` cuts the result, and is the rate of a pod that has none.
    ///
    /// # Errors
    /// [`PolicyError`] for a value that is malformed or out of range in any source, and for an
    /// annotation that cannot go with the others.
    pub fn read(config: &Map<String, Value>) -> Result<Limits, PolicyError> {
        let sources = Sources::open(config)?;
        Ok(Limits {
            ingress: read(&sources, Direction::Ingress)?,
            egress: read(&sources, Direction::Egress)?,
        })
    }
}

fn read(sources: &Sources<'_>, direction: Direction) -> Result<Option<Limit>, PolicyError> {
    let annotated = sources.annotated(direction)?;
    let configured = sources.configured(direction)?;
    let maximum = sources.maximum(direction)?;
    let wanted = annotated.clone().or(configured);
    check(&annotated, wanted.rate.as_ref(), maximum.rate.as_ref(), direction)?;
    Ok(clamp(&wanted, &maximum))
}

/// Refuses annotations that contradict each other or the rate that they go with. Only a pod can
/// write these: a burst of the runtime or the node without a rate is no request, it is left alone.
fn check(
    annotated: &Partial,
    rate: Option<&Given>,
    maximum: Option<&Given>,
    direction: Direction,
) -> Result<(), PolicyError> {
    let Partial { burst, peak_rate, min_burst, .. } = annotated;
    let extra = burst.as_ref().or(peak_rate.as_ref()).or(min_burst.as_ref());
    if let Some(extra) = extra
        && rate.or(maximum).is_none()
    {
        return Err(PolicyError::NoRate { key: extra.key.clone(), direction: direction.name() });
    }
    if let (Some(min_burst), None) = (min_burst, peak_rate) {
        let key = min_burst.key.clone();
        return Err(PolicyError::NoPeakRate { key, direction: direction.name() });
    }
    if let (Some(peak), Some(rate)) = (peak_rate, rate)
        && !above(peak.number, rate.number)
    {
        return Err(PolicyError::PeakNotAboveRate {
            key: peak.key.clone(),
            peak: BitsPerSecond(peak.number),
            rate: BitsPerSecond(rate.number),
            rate_key: rate.key.clone(),
        });
    }
    Ok(())
}

/// Cuts what is wanted to the node's maximum. Nothing is left where there is no rate at all.
fn clamp(wanted: &Partial, maximum: &Partial) -> Option<Limit> {
    let number = |given: &Option<Given>| given.as_ref().map(|given| given.number);
    let most_rate = number(&maximum.rate).unwrap_or(u64::MAX);
    let most_burst = number(&maximum.burst);
    // Unlimited is more than the maximum, so a pod without a rate gets the maximum.
    let rate = number(&wanted.rate).or(number(&maximum.rate))?.min(most_rate);
    let burst = number(&wanted.burst).map(|burst| burst.min(most_burst.unwrap_or(u64::MAX)));
    // Cut to the maximum, a peak may meet the rate. It then says nothing that the rate does not,
    // and TBF refuses one that is not above the rate (net/sched/sch_tbf.c, tbf_change).
    let peak_rate =
        number(&wanted.peak_rate).map(|peak| peak.min(most_rate)).filter(|peak| above(*peak, rate));
    let min_burst = peak_rate.and(number(&wanted.min_burst));
    Some(Limit {
        rate: BitsPerSecond(rate),
        burst: burst.map(Bits),
        max_burst: most_burst.map(Bits),
        peak_rate: peak_rate.map(BitsPerSecond),
        min_burst: min_burst.map(Bytes),
    })
}

/// Whether a peak is above a rate in the whole bytes per second that the kernel compares.
fn above(peak: u64, rate: u64) -> bool {
    BitsPerSecond(peak).whole_bytes() > BitsPerSecond(rate).whole_bytes()
}

#[cfg(test)]
mod tests;
