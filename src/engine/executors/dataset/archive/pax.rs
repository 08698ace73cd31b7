//! PAX records (`length key=value\n`) as far as they say where a file's bytes are and what it is called.

/// How a member is sparse, as its PAX records have it.
pub(super) enum SparseForm {
    None,
    /// The records list its pieces (0.0 and 0.1).
    Listed {
        whole: u64,
        pieces: Vec<[u64; 2]>,
    },
    /// A map before its content lists them (1.0).
    Before {
        whole: u64,
    },
    Unknown,
}

/// What records say; what they leave open is for the head itself to say.
#[derive(Debug, Default, Clone)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: Sparse,
}

/// The records of GNU tar on a sparse file.
#[derive(Debug, Default, Clone)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    version: Option<(u64, u64)>,
    whole: Option<u64>,
    pieces: Option<Vec<[u64; 2]>>,
    /// The place of a piece whose length is still to come (form 0.0).
    open: Option<u64>,
}

impl Pax {
    /// Adds records; a later one counts, and an empty one takes an earlier one back.
    pub(super) fn add(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or_else(|| "its PAX records make no sense".to_owned())?;
            self.set(key, value)
                .ok_or_else(|| format!("its PAX record `{}` makes no sense", String::from_utf8_lossy(key)))?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.linkpath = text(),
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(number(value)?),
            b"GNU.sparse.name" => sparse.name = text(),
            b"GNU.sparse.major" => sparse.version = Some((number(value)?, sparse.version.unwrap_or_default().1)),
            b"GNU.sparse.minor" => sparse.version = Some((sparse.version.unwrap_or_default().0, number(value)?)),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.whole = Some(number(value)?),
            b"GNU.sparse.numblocks" => _ = sparse.pieces.get_or_insert_default(),
            b"GNU.sparse.offset" => sparse.open = Some(number(value)?),
            b"GNU.sparse.numbytes" => {
                let piece = [sparse.open.take()?, number(value)?];
                sparse.pieces.get_or_insert_default().push(piece);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').filter(|text| !text.is_empty()).map(number);
                let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
                let pairs = numbers.chunks(2).map(|pair| <[u64; 2]>::try_from(pair).ok());
                sparse.pieces = Some(pairs.collect::<Option<_>>()?);
            }
            _ => {}
        }
        Some(())
    }

    /// These records, and those of the whole archive where these say nothing.
    pub(super) fn over(self, global: &Pax) -> Pax {
        Pax {
            path: self.path.or_else(|| global.path.clone()),
            linkpath: self.linkpath.or_else(|| global.linkpath.clone()),
            size: self.size.or(global.size),
            sparse: self.sparse,
        }
    }
}

impl Sparse {
    /// How the member is sparse.
    pub(super) fn form(&self, name: &str) -> Result<SparseForm, String> {
        let whole = || self.whole.ok_or_else(|| format!("the sparse file `{name}` has no size"));
        match (self.version, self.pieces.clone()) {
            (None, None) => Ok(SparseForm::None),
            (None | Some((0, _)), Some(pieces)) => Ok(SparseForm::Listed { whole: whole()?, pieces }),
            (Some((1, 0)), None) => Ok(SparseForm::Before { whole: whole()? }),
            _ => Ok(SparseForm::Unknown),
        }
    }
}

/// The key and the value of the first record, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&records[..space])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let content = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|&byte| byte == b'=')?;
    Some((&content[..equals], &content[equals + 1..], rest))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
