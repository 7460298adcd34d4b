//! CNI_ARGS: what a runtime says about the pod (section 2; keys of the Kubernetes runtimes).

/// The pod that an attachment belongs to, as far as the runtime said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// K8S_POD_NAMESPACE.
    pub pod_namespace: Option<String>,
    /// K8S_POD_NAME.
    pub pod_name: Option<String>,
}

impl Args {
    /// Reads `KEY=VALUE;KEY=VALUE`. Unknown keys are ignored, broken ones too: the runtimes say
    /// IgnoreUnknown=1, and nothing here decides about a pod's network.
    pub fn parse(text: &str) -> Self {
        let mut args = Self::default();
        for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            let slot = match key {
                "K8S_POD_NAMESPACE" => &mut args.pod_namespace,
                "K8S_POD_NAME" => &mut args.pod_name,
                _ => continue,
            };
            *slot = (!value.is_empty()).then(|| value.to_string());
        }
        args
    }

    /// `namespace/name`, where both are known.
    pub fn pod(&self) -> Option<String> {
        Some(format!("{}/{}", self.pod_namespace.as_ref()?, self.pod_name.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_read_and_the_rest_ignored() {
        for (text, pod) in [
            (
                "K8S_POD_UID=1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bw1",
                Some("default/bw1"),
            ),
            ("K8S_POD_NAMESPACE=default", None),
            ("K8S_POD_NAMESPACE=;K8S_POD_NAME=bw1", None),
            ("nonsense;;=;K8S_POD_NAME=a=b;K8S_POD_NAMESPACE=c", Some("c/a=b")),
            ("", None),
        ] {
            assert_eq!(Args::parse(text).pod().as_deref(), pod, "{text:?}");
        }
    }
}
