//! Propagation, as mount_namespaces(7) has it, where no mount has peers elsewhere.

/// How a mount passes on what is mounted below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    pub shared: bool,
    pub unbindable: bool,
}

impl Propagation {
    /// What mountinfo says.
    pub fn found(groups: &[String]) -> Self {
        Self {
            shared: groups.iter().any(|group| group.starts_with("shared:")),
            unbindable: groups.iter().any(|group| group == "unbindable"),
        }
    }

    /// After one more change; other words change nothing.
    pub fn change(self, word: &str) -> Self {
        match word.strip_prefix('r').filter(|rest| is_propagation(rest)).unwrap_or(word) {
            "shared" => Self { shared: true, unbindable: false },
            "private" => Self::default(),
            "unbindable" => Self { shared: false, unbindable: true },
            // Alone in its peer group it has no master to become a slave of.
            "slave" => Self { shared: false, ..self },
            _ => self,
        }
    }

    pub fn name(self) -> &'static str {
        match (self.shared, self.unbindable) {
            (true, _) => "shared",
            (false, true) => "unbindable",
            (false, false) => "private",
        }
    }
}

/// Whether the word changes everything mounted below too.
pub fn is_recursive(word: &str) -> bool {
    word.strip_prefix('r').is_some_and(is_propagation)
}

/// Whether it is one of a propagation at all.
pub fn is_word(word: &str) -> bool {
    is_propagation(word) || is_recursive(word)
}

fn is_propagation(word: &str) -> bool {
    ["shared", "private", "slave", "unbindable"].contains(&word)
}
