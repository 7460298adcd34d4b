//! The API server: what is watched there, and Events on pods.

use futures_util::stream::{Stream, StreamExt, select};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use super::backoff::Doubling;
use super::wanted::PodName;
use crate::log::Log;

/// Who says so in an Event.
const REPORTER: &str = "pod-bandwidth";

/// What of an Event's message the API server takes (1 KiB in validation of events.k8s.io).
const MESSAGE_BYTES_MAX: usize = 1000;

/// What the watches say.
#[derive(Debug)]
pub(super) enum Seen {
    /// Of the pods on this node.
    Pods(Event<PartialObjectMeta<Pod>>),
    /// Of the namespaces.
    Namespaces(Event<PartialObjectMeta<Namespace>>),
    /// That one of them does not get through. It tries again by itself, each time later.
    Away(String),
}

/// Watches the pods of a node and all namespaces: metadata alone, with bookmarks, for ever.
pub(super) fn watch(client: &Client, node: &str) -> impl Stream<Item = Seen> + use<> {
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<PartialObjectMeta<Pod>>::all(client.clone());
    let pods = watcher(pods, of_node).backoff(Doubling::default()).map(|seen| match seen {
        Ok(event) => Seen::Pods(event),
        Err(error) => Seen::Away(format!("watching pods: {}", chain(&error))),
    });
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let namespaces = watcher(namespaces, watcher::Config::default())
        .backoff(Doubling::default())
        .map(|seen| match seen {
            Ok(event) => Seen::Namespaces(event),
            Err(error) => Seen::Away(format!("watching namespaces: {}", chain(&error))),
        });
    select(pods, namespaces)
}

/// An error with its causes, each once: the outer ones often repeat the inner.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Writes Events on pods.
#[derive(Clone)]
pub(super) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Of the agent on this node.
    pub(super) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: REPORTER.into(), instance: Some(node.into()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Writes one, in the background: nothing waits for the API server.
    pub(super) fn tell(&self, pod: &PodName, uid: &str, reason: &str, message: &str) {
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        };
        let told = Told {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(cut(message, MESSAGE_BYTES_MAX)),
            action: "Limit".into(),
            secondary: None,
        };
        let (recorder, pod) = (self.recorder.clone(), pod.to_string());
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&told, &reference).await {
                let log = Log::open(&<_>::default(), format!("pod {pod}"));
                log.warn(&format!("its Event could not be written: {}", chain(&error)));
            }
        });
    }
}

/// The begin of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_between_two_letters() {
        assert_eq!(
            (cut("größe", 3), cut("größe", 4), cut("größe", 99)),
            ("gr".into(), "grö".into(), "größe".into())
        );
    }
}
