//! The two formats of `torch.save`: the zip archive and the older stream. Knows nothing about networks.
//!
//! The archive (PyTorch 1.6 and later) holds a pickle and one member per storage. The stream holds pickles, followed by
//! the storages.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use atflow::pickle::{self, Node, PickleError};
use tch::{Kind, Tensor};
use zip::ZipArchive;

use super::state_dict::{Object, Pickle, StateDict, Storage, StorageView};
use super::{ListedTensor, WeightsError};

/// The magic number of the older stream, 0x1950a86a20f9469cfc6c, as encoded in a pickle.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// Maximum total size of a file's tensors, as a multiple of the file size. Tensors may share storages, but only to an
/// extent.
const MOST_SHARING: u64 = 4;

/// Maximum nesting of dictionaries and lists, and maximum bytes of names per byte of file; weights files need little of
/// either.
const MOST_NESTED: usize = 16;
const MOST_NAMES: usize = 8;

/// A tensor and the name of its storage.
struct NamedView {
    key: String,
    view: StorageView,
}

/// A `torch.save` file with its pickle read.
pub(super) struct SavedFile<'a> {
    views: Vec<NamedView>,
    storages: Storages<'a>,
    length: usize,
}

/// Location of the tensors' bytes.
enum Storages<'a> {
    /// One member per storage, in a folder of the archive.
    Archive {
        archive: ZipArchive<Cursor<&'a [u8]>>,
        folder: String,
    },
    Stream(BTreeMap<String, &'a [u8]>),
}

pub(super) fn from_archive(bytes: &[u8]) -> Result<(Vec<ListedTensor>, SavedFile<'_>), WeightsError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let folder_of_pickle =
        |name: &str| name.strip_suffix("data.pkl").filter(|folder| folder.matches('/').count() == 1).map(str::to_owned);
    let Some(folder) = archive.file_names().flatten().find_map(|name| folder_of_pickle(&name)) else {
        return Err(WeightsError::Form);
    };
    if member(&mut archive, &format!("{folder}byteorder"), bytes.len())?.is_some_and(|order| order == b"big") {
        return Err(WeightsError::BigEndian);
    }
    let pickle = member(&mut archive, &format!("{folder}data.pkl"), bytes.len())?.unwrap_or_default();
    let (listed, views) = list(&pickle::read(&pickle)?, bytes.len())?;
    Ok((listed, SavedFile { views, storages: Storages::Archive { archive, folder }, length: bytes.len() }))
}

/// Reads a member of an archive. PyTorch never compresses, so a member cannot be larger than the file.
fn member(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, most: usize) -> Result<Option<Vec<u8>>, WeightsError> {
    let mut file = match archive.by_name(name) {
        Ok(file) => file,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    file.by_ref().take(most as u64).read_to_end(&mut content).map_err(zip::result::ZipError::Io)?;
    Ok(Some(content))
}

pub(super) fn from_stream<'a>(bytes: &'a [u8]) -> Result<(Vec<ListedTensor>, SavedFile<'a>), WeightsError> {
    let mut rest = bytes;
    let mut next = || -> Result<(Pickle<'a>, &'a [u8]), PickleError> {
        let pickle = pickle::read(rest)?;
        rest = &rest[pickle.length..];
        Ok((pickle, rest))
    };
    if !matches!(next()?.0.root(), Node::Long(number) if **number == MAGIC) {
        return Err(WeightsError::Form);
    }
    if !matches!(next()?.0.root(), Node::Int(VERSION)) {
        return Err(WeightsError::Form);
    }
    let system = next()?.0;
    let order = system.values.entry(system.root, "little_endian");
    if order.is_some_and(|order| matches!(system.values.node(order), Node::Bool(false))) {
        return Err(WeightsError::BigEndian);
    }
    let content = next()?.0;
    let (keys, mut rest) = next()?;
    let (known, views) = list(&content, bytes.len())?;
    let kinds: BTreeMap<Cow<'_, str>, Kind> =
        all_storages(&content).filter_map(|storage| Some((content.values.text(storage.key)?, storage.kind))).collect();
    let mut storages = BTreeMap::new();
    let Node::List(listed) = keys.root() else {
        return Err(PickleError::Use { what: "the list of storages" }.into());
    };
    for &key in listed {
        let Some(key) = keys.values.text(key) else {
            return Err(PickleError::Use { what: "the list of storages" }.into());
        };
        let cut = || WeightsError::Storage { key: key.clone().into_owned(), problem: "is cut".to_owned() };
        let Some(kind) = kinds.get(&key) else { return Err(missing(&key)) };
        let (count, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*count)).map_err(|_| cut())?;
        let len = count.checked_mul(kind.elt_size_in_bytes()).filter(|&len| len <= after.len()).ok_or_else(cut)?;
        let (content, after) = after.split_at(len);
        storages.insert(key.into_owned(), content);
        rest = after;
    }
    Ok((known, SavedFile { views, storages: Storages::Stream(storages), length: bytes.len() }))
}

fn missing(key: &str) -> WeightsError {
    WeightsError::Storage { key: key.to_owned(), problem: "is missing".to_owned() }
}

fn all_storages<'p>(pickle: &'p Pickle<'_>) -> impl Iterator<Item = &'p Storage> {
    pickle.values.nodes().filter_map(|node| match node {
        Node::Object(Object::Storage(storage)) => Some(storage),
        _ => None,
    })
}

/// Lists every tensor of a pickle under its name, with its view of a storage.
///
/// Follows a dictionary that occurs at several places only once.
fn list(pickle: &Pickle<'_>, length: usize) -> Result<(Vec<ListedTensor>, Vec<NamedView>), WeightsError> {
    let values = &pickle.values;
    let content = |text: &str| WeightsError::Content(text.to_owned());
    if !matches!(pickle.root(), Node::Dict(_)) {
        return Err(content("it holds no dictionary"));
    }
    let mut found: BTreeMap<String, (usize, &StorageView)> = BTreeMap::new();
    let mut room = length.saturating_mul(MOST_NAMES);
    let mut seen = BTreeSet::from([pickle.root]);
    let mut open = vec![(pickle.root, String::new(), 0)];
    while let Some((number, path, depth)) = open.pop() {
        let items: Vec<(String, usize)> = match values.node(number) {
            Node::Dict(entries) => entries
                .iter()
                .filter(|(_, value)| may_hold(values.node(*value)))
                .filter_map(|(key, value)| match values.node(*key) {
                    Node::Int(name) => Some((name.to_string(), *value)),
                    _ => Some((values.text(*key)?.into_owned(), *value)),
                })
                .collect(),
            Node::List(items) | Node::Tuple(items) => {
                items.iter().enumerate().map(|(at, value)| (at.to_string(), *value)).collect()
            }
            _ => continue,
        };
        for (name, value) in items {
            let node = values.node(value);
            if !may_hold(node) {
                continue;
            }
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            room = room.checked_sub(path.len()).ok_or_else(|| content("its names are longer than all else in it"))?;
            match node {
                Node::Object(Object::Tensor(view)) => _ = found.insert(path, (number, view)),
                _ if depth < MOST_NESTED && seen.insert(value) => open.push((value, path, depth + 1)),
                _ => {}
            }
        }
    }
    if found.is_empty() {
        return Err(content("it has no dictionary of tensors by name"));
    }
    let mut listed = Vec::new();
    let mut views = Vec::new();
    for (name, (dictionary, view)) in found {
        let key = values.text(view.storage.key).unwrap_or_default().into_owned();
        room = room.checked_sub(key.len()).ok_or_else(|| content("its names are longer than all else in it"))?;
        listed.push(ListedTensor { name, shape: view.size.clone(), kind: Some(view.storage.kind), dictionary });
        views.push(NamedView { key, view: view.clone() });
    }
    Ok((listed, views))
}

/// Returns whether a value is a tensor or may contain some.
fn may_hold(node: &Node<'_, StateDict>) -> bool {
    matches!(node, Node::Object(Object::Tensor(_)) | Node::Dict(_) | Node::List(_) | Node::Tuple(_))
}

impl SavedFile<'_> {
    /// Reads some tensors by index.
    pub(super) fn load(&self, numbers: &[usize], listed: &[ListedTensor]) -> Result<Vec<Tensor>, WeightsError> {
        let mut contents: BTreeMap<&str, Cow<'_, [u8]>> = BTreeMap::new();
        for key in numbers.iter().map(|&number| &self.views[number].key) {
            if contents.contains_key(key.as_str()) {
                continue;
            }
            let content = match &self.storages {
                Storages::Stream(storages) => storages.get(key).map(|content| Cow::Borrowed(*content)),
                // A clone shares the member list but has its own position.
                Storages::Archive { archive, folder } => {
                    member(&mut archive.clone(), &format!("{folder}data/{key}"), self.length)?.map(Cow::Owned)
                }
            };
            contents.insert(key, content.ok_or_else(|| missing(key))?);
        }
        let views = numbers.iter().map(|&number| (listed[number].name.as_str(), &self.views[number]));
        tensors(views, &contents, self.length)
    }
}

fn tensors<'a>(
    views: impl Iterator<Item = (&'a str, &'a NamedView)>,
    contents: &BTreeMap<&str, Cow<'_, [u8]>>,
    file_len: usize,
) -> Result<Vec<Tensor>, WeightsError> {
    let mut room = MOST_SHARING * file_len as u64;
    let mut storages: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut tensors = Vec::new();
    for (name, NamedView { key, view }) in views {
        let wrong = |problem: &str| WeightsError::Tensor { name: name.to_owned(), problem: problem.to_owned() };
        let Storage { kind, count, .. } = &view.storage;
        let elements = extent(view).ok_or_else(|| wrong("reaches beyond its storage"))?;
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
        tensors.push(storage.f_as_strided(&view.size[..], &view.stride[..], view.offset)?.f_contiguous()?);
    }
    Ok(tensors)
}

/// Returns the number of elements of a tensor, if all lie within its storage and are no more than it holds.
fn extent(view: &StorageView) -> Option<u64> {
    let StorageView { storage, offset, size, stride } = view;
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
