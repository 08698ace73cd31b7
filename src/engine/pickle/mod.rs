//! Python pickles: a machine for the opcodes of protocols 2 to 5 that makes values and never runs anything. What a
//! pickle may name, and what a call of it makes, is the table of one family of files ([`Family`]); a name beyond the
//! table ends the reading. Knows nothing of the files around a pickle. (Opcodes: Python's `Lib/pickletools.py`.)
//!
//! Values lie side by side and refer to each other by number, so that one that is nested deeply, or in itself, costs
//! what its bytes cost. Texts and bytes are borrowed from the pickle. A pickle has a budget of values, so that memory
//! is bounded.

mod machine;

use std::borrow::Cow;

pub use machine::read;

/// How many values, and references from one to another, a pickle may make. A batch of CIFAR-10 makes 30,000; a
/// checkpoint with the state of its optimizer some 100,000; the most take 400 MB.
const MAX_VALUES: usize = 1 << 22;

/// Why a pickle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends too early, or refers to what is not there.
    #[error("its pickle is cut or damaged at byte {at}")]
    Damaged {
        /// Where, from the start of the pickle.
        at: usize,
    },
    /// An opcode that no family has a use for.
    #[error("its pickle has the opcode {opcode:#04x} at byte {at}, which {family} do not need: it is not read")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where, from the start of the pickle.
        at: usize,
        /// What such files are called.
        family: &'static str,
    },
    /// A name that is not in the table.
    #[error("its pickle asks for `{name}`, which is not in {family}: it is refused, and nothing of it was run")]
    Global {
        /// The module and the name in it.
        name: String,
        /// What such files are called.
        family: &'static str,
    },
    /// Something known, used in a way that is not.
    #[error("its pickle uses {what} in a way that is not known")]
    Use {
        /// What.
        what: &'static str,
    },
    /// More values than any file of the family has.
    #[error("its pickle makes more than {MAX_VALUES} values")]
    TooMany,
}

/// The number of a value.
pub type Ref = usize;

/// What the pickles of one family of files may name, and what calls make. All functions are given values by number.
pub trait Family: Sized {
    /// A name that may stand in a pickle.
    type Global: Copy;
    /// What a call makes.
    type Object;
    /// What such files are called, in the plural.
    const NAME: &'static str;

    /// A name; none if it is not in the table.
    fn find(module: &str, name: &str) -> Option<Self::Global>;

    /// What a call of a name makes; none if it is called in another way than these files do.
    fn call<'a>(values: &Values<'a, Self>, global: Self::Global, arguments: &[Ref]) -> Option<Node<'a, Self>>;

    /// What becomes of a value that is given a state (`BUILD`): none if it takes no state, `Some(None)` if it stays as
    /// it is.
    fn build<'a>(values: &Values<'a, Self>, target: &Node<'a, Self>, state: Ref) -> Option<Option<Node<'a, Self>>>;

    /// What stands outside of the pickle under an identity (`BINPERSID`).
    fn outside<'a>(_values: &Values<'a, Self>, _identity: Ref) -> Option<Node<'a, Self>> {
        None
    }

    /// How many references an object holds: the budget counts them.
    fn weight(_object: &Self::Object) -> usize {
        0
    }
}

/// A value.
pub enum Node<'a, F: Family> {
    /// None, a float, or what a family does not look at.
    Other,
    /// A truth value.
    Bool(bool),
    /// An integer of up to eight bytes.
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Long(&'a [u8]),
    /// A text. Python 2 had one type for texts and bytes: these, too.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A tuple.
    Tuple(Vec<Ref>),
    /// A list.
    List(Vec<Ref>),
    /// A dictionary; of two entries with one key, the later counts.
    Dict(Vec<(Ref, Ref)>),
    /// A name of the family.
    Global(F::Global),
    /// What a call made.
    Object(F::Object),
}

impl<F: Family> Node<'_, F> {
    fn weight(&self) -> usize {
        1 + match self {
            Node::Tuple(items) | Node::List(items) => items.len(),
            Node::Dict(entries) => 2 * entries.len(),
            Node::Object(object) => F::weight(object),
            _ => 0,
        }
    }
}

/// Values by number.
pub struct Values<'a, F: Family>(Vec<Node<'a, F>>);

impl<'a, F: Family> Values<'a, F> {
    /// A value by its number.
    pub fn node(&self, at: Ref) -> &Node<'a, F> {
        self.0.get(at).unwrap_or(&Node::Other)
    }

    /// All values, in the order in which they were made.
    pub fn nodes(&self) -> impl Iterator<Item = &Node<'a, F>> {
        self.0.iter()
    }

    /// A text.
    pub fn text(&self, at: Ref) -> Option<Cow<'a, str>> {
        match self.node(at) {
            Node::Text(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// The entry of a dictionary under a text, or under bytes.
    pub fn entry(&self, dict: Ref, name: &str) -> Option<Ref> {
        let Node::Dict(entries) = self.node(dict) else { return None };
        let has_name = |(key, _): &&(Ref, Ref)| matches!(self.node(*key), Node::Text(text) | Node::Bytes(text) if *text == name.as_bytes());
        entries.iter().rev().find(has_name).map(|(_, value)| *value)
    }

    /// The items of a tuple or of a list.
    pub fn items(&self, at: Ref) -> Option<&[Ref]> {
        match self.node(at) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The integers of a tuple or of a list of at most so many.
    pub fn integers(&self, at: Ref, most: usize) -> Option<Vec<i64>> {
        let integer = |&at: &Ref| match self.node(at) {
            Node::Int(value) => Some(*value),
            _ => None,
        };
        self.items(at).filter(|items| items.len() <= most)?.iter().map(integer).collect()
    }

    /// The pairs of a list of pairs.
    pub fn pairs(&self, at: Ref) -> Option<Vec<(Ref, Ref)>> {
        let pair = |&at: &Ref| match self.items(at) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        self.items(at)?.iter().map(pair).collect()
    }
}

/// What a pickle holds.
pub struct Pickle<'a, F: Family> {
    /// All values that it made.
    pub values: Values<'a, F>,
    /// The one that it is for.
    pub root: Ref,
    /// How many bytes it took.
    pub length: usize,
}

impl<'a, F: Family> Pickle<'a, F> {
    /// The value that it is for.
    pub fn root(&self) -> &Node<'a, F> {
        self.values.node(self.root)
    }
}
