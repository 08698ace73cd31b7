//! As much of Python's pickle as the Python archive of CIFAR-10 needs: dictionaries, lists, tuples, texts, whole numbers, and arrays of bytes. A pickle is a program;
//! of its commands those that build values are followed, and none that would import or call anything: the one function that is known by name, NumPy's
//! reconstruction of arrays, is done here. (Opcodes: Python's `Lib/pickletools.py`.)

use std::collections::BTreeMap;

/// Values on the stack at a time; CIFAR-10 has 10,000 file names in one list.
const MAX_VALUES: usize = 1 << 20;
/// Sums of all copies that a pickle makes of what it remembers.
const MAX_COPIED: usize = 1 << 20;

/// Why a pickle is not followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(in crate::stages) enum PickleError {
    #[error("it ends in the middle")]
    Cut,
    #[error("it has the command 0x{code:02x} at byte {at}, which the archive's pickles have not")]
    Opcode { code: u8, at: usize },
    #[error("it asks for `{name}`, which is not called")]
    Global { name: String },
    #[error("it makes no sense at byte {at}")]
    Nonsense { at: usize },
    #[error("it makes too many values")]
    TooLarge,
    #[error("it has no {what}")]
    Missing { what: &'static str },
}

/// A value that a pickle builds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, a truth value, or anything else that is not looked at.
    Other,
    Whole(i64),
    /// A text, or bytes: Python 2 had one type for both.
    Text(Vec<u8>),
    List(Vec<Value>),
    Dict(BTreeMap<Vec<u8>, Value>),
    /// A name that stands for a function or a type.
    Global(String),
    /// An array of bytes under way or done: lengths along its dimensions and elements.
    Array(Vec<i64>, Vec<u8>),
    Mark,
}

impl Value {
    /// The entry of a dictionary.
    pub(super) fn entry(&self, what: &'static str) -> Result<&Value, PickleError> {
        match self {
            Value::Dict(entries) => entries.get(what.as_bytes()).ok_or(PickleError::Missing { what }),
            _ => Err(PickleError::Missing { what }),
        }
    }

    fn size(&self) -> usize {
        match self {
            Value::Text(bytes) | Value::Array(_, bytes) => 1 + bytes.len() / 16,
            Value::List(items) => 1 + items.iter().map(Value::size).sum::<usize>(),
            Value::Dict(entries) => 1 + entries.values().map(Value::size).sum::<usize>(),
            _ => 1,
        }
    }
}

/// Reads the value that a pickle builds.
pub(super) fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), memo: BTreeMap::new(), copied: 0 };
    while !machine.step()? {
        if machine.stack.len() > MAX_VALUES {
            return Err(PickleError::TooLarge);
        }
    }
    machine.pop()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Where on the stack, and what, a remembered value is: copied when it is asked for again.
    memo: BTreeMap<u32, Value>,
    copied: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(count)).ok_or(PickleError::Cut)?;
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, PickleError> {
        let mut word = [0; 8];
        word[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(word))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let end = self.bytes[self.at..].iter().position(|&byte| byte == b'\n').ok_or(PickleError::Cut)?;
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err(PickleError::Nonsense { at: self.at }),
            Some(value) => Ok(value),
        }
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark);
        let mark = mark.ok_or(PickleError::Nonsense { at: self.at })?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn text(&mut self, length: u64) -> Result<(), PickleError> {
        let text = self.take(usize::try_from(length).map_err(|_| PickleError::Cut)?)?.to_vec();
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<(), PickleError> {
        // Large values are never asked for again by the archive's pickles; what is remembered of them is nothing.
        let value = match self.stack.last() {
            Some(value @ (Value::Whole(_) | Value::Text(_) | Value::Global(_))) if value.size() < 64 => value.clone(),
            Some(_) => Value::Other,
            None => return Err(PickleError::Nonsense { at: self.at }),
        };
        self.memo.insert(key as u32, value);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), PickleError> {
        let value = self.memo.get(&(key as u32)).cloned().ok_or(PickleError::Nonsense { at: self.at })?;
        self.copied += value.size();
        if self.copied > MAX_COPIED {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(value);
        Ok(())
    }

    fn insert(&mut self, pairs: Vec<Value>) -> Result<(), PickleError> {
        let at = self.at;
        let Some(Value::Dict(entries)) = self.stack.last_mut() else { return Err(PickleError::Nonsense { at }) };
        let mut pairs = pairs.into_iter();
        while let Some(key) = pairs.next() {
            match (key, pairs.next()) {
                (Value::Text(key), Some(value)) => _ = entries.insert(key, value),
                _ => return Err(PickleError::Nonsense { at }),
            }
        }
        Ok(())
    }

    fn append(&mut self, more: Vec<Value>) -> Result<(), PickleError> {
        match self.stack.last_mut() {
            Some(Value::List(items)) => items.extend(more),
            _ => return Err(PickleError::Nonsense { at: self.at }),
        }
        Ok(())
    }

    /// One command; whether it was the last.
    fn step(&mut self) -> Result<bool, PickleError> {
        let at = self.at;
        let code = self.take(1)?[0];
        match code {
            0x80 => _ = self.take(1)?,
            0x95 => _ = self.take(8)?,
            b'.' => return Ok(true),
            b'(' => self.stack.push(Value::Mark),
            b'}' => self.stack.push(Value::Dict(BTreeMap::new())),
            b']' => self.stack.push(Value::List(Vec::new())),
            b')' => self.stack.push(Value::List(Vec::new())),
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b'K' => {
                let number = self.number::<1>()?;
                self.stack.push(Value::Whole(number as i64));
            }
            b'M' => {
                let number = self.number::<2>()?;
                self.stack.push(Value::Whole(number as i64));
            }
            b'J' => {
                let number = self.number::<4>()? as u32 as i32;
                self.stack.push(Value::Whole(number.into()));
            }
            b'U' | b'C' | 0x8c => {
                let length = self.number::<1>()?;
                self.text(length)?;
            }
            b'T' | b'X' | b'B' => {
                let length = self.number::<4>()?;
                self.text(length)?;
            }
            0x8e => {
                let length = self.number::<8>()?;
                self.text(length)?;
            }
            b'q' => {
                let key = self.number::<1>()?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number::<4>()?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let key = self.number::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number::<4>()?;
                self.recall(key)?;
            }
            b't' => {
                let items = self.marked()?;
                self.stack.push(Value::List(items));
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code - 0x84));
                let items = self.stack.split_off(start.ok_or(PickleError::Nonsense { at })?);
                self.stack.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![key, value])?;
            }
            b'u' => {
                let pairs = self.marked()?;
                self.insert(pairs)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(format!("{module}.{name}")));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    let name = format!("{}.{}", String::from_utf8_lossy(&module), String::from_utf8_lossy(&name));
                    self.stack.push(Value::Global(name));
                }
                _ => return Err(PickleError::Nonsense { at }),
            },
            b'R' => {
                let (_, function) = (self.pop()?, self.pop()?);
                let Value::Global(name) = function else { return Err(PickleError::Nonsense { at }) };
                self.stack.push(match name.as_str() {
                    "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => {
                        Value::Array(Vec::new(), Vec::new())
                    }
                    "numpy.dtype" => Value::Other,
                    _ => return Err(PickleError::Global { name }),
                });
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            code => return Err(PickleError::Opcode { code, at }),
        }
        Ok(false)
    }

    /// Fills an array with its state: (version, shape, type, whether columns come first, elements). The type is not looked at: the number of bytes tells.
    fn build(&mut self, state: Value) -> Result<(), PickleError> {
        let at = self.at;
        let wrong = PickleError::Nonsense { at };
        let Some(Value::Array(shape, bytes)) = self.stack.last_mut() else {
            // The state of a type, which is not looked at.
            return if matches!(self.stack.last(), Some(Value::Other)) { Ok(()) } else { Err(wrong) };
        };
        let Value::List(state) = state else { return Err(wrong) };
        let (Some(Value::List(lengths)), Some(Value::Text(data))) = (state.get(1), state.get(4)) else {
            return Err(wrong);
        };
        for length in lengths {
            match length {
                Value::Whole(length) => shape.push(*length),
                _ => return Err(wrong),
            }
        }
        bytes.clone_from(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_and_no_bytes_make_it_panic() {
        // pickle.dumps of an object whose __reduce__ is (os.system, ('true',)), protocol 2.
        let hostile = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.";
        assert_eq!(read(hostile), Err(PickleError::Global { name: "posix.system".into() }));
        for end in 0..hostile.len() {
            assert!(read(&hostile[..end]).is_err());
        }
        assert_eq!(read(b"\x80\x02i"), Err(PickleError::Opcode { code: b'i', at: 2 }));
        assert_eq!(read(b"e."), Err(PickleError::Nonsense { at: 1 }));
        assert_eq!(read(b"\x80\x02K\x07."), Ok(Value::Whole(7)));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_an_error_at_worst(bytes in proptest::collection::vec(proptest::sample::select(b"\x80\x02(}]K\x01q\x00h\x00tue.b\x85Rcnumpy\ndtype\n".to_vec()), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
