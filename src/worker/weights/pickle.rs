//! Pickles, as far as state dicts need them: a machine for the opcodes of protocols 2 to 5 that makes values and never runs anything. What a
//! pickle may name is a short list; a name beyond it ends the reading. Knows nothing of the files around a pickle.
//!
//! Values lie side by side and refer to each other by number, so that one that is nested deeply, or in itself, costs what its bytes cost.

use std::collections::HashMap;

use tch::Kind;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// It ends too early, or refers to what is not there.
    #[error("its pickle is cut or damaged at byte {at}")]
    Damaged {
        /// Where, from the start of the pickle.
        at: usize,
    },
    /// An opcode that state dicts have no use for.
    #[error("its pickle has the opcode {opcode:#04x} at byte {at}, which no state dict needs: it is not read")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where, from the start of the pickle.
        at: usize,
    },
    /// A name that is not on the list.
    #[error(
        "its pickle asks for `{0}`, which is neither a tensor nor a plain container: it is refused, and nothing of it was run; \
         save `model.state_dict()` alone, or as safetensors"
    )]
    Global(String),
    /// Something known, used in a way that is not.
    #[error("its pickle uses {what} in a way that is not known")]
    Use {
        /// What.
        what: &'static str,
    },
}

/// The number of a value.
pub(super) type Ref = usize;

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    /// `torch._utils._rebuild_tensor` and its second version.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter` and the class itself: the tensor inside is meant.
    Parameter,
    Storage(Kind),
    /// Numbers of NumPy, arguments of a program, devices, types: what people keep beside weights. No call of one is
    /// made; each is a value of no interest.
    Plain,
    DefaultDict,
}

impl Global {
    fn find(module: &str, name: &str) -> Result<Self, PickleError> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch", "Size") => Global::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") | ("torch.nn.parameter", "Parameter") => Global::Parameter,
            ("collections", "defaultdict") => Global::DefaultDict,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("numpy", "dtype")
            | ("_codecs", "encode")
            | ("argparse", "Namespace")
            | ("builtins" | "__builtin__", "dict" | "list" | "set" | "int" | "float" | "bool" | "str")
            | (
                "torch",
                "device" | "float16" | "float32" | "float64" | "bfloat16" | "int64" | "int32" | "uint8" | "bool",
            ) => Global::Plain,
            ("torch" | "torch.storage", _) if name.ends_with("Storage") => {
                let kind = match name.trim_end_matches("Storage") {
                    "Float" => Kind::Float,
                    "Double" => Kind::Double,
                    "Half" => Kind::Half,
                    "BFloat16" => Kind::BFloat16,
                    "Long" => Kind::Int64,
                    "Int" => Kind::Int,
                    "Short" => Kind::Int16,
                    "Char" => Kind::Int8,
                    "Byte" => Kind::Uint8,
                    "Bool" => Kind::Bool,
                    _ => return Err(PickleError::Global(format!("{module}.{name}"))),
                };
                Global::Storage(kind)
            }
            _ => return Err(PickleError::Global(format!("{module}.{name}"))),
        })
    }
}

/// A storage, by its name in the file.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) count: i64,
}

/// A tensor as a part of a storage; nothing of it is checked yet.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) storage: Storage,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// None, a float, or bytes: nothing that tensors depend on.
    Other,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Long(Vec<u8>),
    Text(String),
    Tuple(Vec<Ref>),
    List(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    Global(Global),
    Storage(Storage),
    Tensor(Part),
}

/// What a pickle holds.
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Ref,
}

impl Pickle {
    pub(super) fn root(&self) -> &Node {
        self.node(self.root)
    }

    pub(super) fn root_number(&self) -> Ref {
        self.root
    }

    /// Every value that was made.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// A value by the number that another one of the same pickle has.
    pub(super) fn node(&self, at: Ref) -> &Node {
        self.nodes.get(at).unwrap_or(&Node::Other)
    }

    /// The entry of a dictionary under a text.
    pub(super) fn entry(&self, dict: &Node, name: &str) -> Option<&Node> {
        let Node::Dict(entries) = dict else { return None };
        let of_name = |(key, _): &&(Ref, Ref)| matches!(self.node(*key), Node::Text(text) if text == name);
        entries.iter().rev().find(of_name).map(|(_, value)| self.node(*value))
    }
}

/// Reads one pickle; gives what it holds and how many bytes it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Pickle, usize), PickleError> {
    let mut machine =
        Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    loop {
        let (at, opcode) = (machine.at, machine.byte()?);
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok((Pickle { nodes: machine.nodes, root }, machine.at));
        }
        machine.step(opcode, at)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
}

impl Machine<'_> {
    fn step(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            // Protocol, frame.
            0x80 => _ = self.take(1)?,
            0x95 => _ = self.take(8)?,
            b'N' => self.push(Node::Other),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => self.small::<1>()?,
            b'M' => self.small::<2>()?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            0x8a => {
                let len = usize::from(self.byte()?);
                self.long(len)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Other);
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            // Texts of Python 2.
            b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            // Bytes.
            b'C' | b'B' | 0x8e => {
                let len = self.length(match opcode {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                self.take(len)?;
                self.push(Node::Other);
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or_else(|| self.damaged())?;
                let items = self.stack.split_off(items);
                self.push(Node::Tuple(items));
            }
            b't' => {
                let items = self.marked()?;
                self.push(Node::Tuple(items));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'l' => {
                let items = self.marked()?;
                self.push(Node::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.extend(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Dict(pairs(&items)));
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(pairs(&items))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(Global::find(&module, &name)?));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err(self.damaged());
                };
                let global = Global::find(module, name)?;
                self.push(Node::Global(global));
            }
            b'R' | 0x81 => self.call()?,
            b'b' => {
                // The state of an ordered dictionary or of an old parameter: hooks, versions; nothing that is a weight.
                self.pop()?;
                match self.stack.last().map(|&top| &self.nodes[top]) {
                    Some(Node::Dict(_) | Node::Tensor(_) | Node::Other) => {}
                    _ => return Err(PickleError::Use { what: "BUILD" }),
                }
            }
            b'Q' => self.storage()?,
            b'q' => {
                let name = u64::from(self.byte()?);
                self.remember(name)?;
            }
            b'r' => {
                let name = u64::from(u32::from_le_bytes(self.array()?));
                self.remember(name)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let name = u64::from(self.byte()?);
                self.recall(name)?;
            }
            b'j' => {
                let name = u64::from(u32::from_le_bytes(self.array()?));
                self.recall(name)?;
            }
            opcode => return Err(PickleError::Opcode { opcode, at }),
        }
        Ok(())
    }

    /// Calls a name on a tuple, for the few names there are.
    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Node::Global(global), Node::Tuple(arguments)) = (&self.nodes[callee], &self.nodes[arguments]) else {
            return Err(PickleError::Use { what: "a call" });
        };
        let node = |index: usize| arguments.get(index).map(|&at| &self.nodes[at]);
        let made = match global {
            Global::OrderedDict => match node(0) {
                None => Some(Node::Dict(Vec::new())),
                // Python 2: a list of pairs.
                Some(Node::List(items)) => self.pairs_in(items).map(Node::Dict),
                Some(_) => None,
            },
            Global::Size => match node(0) {
                Some(Node::Tuple(sides)) => Some(Node::Tuple(sides.clone())),
                _ => None,
            },
            Global::Parameter => match node(0) {
                Some(Node::Tensor(part)) => Some(Node::Tensor(part.clone())),
                _ => None,
            },
            Global::RebuildTensor => match (node(0), node(1), node(2), node(3)) {
                (Some(Node::Storage(storage)), Some(Node::Int(offset)), Some(size), Some(stride)) => {
                    let sides = (self.integers(size), self.integers(stride));
                    if let (Some(size), Some(stride)) = sides {
                        Some(Node::Tensor(Part { storage: storage.clone(), offset: *offset, size, stride }))
                    } else {
                        None
                    }
                }
                _ => None,
            },
            Global::Plain => Some(Node::Other),
            Global::DefaultDict => Some(Node::Dict(Vec::new())),
            Global::Storage(_) => None,
        };
        self.push(made.ok_or(PickleError::Use { what: "a tensor or a dictionary" })?);
        Ok(())
    }

    /// `("storage", type, key, place, count)`, and a last None in old files.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Node::Tuple(parts) = &self.nodes[id] else { return Err(PickleError::Use { what: "a storage" }) };
        let nodes: Vec<&Node> = parts.iter().map(|&at| &self.nodes[at]).collect();
        let made = match nodes[..] {
            [
                Node::Text(word),
                Node::Global(Global::Storage(kind)),
                Node::Text(key),
                Node::Text(_),
                Node::Int(count),
            ]
            | [
                Node::Text(word),
                Node::Global(Global::Storage(kind)),
                Node::Text(key),
                Node::Text(_),
                Node::Int(count),
                Node::Other,
            ] if word == "storage" => Storage { key: key.clone(), kind: *kind, count: *count },
            _ => return Err(PickleError::Use { what: "a storage" }),
        };
        self.push(Node::Storage(made));
        Ok(())
    }

    fn pairs_in(&self, items: &[Ref]) -> Option<Vec<(Ref, Ref)>> {
        let pair = |&at: &Ref| match &self.nodes[at] {
            Node::List(pair) | Node::Tuple(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        items.iter().map(pair).collect()
    }

    fn integers(&self, node: &Node) -> Option<Vec<i64>> {
        let Node::Tuple(items) = node else { return None };
        let integer = |&at: &Ref| match self.nodes[at] {
            Node::Int(value) => Some(value),
            _ => None,
        };
        items.iter().map(integer).collect()
    }

    fn damaged(&self) -> PickleError {
        PickleError::Damaged { at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&[u8], PickleError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len()).ok_or_else(|| self.damaged())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned length of so many bytes.
    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let mut array = [0; 8];
        array[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(array)).map_err(|_| self.damaged())
    }

    fn small<const N: usize>(&mut self) -> Result<(), PickleError> {
        let value = self.length(N)?;
        self.push(Node::Int(value as i64));
        Ok(())
    }

    fn long(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        if len > 8 {
            let bytes = bytes.to_vec();
            self.push(Node::Long(bytes));
            return Ok(());
        }
        let fill = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut array = [fill; 8];
        array[..len].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(array)));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), PickleError> {
        let len = self.length(width)?;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.damaged())?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Ref, PickleError> {
        // What lies under a mark belongs to whoever comes after it is taken away.
        let lowest = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= lowest {
            return Err(self.damaged());
        }
        self.stack.pop().ok_or_else(|| self.damaged())
    }

    fn marked(&mut self) -> Result<Vec<Ref>, PickleError> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(|| self.damaged())?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Node, PickleError> {
        let error = self.damaged();
        let Some(&top) = self.stack.last() else { return Err(error) };
        Ok(&mut self.nodes[top])
    }

    fn extend(&mut self, items: Vec<Ref>) -> Result<(), PickleError> {
        match self.top()? {
            Node::List(list) => list.extend(items),
            _ => return Err(PickleError::Use { what: "APPEND" }),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<(Ref, Ref)>) -> Result<(), PickleError> {
        match self.top()? {
            Node::Dict(dict) => dict.extend(items),
            _ => return Err(PickleError::Use { what: "SETITEM" }),
        }
        Ok(())
    }

    fn remember(&mut self, name: u64) -> Result<(), PickleError> {
        let &top = self.stack.last().ok_or_else(|| self.damaged())?;
        self.memo.insert(name, top);
        Ok(())
    }

    fn recall(&mut self, name: u64) -> Result<(), PickleError> {
        let &node = self.memo.get(&name).ok_or_else(|| self.damaged())?;
        self.stack.push(node);
        Ok(())
    }
}

fn pairs(items: &[Ref]) -> Vec<(Ref, Ref)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}
