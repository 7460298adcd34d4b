//! What the kernel has, as `ip` and `tc` of iproute2 say it.

use serde_json::Value;

use super::Ns;

/// A root qdisc, or a child of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Qdisc {
    /// `tbf`, `clsact`, `noqueue`, …
    pub kind: String,
    /// `7062:`
    pub handle: String,
    /// `None` for the root of the device.
    pub parent: Option<String>,
    /// As tc prints them.
    pub options: Value,
}

/// A tc filter that matches something (u32's own hash tables are left out).
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Priority: lower ones are asked first.
    pub pref: u64,
    /// `all`, `ip`, …
    pub protocol: String,
    /// `u32`, `bpf`, …
    pub kind: String,
    /// Device of a mirred action.
    pub to_dev: Option<String>,
    /// Cookie of the action, in hexadecimal.
    pub cookie: Option<String>,
    /// All that tc prints.
    pub raw: Value,
}

impl Filter {
    /// Carries the mark of this product: a cookie that starts with "podb".
    pub fn is_ours(&self) -> bool {
        self.cookie.as_deref().is_some_and(|cookie| cookie.starts_with("706f6462"))
    }
}

impl Ns {
    /// The qdiscs of `dev` with everything that tc knows of them (limits in bytes, ticks).
    pub fn qdiscs(&self, dev: &str) -> Vec<Qdisc> {
        // -r: the limit of a TBF in bytes is printed with the raw values only.
        items(self.json(&["tc", "-r", "-d", "-j", "qdisc", "show", "dev", dev]))
            .into_iter()
            .map(|raw| Qdisc {
                kind: text(&raw, "kind"),
                handle: text(&raw, "handle"),
                parent: raw["parent"].as_str().map(str::to_owned),
                options: raw["options"].clone(),
            })
            .collect()
    }

    /// The root qdisc of `dev`.
    pub fn root(&self, dev: &str) -> Qdisc {
        let found = self.qdiscs(dev).into_iter().find(|qdisc| qdisc.parent.is_none());
        found.unwrap_or_else(|| panic!("{dev} in {} has no root qdisc", self.label))
    }

    /// Kind of the hook qdisc of `dev`: `ingress`, `clsact` or none.
    pub fn hook_kind(&self, dev: &str) -> Option<String> {
        let kinds = ["ingress", "clsact"];
        let mut found = self.qdiscs(dev).into_iter().map(|qdisc| qdisc.kind);
        found.find(|kind| kinds.contains(&kind.as_str()))
    }

    /// The filters on the `ingress` or `egress` hook of `dev`, in the order in which the kernel
    /// asks them.
    pub fn filters(&self, dev: &str, hook: &str) -> Vec<Filter> {
        items(self.json(&["tc", "-d", "-j", "filter", "show", "dev", dev, hook]))
            .into_iter()
            .filter(|raw| {
                // u32 prints a line for the priority and one for its hash table before the filter.
                let options = &raw["options"];
                !options.is_null() && options.get("ht_divisor").is_none()
            })
            .map(|raw| {
                let actions = items(raw["options"]["actions"].clone());
                let find = |key| actions.iter().find_map(|action| action[key].as_str());
                Filter {
                    pref: raw["pref"].as_u64().expect("tc prints a priority"),
                    protocol: text(&raw, "protocol"),
                    kind: text(&raw, "kind"),
                    to_dev: find("to_dev").map(str::to_owned),
                    cookie: find("cookie").map(str::to_owned),
                    raw,
                }
            })
            .collect()
    }

    /// `ip -d link show` of `dev`, `None` where there is none.
    pub fn link(&self, dev: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == dev)
    }

    /// `ip -d link show` of all devices.
    pub fn links(&self) -> Vec<Value> {
        items(self.json(&["ip", "-d", "-j", "link", "show"]))
    }

    /// The names of this product's IFBs, in alphabetical order.
    pub fn ifbs(&self) -> Vec<String> {
        let mut names: Vec<String> = items(self.json(&["ip", "-j", "link", "show", "type", "ifb"]))
            .iter()
            .map(|link| text(link, "ifname"))
            .filter(|name| name.starts_with("pbi") || name.starts_with("pbe"))
            .collect();
        names.sort();
        names
    }

    /// The alias of `dev`, empty where it has none.
    pub fn alias(&self, dev: &str) -> String {
        let link = self.link(dev).unwrap_or_else(|| panic!("{dev} is not in {}", self.label));
        link["ifalias"].as_str().unwrap_or_default().to_owned()
    }

    /// The hardware address of `dev`.
    pub fn mac(&self, dev: &str) -> String {
        let link = self.link(dev).unwrap_or_else(|| panic!("{dev} is not in {}", self.label));
        text(&link, "address")
    }

    /// `addr_info` of `dev`: its addresses of every family.
    pub fn addresses(&self, dev: &str) -> Vec<Value> {
        let shown = items(self.json(&["ip", "-j", "addr", "show", "dev", dev]));
        items(shown[0]["addr_info"].clone())
    }

    /// Bytes that wait in the root qdisc of `dev`.
    pub fn backlog(&self, dev: &str) -> u64 {
        let shown = items(self.json(&["tc", "-s", "-j", "qdisc", "show", "dev", dev, "root"]));
        shown[0]["backlog"].as_u64().unwrap_or(0)
    }

    /// Packets that went into the root qdisc of `dev`, were dropped there, or wait in it.
    pub fn qdisc_packets(&self, dev: &str) -> u64 {
        let shown = items(self.json(&["tc", "-s", "-j", "qdisc", "show", "dev", dev, "root"]));
        ["packets", "drops", "qlen"].iter().map(|key| shown[0][*key].as_u64().unwrap_or(0)).sum()
    }
}

/// The items of a JSON array; none for anything else.
pub fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn text(value: &Value, key: &str) -> String {
    let found = value[key].as_str();
    found.unwrap_or_else(|| panic!("iproute2 prints no {key} in {value}")).to_owned()
}
