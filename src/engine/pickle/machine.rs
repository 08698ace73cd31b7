//! The machine itself: a stack, a memo, and a budget. One opcode changes one of them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Family, MAX_VALUES, Node, Pickle, PickleError, Ref, Values};

/// Reads the pickle that some bytes begin with.
///
/// # Errors
/// Any [`PickleError`].
pub fn read<F: Family>(bytes: &[u8]) -> Result<Pickle<'_, F>, PickleError> {
    let mut machine = Machine::<F> {
        bytes,
        at: 0,
        values: Values(Vec::new()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        budget: MAX_VALUES,
    };
    loop {
        let (at, opcode) = (machine.at, machine.byte()?);
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { values: machine.values, root, length: machine.at });
        }
        machine.step(opcode, at)?;
    }
}

struct Machine<'a, F: Family> {
    bytes: &'a [u8],
    at: usize,
    values: Values<'a, F>,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
    budget: usize,
}

impl<'a, F: Family> Machine<'a, F> {
    fn step(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            // Protocol, frame.
            0x80 => _ = self.take(1)?,
            0x95 => _ = self.take(8)?,
            b'N' => self.push(Node::Other)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'K' => self.small(1)?,
            b'M' => self.small(2)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Other)?;
            }
            // Texts, those of Python 2 among them.
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.raw(1)?,
            b'B' => self.raw(4)?,
            0x8e => self.raw(8)?,
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' => _ = self.pop()?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84));
                let items = self.stack.split_off(start.ok_or_else(|| self.damaged())?);
                self.push(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.marked()?;
                self.push(Node::Tuple(items))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.marked()?;
                self.push(Node::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.extend(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let entries = self.marked_pairs()?;
                self.push(Node::Dict(entries))?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let entries = self.marked_pairs()?;
                self.set(entries)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.values.text(module), self.values.text(name)) else {
                    return Err(self.damaged());
                };
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => {
                let identity = self.pop()?;
                let found = F::outside(&self.values, identity);
                self.push(found.ok_or(PickleError::Use { what: "a storage" })?)?;
            }
            b'q' => {
                let name = self.length(1)?;
                self.remember(name)?;
            }
            b'r' => {
                let name = self.length(4)?;
                self.remember(name)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let name = self.length(1)?;
                self.recall(name)?;
            }
            b'j' => {
                let name = self.length(4)?;
                self.recall(name)?;
            }
            opcode => return Err(PickleError::Opcode { opcode, at, family: F::NAME }),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        match F::find(module, name) {
            Some(global) => self.push(Node::Global(global)),
            None => Err(PickleError::Global { name: format!("{module}.{name}"), family: F::NAME }),
        }
    }

    /// Calls a name on a tuple, for the few names there are.
    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Node::Global(global), Node::Tuple(arguments)) = (self.values.node(callee), self.values.node(arguments))
        else {
            return Err(PickleError::Use { what: "a call" });
        };
        let made = F::call(&self.values, *global, arguments);
        self.push(made.ok_or(PickleError::Use { what: "a tensor or a dictionary" })?)
    }

    fn build(&mut self) -> Result<(), PickleError> {
        let (state, target) = (self.pop()?, self.pop()?);
        let built = F::build(&self.values, self.values.node(target), state);
        if let Some(built) = built.ok_or(PickleError::Use { what: "BUILD" })? {
            self.spend(built.weight())?;
            self.values.0[target] = built;
        }
        self.stack.push(target);
        Ok(())
    }

    fn damaged(&self) -> PickleError {
        PickleError::Damaged { at: self.at }
    }

    fn spend(&mut self, values: usize) -> Result<(), PickleError> {
        self.budget = self.budget.checked_sub(values).ok_or(PickleError::TooMany)?;
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
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

    /// An unsigned number of so many bytes.
    fn length(&mut self, width: usize) -> Result<u64, PickleError> {
        let mut array = [0; 8];
        array[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(array))
    }

    /// Bytes after their number, which has so many bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], PickleError> {
        let len = usize::try_from(self.length(width)?).map_err(|_| self.damaged())?;
        self.take(len)
    }

    fn small(&mut self, width: usize) -> Result<(), PickleError> {
        let value = self.length(width)?;
        self.push(Node::Int(value as i64))
    }

    fn long(&mut self) -> Result<(), PickleError> {
        let bytes = self.counted(1)?;
        if bytes.len() > 8 {
            return self.push(Node::Long(bytes));
        }
        let fill = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut array = [fill; 8];
        array[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(array)))
    }

    fn text(&mut self, width: usize) -> Result<(), PickleError> {
        let text = self.counted(width)?;
        self.push(Node::Text(text))
    }

    fn raw(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.counted(width)?;
        self.push(Node::Bytes(bytes))
    }

    fn line(&mut self) -> Result<Cow<'a, str>, PickleError> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.damaged())?;
        self.at += len + 1;
        Ok(String::from_utf8_lossy(&rest[..len]))
    }

    fn push(&mut self, node: Node<'a, F>) -> Result<(), PickleError> {
        self.spend(node.weight())?;
        self.stack.push(self.values.0.len());
        self.values.0.push(node);
        Ok(())
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

    fn marked_pairs(&mut self) -> Result<Vec<(Ref, Ref)>, PickleError> {
        let items = self.marked()?;
        if items.len() % 2 != 0 {
            return Err(self.damaged());
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn top(&mut self) -> Result<&mut Node<'a, F>, PickleError> {
        let error = self.damaged();
        let &top = self.stack.last().ok_or(error)?;
        Ok(&mut self.values.0[top])
    }

    fn extend(&mut self, items: Vec<Ref>) -> Result<(), PickleError> {
        self.spend(items.len())?;
        match self.top()? {
            Node::List(list) => list.extend(items),
            _ => return Err(PickleError::Use { what: "APPEND" }),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<(Ref, Ref)>) -> Result<(), PickleError> {
        self.spend(2 * items.len())?;
        match self.top()? {
            Node::Dict(dict) => dict.extend(items),
            _ => return Err(PickleError::Use { what: "SETITEM" }),
        }
        Ok(())
    }

    fn remember(&mut self, name: u64) -> Result<(), PickleError> {
        self.spend(1)?;
        let &top = self.stack.last().ok_or_else(|| self.damaged())?;
        self.memo.insert(name, top);
        Ok(())
    }

    fn recall(&mut self, name: u64) -> Result<(), PickleError> {
        self.spend(1)?;
        let &value = self.memo.get(&name).ok_or_else(|| self.damaged())?;
        self.stack.push(value);
        Ok(())
    }
}
