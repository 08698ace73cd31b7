//! The two files that `torch.save` writes: a zip archive of a pickle and of one member for each storage (PyTorch 1.6 and later), and the older
//! stream of pickles with the storages after them. Knows nothing of networks.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use tch::{Kind, Tensor};
use zip::ZipArchive;

use super::WeightsError;
use super::pickle::{self, Node, Part, Pickle, PickleError, Storage};

/// The number that the older stream begins with, 0x1950a86a20f9469cfc6c, as a pickle has it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// All tensors of a file together may take so many times its size: some share a storage, but no file of weights is made of that.
const MOST_SHARING: u64 = 4;

/// Entries of a saved dictionary under which people put the state dict.
const USUAL: [&str; 4] = ["state_dict", "model_state_dict", "model", "net"];

pub(super) fn from_archive(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let folder_of_pickle =
        |name: &str| name.strip_suffix("data.pkl").filter(|folder| folder.matches('/').count() == 1).map(str::to_owned);
    let Some(folder) = archive.file_names().flatten().find_map(|name| folder_of_pickle(&name)) else {
        return Err(WeightsError::Form);
    };
    let mut member = |name: &str| -> Result<Option<Vec<u8>>, WeightsError> {
        let mut file = match archive.by_name(&format!("{folder}{name}")) {
            Ok(file) => file,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // PyTorch stores and never compresses: a member cannot be larger than the file.
        let mut content = Vec::new();
        file.by_ref().take(bytes.len() as u64).read_to_end(&mut content).map_err(zip::result::ZipError::Io)?;
        Ok(Some(content))
    };
    if member("byteorder")?.is_some_and(|order| order == b"big") {
        return Err(WeightsError::BigEndian);
    }
    let pickle = pickle::read(&member("data.pkl")?.unwrap_or_default())?.0;
    let parts = state_dict(&pickle)?;
    let mut storages = BTreeMap::new();
    for storage in parts.values().map(|part| &part.storage) {
        if !storages.contains_key(&storage.key) {
            let Some(content) = member(&format!("data/{}", storage.key))? else {
                return Err(missing(&storage.key));
            };
            storages.insert(storage.key.clone(), content);
        }
    }
    let storages: BTreeMap<&str, &[u8]> =
        storages.iter().map(|(key, content)| (key.as_str(), content.as_slice())).collect();
    tensors(parts, &storages, bytes.len())
}

pub(super) fn from_stream(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let mut rest = bytes;
    let mut next = || -> Result<(Pickle, &[u8]), PickleError> {
        let (pickle, len) = pickle::read(rest)?;
        rest = &rest[len..];
        Ok((pickle, rest))
    };
    if !matches!(next()?.0.root(), Node::Long(number) if number == &MAGIC) {
        return Err(WeightsError::Form);
    }
    if !matches!(next()?.0.root(), Node::Int(VERSION)) {
        return Err(WeightsError::Form);
    }
    let system = next()?.0;
    if matches!(system.entry(system.root(), "little_endian"), Some(Node::Bool(false))) {
        return Err(WeightsError::BigEndian);
    }
    let content = next()?.0;
    let (keys, mut rest) = next()?;
    let parts = state_dict(&content)?;
    let kinds: BTreeMap<&str, Kind> =
        all_storages(&content).map(|storage| (storage.key.as_str(), storage.kind)).collect();
    let mut storages = BTreeMap::new();
    let Node::List(listed) = keys.root() else {
        return Err(PickleError::Use { what: "the list of storages" }.into());
    };
    for &key in listed {
        let Node::Text(key) = keys.node(key) else {
            return Err(PickleError::Use { what: "the list of storages" }.into());
        };
        let cut = || WeightsError::Storage { key: key.clone(), problem: "is cut".to_owned() };
        let Some(kind) = kinds.get(key.as_str()) else { return Err(missing(key)) };
        let (count, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*count)).map_err(|_| cut())?;
        let len = count.checked_mul(kind.elt_size_in_bytes()).filter(|&len| len <= after.len()).ok_or_else(cut)?;
        let (content, after) = after.split_at(len);
        storages.insert(key.as_str(), content);
        rest = after;
    }
    tensors(parts, &storages, bytes.len())
}

fn missing(key: &str) -> WeightsError {
    WeightsError::Storage { key: key.to_owned(), problem: "is missing".to_owned() }
}

fn all_storages(pickle: &Pickle) -> impl Iterator<Item = &Storage> {
    pickle.nodes().filter_map(|node| match node {
        Node::Storage(storage) => Some(storage),
        _ => None,
    })
}

/// The parts of storages that the tensors are, by name.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<String, Part>, WeightsError> {
    let content = |text: &str| WeightsError::Content(text.to_owned());
    let root = pickle.root();
    let Node::Dict(_) = root else { return Err(content("it holds no dictionary")) };
    let has_tensors = |node: &&Node| match node {
        Node::Dict(entries) => entries.iter().any(|(_, value)| matches!(pickle.node(*value), Node::Tensor(_))),
        _ => false,
    };
    let inside = USUAL.iter().filter_map(|name| pickle.entry(root, name));
    let chosen = std::iter::once(root).chain(inside).find(has_tensors);
    let Some(Node::Dict(entries)) = chosen else { return Err(content("it has no dictionary of tensors by name")) };
    let mut parts = BTreeMap::new();
    for (key, value) in entries {
        let Node::Text(name) = pickle.node(*key) else { return Err(content("a name in it is no text")) };
        let Node::Tensor(part) = pickle.node(*value) else {
            return Err(WeightsError::Content(format!("its entry `{name}` is no tensor")));
        };
        parts.insert(name.clone(), part.clone());
    }
    const PARALLEL: &str = "module.";
    if parts.keys().all(|name| name.starts_with(PARALLEL)) {
        parts = parts.into_iter().map(|(name, part)| (name[PARALLEL.len()..].to_owned(), part)).collect();
    }
    Ok(parts)
}

fn tensors(
    parts: BTreeMap<String, Part>,
    contents: &BTreeMap<&str, &[u8]>,
    file_len: usize,
) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let mut room = MOST_SHARING * file_len as u64;
    let mut storages: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    for (name, part) in parts {
        let wrong = |problem: &str| WeightsError::Tensor { name: name.clone(), problem: problem.to_owned() };
        let Storage { key, kind, count } = &part.storage;
        let elements = extent(&part).ok_or_else(|| wrong("reaches beyond its storage"))?;
        room = elements
            .checked_mul(kind.elt_size_in_bytes() as u64)
            .and_then(|size| room.checked_sub(size))
            .ok_or_else(|| wrong("shares its storage with too many others"))?;
        if !storages.contains_key(key) {
            let content = contents.get(key.as_str()).ok_or_else(|| missing(key))?;
            let expected = usize::try_from(*count).ok().and_then(|count| count.checked_mul(kind.elt_size_in_bytes()));
            if expected != Some(content.len()) {
                let problem = format!("has {} bytes, not those of {count} numbers", content.len());
                return Err(WeightsError::Storage { key: key.clone(), problem });
            }
            storages.insert(key.clone(), Tensor::f_from_data_size(content, &[*count], *kind)?);
        }
        let storage = &storages[key];
        if storage.kind() != *kind || storage.size() != [*count] {
            return Err(wrong("has another type than its storage"));
        }
        let tensor = storage.f_as_strided(&part.size[..], &part.stride[..], part.offset)?.f_contiguous()?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The number of elements of a tensor, if all of them lie within its storage and no more than are in it.
fn extent(part: &Part) -> Option<u64> {
    let Part { storage, offset, size, stride } = part;
    if size.len() != stride.len() || *offset < 0 || size.iter().chain(stride).any(|&number| number < 0) {
        return None;
    }
    let elements = size.iter().try_fold(1i64, |all, &side| all.checked_mul(side))?;
    if elements > 0 {
        let last = size
            .iter()
            .zip(stride)
            .try_fold(*offset, |last, (&side, &stride)| last.checked_add((side - 1).checked_mul(stride)?))?;
        (last < storage.count && elements <= storage.count).then_some(())?;
    } else {
        (*offset <= storage.count).then_some(())?;
    }
    u64::try_from(elements).ok()
}
