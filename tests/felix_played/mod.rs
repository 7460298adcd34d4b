//! Calico's Felix, played by `tc` and `ip` after its own reading of the kernel, request by request
//! (felix/dataplane/linux/qos_controls.go and qos/qos.go of Calico v3.32.1).
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::Duration;

use super::common::{Call, Flow, Lab, Ns, Pod, Traffic};

/// What Felix itself wants for an endpoint: Mbit/s to the pod and from it, `None` for no limit.
pub type Wanted = Option<u32>;

/// A Felix, and the host interface that it looks after.
#[derive(Clone, Debug)]
pub struct Felix {
    /// The node.
    pub lab: Ns,
    /// The host interface.
    pub dev: String,
    /// Its IFB for it: `bwcali` and a hash.
    pub ifb: String,
    /// Bytes of the buckets of the interface and of the IFB.
    pub bursts: [u64; 2],
}

/// A request of Felix on its way to limits of its own, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The TBF at the root of the interface: whatever TBF it finds counts as its own, old one.
    Root,
    /// The IFB, up.
    Ifb,
    /// The plain `ingress` qdisc, unless there is one.
    Ingress,
    /// Removal of the u32 filters on it.
    Clean,
    /// The redirect to the IFB.
    Filter,
    /// The TBF at the root of the IFB.
    IfbRoot,
}

impl Request {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Root, Self::Ifb, Self::Ingress, Self::Clean, Self::Filter, Self::IfbRoot];
}

impl Felix {
    /// One that looks after `dev`.
    pub fn new(lab: &Ns, dev: &str) -> Self {
        let ifb = "bwcali0123abcde".to_owned();
        Self { lab: lab.clone(), dev: dev.to_owned(), ifb, bursts: [536_870_912; 2] }
    }

    /// Every event ends in this: Felix compares what it finds with what it wants.
    pub fn sees(&self, wanted: Wanted) {
        match wanted {
            Some(rate) if self.is_tbf(&self.ifb) => {
                self.does(Request::Root, [rate; 2]);
                self.does(Request::IfbRoot, [rate; 2]);
            }
            Some(rate) => {
                self.shapes(&Request::ALL, [rate; 2]);
            }
            None => self.lets_go(),
        }
    }

    /// Requests one after the other. False where Felix gives up, because the kernel refuses one.
    pub fn shapes(&self, requests: &[Request], rates: [u32; 2]) -> bool {
        requests.iter().all(|request| self.does(*request, rates))
    }

    /// One request, with the rates in Mbit/s to the pod and from it.
    pub fn does(&self, request: Request, rates: [u32; 2]) -> bool {
        let Self { lab, dev, ifb, bursts } = self;
        let tbf = |dev: &str, at: usize| {
            format!(
                "tc qdisc replace dev {dev} root handle 1: tbf rate {}mbit burst {} limit 4294967295",
                rates[at], bursts[at]
            )
        };
        let words = match request {
            Request::Root => tbf(dev, 0),
            Request::Ifb if lab.link(ifb).is_some() => return true,
            Request::Ifb => format!("ip link add {ifb} up type ifb"),
            Request::Ingress if self.has_ingress() => return true,
            Request::Ingress => format!("tc qdisc replace dev {dev} handle ffff: ingress"),
            Request::Clean => {
                // It asks for the filters of a plain `ingress` qdisc: clsact has none of these.
                let filters = if self.has_ingress() { lab.filters(dev, "ingress") } else { vec![] };
                let delete = |pref| {
                    format!("tc filter del dev {dev} parent ffff: protocol all pref {pref} u32")
                };
                return filters.iter().all(|filter| self.asks(&delete(filter.pref)));
            }
            Request::Filter => format!(
                "tc filter add dev {dev} parent ffff: pref 1 protocol all u32 match u32 0 0 \
                 flowid 1:1 action mirred egress redirect dev {ifb}"
            ),
            Request::IfbRoot => tbf(ifb, 1),
        };
        self.asks(&words)
    }

    fn lets_go(&self) {
        if self.is_tbf(&self.dev) {
            self.asks(&format!("tc qdisc del dev {} root", self.dev));
        }
        if self.is_tbf(&self.ifb) {
            self.lab.sh(&format!("ip link del {}", self.ifb));
            if self.has_ingress() {
                self.asks(&format!("tc qdisc del dev {} ingress", self.dev));
            }
        }
    }

    fn is_tbf(&self, dev: &str) -> bool {
        self.lab.link(dev).is_some() && self.lab.root(dev).kind == "tbf"
    }

    fn has_ingress(&self) -> bool {
        self.lab.hook_kind(&self.dev).as_deref() == Some("ingress")
    }

    fn asks(&self, words: &str) -> bool {
        self.lab.attempt(&words.split_whitespace().collect::<Vec<_>>()).status.success()
    }
}

/// Whether 8M to the pod and 4M from the pod hold, measured both at the same time.
pub fn hold(lab: &Lab, pod: &Pod) -> (bool, bool) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, &pod.eth0.pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, &pod.eth0.host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    let (to_pod, from_pod) = (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits);
    // Wide, for a busy machine: a limit that is gone shows as 100 Mbit/s or more.
    assert!(to_pod > 1e6 && from_pod > 5e5, "{to_pod:.0}, {from_pod:.0} bit/s: the pod is cut off");
    (to_pod < 16e6, from_pod < 8e6)
}

/// An ADD with these limits.
pub fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("8M", "4M")
}
