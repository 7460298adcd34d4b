//! What the demo can be told.

use clap::Args;

use crate::policy::Direction;
use crate::policy::quantity;

/// Show the plugin at work, with numbers, in a private network
///
/// Makes a host and a pod in namespaces of their own, joined by a veth, and measures TCP
/// without a limit. Then it calls this binary as a container runtime does (CNI_COMMAND=ADD, a
/// pod with bandwidth annotations), measures again with pings beside it, calls it with
/// CNI_COMMAND=DEL, and looks whether anything is left in the kernel.
///
/// Needs nothing but the kernel: it runs as root or as a plain user, touches nothing outside
/// its own namespaces, and leaves nothing, also when it is interrupted. The report goes to
/// stdout, progress to stderr. The exit status is 0 when all of it ran and nothing is left.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Options {
    /// Limit of the traffic to the pod, as in the annotation kubernetes.io/ingress-bandwidth:
    /// bits per second as a Kubernetes quantity, 1k to 1P
    #[arg(verbatim_doc_comment, long, value_name = "RATE", default_value = "10M", value_parser = rate)]
    pub(super) ingress: Amount,

    /// Limit of the traffic from the pod, as in kubernetes.io/egress-bandwidth
    #[arg(verbatim_doc_comment, long, value_name = "RATE", default_value = "20M", value_parser = rate)]
    pub(super) egress: Amount,

    /// Burst of both limits, as in the annotations qos.projectcalico.org/ingressBurst and
    /// egressBurst: bits as a Kubernetes quantity [default: derived from the rate]
    #[arg(verbatim_doc_comment, long, value_name = "BITS", value_parser = amount)]
    pub(super) burst: Option<Amount>,

    /// Where to shape: on the host's end of the veth, inside the pod, or as the plugin decides
    #[arg(verbatim_doc_comment, long, value_name = "WHERE", default_value = "auto",
          value_parser = ["auto", "host", "pod"])]
    pub(super) placement: String,

    /// How to shape the traffic to the pod on the host: by the root qdisc of the veth, by its
    /// hooks and a second IFB, or as the plugin decides
    #[arg(verbatim_doc_comment, long, value_name = "HOW", default_value = "auto",
          value_parser = ["auto", "root", "hooks"])]
    pub(super) host_ingress: String,

    /// Seconds of each of the four measurements, 2 to 600
    #[arg(verbatim_doc_comment, long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(2..=600))]
    pub(super) seconds: u32,

    /// TCP congestion control of the traffic, such as cubic or bbr [default: the system's]
    #[arg(verbatim_doc_comment, long, value_name = "NAME")]
    pub(super) congestion: Option<String>,

    /// Print one JSON object instead of the table; units are in the names of the keys
    #[arg(verbatim_doc_comment, long)]
    pub(super) json: bool,
}

impl Options {
    /// The limit of a direction.
    pub(super) fn limit(&self, direction: Direction) -> &Amount {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// What was asked for as placement, in a few words.
    pub(super) fn placement_text(&self) -> String {
        match self.host_ingress.as_str() {
            "auto" => self.placement.clone(),
            way => format!("{}, host ingress {way}", self.placement),
        }
    }
}

/// A quantity with the text that it was written as, which is what the plugin gets.
#[derive(Debug, Clone)]
pub(super) struct Amount {
    /// As it was written.
    pub(super) text: String,
    /// Bits, or bits per second.
    pub(super) bits: u64,
}

/// Reads a quantity of bits. What it may be is for the plugin to say.
fn amount(text: &str) -> Result<Amount, String> {
    let quantity = quantity::parse(text).map_err(|error| error.to_string())?;
    let bits = u64::try_from(quantity.ceil()).map_err(|_| "it is out of range".to_owned())?;
    Ok(Amount { text: text.to_owned(), bits })
}

/// Reads a rate within the bounds of the annotations.
fn rate(text: &str) -> Result<Amount, String> {
    let amount = amount(text)?;
    match amount.bits {
        1_000..=1_000_000_000_000_000 => Ok(amount),
        _ => Err("a rate is 1k to 1P bits per second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = ["demo"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let options = parse("").unwrap();
        assert_eq!((options.ingress.bits, options.egress.bits), (10_000_000, 20_000_000));
        assert_eq!((options.seconds, options.json), (5, false));
        assert!(options.burst.is_none() && options.congestion.is_none());
        assert_eq!(options.placement_text(), "auto");
    }

    #[test]
    fn quantities_are_those_of_kubernetes_and_keep_their_text() {
        let options = parse("--ingress 1.5Mi --egress 2e6 --burst 64k").unwrap();
        assert_eq!((options.ingress.bits, options.ingress.text.as_str()), (1_572_864, "1.5Mi"));
        assert_eq!(options.egress.bits, 2_000_000);
        assert_eq!(options.burst.map(|burst| burst.bits), Some(64_000));
    }

    #[test]
    fn a_way_on_the_host_is_part_of_what_was_asked_for() {
        let options = parse("--placement host --host-ingress hooks").unwrap();
        assert_eq!(options.placement_text(), "host, host ingress hooks");
    }

    #[test]
    fn wrong_values_are_refused_before_anything_starts() {
        for (line, said) in [
            ("--ingress 10X", "suffix"),
            ("--ingress 999", "1k to 1P"),
            ("--egress 1.1P", "1k to 1P"),
            ("--egress=-1M", "out of range"),
            ("--burst lots", "number"),
            ("--placement moon", "auto, host, pod"),
            ("--host-ingress moon", "auto, root, hooks"),
            ("--seconds 1", "2..=600"),
            ("--fast", "unexpected argument"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{line}: no {said:?} in {error}");
        }
    }
}
