//! The two directions of a pod's traffic, as Kubernetes names them.

use std::fmt;

/// A direction, as seen from the pod. Its Display is the word that every key begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both, in the order in which arrays hold them.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// As it is spelled at the start of every key.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// For people: the interface's own view is the other one, so the pod is named.
    pub fn described(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress (to the pod)",
            Direction::Egress => "egress (from the pod)",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
