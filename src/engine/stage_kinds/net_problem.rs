//! What is wrong with a parameter of a network.

/// A parameter of a network that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetProblem {
    /// The parameter.
    pub name: &'static str,
    /// Which of its numbers, where it is a list.
    pub index: Option<usize>,
    /// What is wrong; reads on after the name.
    pub problem: String,
    /// What to do about it.
    pub help: Option<&'static str>,
}

impl NetProblem {
    /// A problem of a parameter that is no list.
    pub(super) const fn of(name: &'static str, problem: String, help: Option<&'static str>) -> Self {
        NetProblem { name, index: None, problem, help }
    }
}
