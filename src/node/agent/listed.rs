//! A list that a watch keeps: what it holds now, through interruptions.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// What an event of the watch has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed<K> {
    /// Nothing yet.
    Nothing,
    /// One item came, changed or went.
    One(K),
    /// The whole list was made anew.
    All,
}

/// The items.
#[derive(Debug)]
pub(super) struct Listed<K, V> {
    items: BTreeMap<K, V>,
    /// The list that is being made anew, after the first one or after an interruption. Until it is
    /// whole, the old one holds: what is missing in it is not gone.
    next: Option<BTreeMap<K, V>>,
    complete: bool,
}

impl<K, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), next: None, complete: false }
    }
}

impl<K: Ord + Clone, V> Listed<K, V> {
    /// Whether the list was whole once.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The item of this name.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.items.get(key)
    }

    /// All items.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.items.iter()
    }

    /// Takes an event of the watch; `read` says what is kept of an object.
    pub(super) fn take<O>(&mut self, event: Event<O>, read: impl Fn(&O) -> (K, V)) -> Changed<K> {
        match event {
            Event::Init => {
                self.next = Some(BTreeMap::new());
                Changed::Nothing
            }
            Event::InitApply(object) => {
                let (key, value) = read(&object);
                self.next.get_or_insert_default().insert(key, value);
                Changed::Nothing
            }
            Event::InitDone => {
                self.items = self.next.take().unwrap_or_default();
                self.complete = true;
                Changed::All
            }
            Event::Apply(object) => {
                let (key, value) = read(&object);
                self.items.insert(key.clone(), value);
                Changed::One(key)
            }
            Event::Delete(object) => {
                let (key, _) = read(&object);
                self.items.remove(&key);
                Changed::One(key)
            }
        }
    }
}
