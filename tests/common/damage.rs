//! Ways to break a shaped pod, one part at a time.

use super::{Direction, Ns, Pod, Way, our_pref};

/// One part that is missing or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No TBF.
    NoTbf,
    /// The TBF's rate is another one.
    OtherRate,
    /// The TBF's burst is another one.
    OtherBurst,
    /// The TBF's queue holds another number of bytes.
    OtherLimit,
    /// The TBF's queue is a qdisc of another kind.
    OtherLeaf,
    /// No hook qdisc.
    NoHook,
    /// No filter.
    NoFilter,
    /// The filter redirects to another device.
    OtherTarget,
    /// No IFB.
    NoIfb,
    /// The IFB is down.
    IfbDown,
}

impl Damage {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::NoTbf,
        Self::OtherRate,
        Self::OtherBurst,
        Self::OtherLimit,
        Self::OtherLeaf,
        Self::NoHook,
        Self::NoFilter,
        Self::OtherTarget,
        Self::NoIfb,
        Self::IfbDown,
    ];

    /// Every way, direction and kind of damage that goes together, for tables.
    pub fn table() -> impl Iterator<Item = (Way, Direction, Self)> {
        Way::ALL.into_iter().flat_map(|way| {
            Direction::ALL.into_iter().flat_map(move |direction| {
                let fits =
                    move |damage: &Self| !damage.needs_hook() || way.hook(direction).is_some();
                Self::ALL.into_iter().filter(fits).map(move |damage| (way, direction, damage))
            })
        })
    }

    /// Whether the limit does not hold any more. What is derived from the limit, and the kind of queue, may
    /// be another release's.
    pub fn breaks_the_limit(self) -> bool {
        !matches!(self, Self::OtherBurst | Self::OtherLimit | Self::OtherLeaf)
    }

    fn needs_hook(self) -> bool {
        let at_hook = [Self::NoHook, Self::NoFilter, Self::OtherTarget, Self::NoIfb, Self::IfbDown];
        at_hook.contains(&self)
    }

    /// Does the damage to `eth0` of `pod`, which is shaped in this way with a limit of 10 Mbit/s
    /// in this direction. Gives back the device that has it.
    pub fn apply(self, pod: &Pod, way: Way, direction: Direction) -> String {
        let ns = way.namespace(pod);
        let dev = way.device(&pod.eth0).to_owned();
        let queue = way.queue_device(pod, &pod.eth0, direction).expect("a shaped direction");
        let hook = way.hook(direction).unwrap_or_default();
        let change = |numbers: &str| {
            ns.sh(&format!("tc qdisc change dev {queue} root handle 7062: tbf {numbers}"));
        };
        match self {
            Self::NoTbf => drop(ns.sh(&format!("tc qdisc del dev {queue} root"))),
            Self::OtherRate => change("rate 11mbit burst 5500 limit 36250"),
            Self::OtherBurst => change("rate 10mbit burst 6000 limit 36250"),
            Self::OtherLimit => change("rate 10mbit burst 5000 limit 40000"),
            Self::OtherLeaf => {
                drop(ns.sh(&format!("tc qdisc replace dev {queue} parent 7062:1 pfifo limit 9")));
            }
            Self::NoHook => drop(ns.sh(&format!("tc qdisc del dev {dev} clsact"))),
            Self::NoFilter => {
                let pref = our_pref(hook);
                drop(ns.sh(&format!("tc filter del dev {dev} {hook} pref {pref}")));
            }
            Self::OtherTarget => redirect_elsewhere(ns, &dev, hook),
            Self::NoIfb => drop(ns.sh(&format!("ip link del {queue}"))),
            Self::IfbDown => drop(ns.sh(&format!("ip link set {queue} down"))),
        }
        if matches!(self, Self::NoHook | Self::NoFilter | Self::OtherTarget) { dev } else { queue }
    }
}

/// The same filter with the same mark and a foreign target.
fn redirect_elsewhere(ns: &Ns, dev: &str, hook: &str) {
    let ours = ns.filters(dev, hook).into_iter().find(|filter| filter.is_ours()).expect("ours");
    let pref = our_pref(hook);
    let cookie = ours.cookie.expect("ours has one");
    ns.script(&format!(
        "ip link add foreign type ifb
         ip link set foreign up
         tc filter del dev {dev} {hook} pref {pref}
         tc filter add dev {dev} {hook} protocol all pref {pref} u32 match u32 0 0 \
            action mirred egress redirect dev foreign cookie {cookie}"
    ));
}
