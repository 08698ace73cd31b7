//! Members of a tar archive, as GNU tar extracts them: old, POSIX and GNU headers, long names, PAX records, links, and
//! sparse files in all four forms of GNU tar. What cannot be a file here is left out by name.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader, Header};

use super::pax::{Pax, SparseForm};
use super::tree::{Content, Piece, Place, Tree};
use super::{ArchiveError, MAX_ENTRIES, Shared, plain};

/// The unit of a tar archive: heads have one, contents are filled up to whole ones.
const BLOCK: u64 = 512;
/// The longest name, and the most PAX records, that a member may have.
const MAX_HEAD: u64 = 16 << 20;

type Block = [u8; BLOCK as usize];

/// Whether a file begins as tar archives do, those without a magic number included: with a block whose sum is right, or
/// with blocks of zeros.
pub(super) fn is_tar(file: &Shared) -> bool {
    block(file, 0).is_ok_and(|block| block.is_some_and(|block| is_zero(&block) || sum_is_right(&block)))
}

/// Puts the members of an archive into a tree.
pub(super) fn list(file: &Shared, tree: &mut Tree) -> Result<(), ArchiveError> {
    let (mut at, mut members) = (0, 0);
    let mut global = Pax::default();
    let mut own = Names::default();
    while let Some(head) = block(file, at)? {
        if is_zero(&head) {
            break;
        }
        if !sum_is_right(&head) {
            return Err(damaged(format!("the block at byte {at} is no head of a member")));
        }
        members += 1;
        if members > MAX_ENTRIES {
            return Err(ArchiveError::Entries);
        }
        at = member(file, at + BLOCK, &head, &mut global, &mut own, tree)?;
    }
    behind_the_end(file, at, tree)
}

/// What the heads before a member said of it.
#[derive(Default)]
struct Names {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Reads one member whose head ends at `at`; gives where the next one begins.
fn member(
    file: &Shared,
    at: u64,
    head: &Block,
    global: &mut Pax,
    own: &mut Names,
    tree: &mut Tree,
) -> Result<u64, ArchiveError> {
    let header = Header::from_byte_slice(head);
    let kind = header.entry_type().as_byte();
    let declared = header.entry_size().map_err(|error| damaged(error.to_string()))?;
    if matches!(kind, b'x' | b'X' | b'g' | b'L' | b'K') {
        let content = content_of_head(file, at, declared)?;
        match kind {
            b'g' => global.add(&content).map_err(damaged)?,
            b'L' => own.long_name = Some(until_zero(content)),
            b'K' => own.long_link = Some(until_zero(content)),
            _ => own.pax.add(&content).map_err(damaged)?,
        }
        return next(file, at, declared, || format!("the head at byte {at}"));
    }
    let member = Member::new(header, declared, std::mem::take(own), global);
    let Some(path) = plain(&member.shown) else {
        member.leave_out_beyond(tree)?;
        return next(file, at, member.size, || "a member".to_owned());
    };
    let at = member.put(file, at, &path, tree)?;
    next(file, at, member.size, || format!("`{}`", member.shown))
}

/// Reads the content of a head that says something of the next member.
fn content_of_head(file: &Shared, at: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
    if size > MAX_HEAD {
        return Err(damaged(format!("a head at byte {at} has {size} bytes")));
    }
    let mut content = vec![0; size as usize];
    read(file, &mut content, at)?;
    Ok(content)
}

/// A member with everything that its heads say of it.
struct Member<'a> {
    header: &'a Header,
    kind: u8,
    pax: Pax,
    long_link: Option<Vec<u8>>,
    /// Its name as messages show it.
    shown: String,
    is_folder: bool,
    /// The bytes of its content in the archive.
    size: u64,
}

impl<'a> Member<'a> {
    fn new(header: &'a Header, declared: u64, own: Names, global: &Pax) -> Self {
        let Names { pax, long_name, long_link } = own;
        let kind = header.entry_type().as_byte();
        let pax = pax.over(global);
        let raw = pax
            .sparse
            .name
            .clone()
            .or_else(|| pax.path.clone())
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let is_folder = matches!(kind, b'5' | b'D') || (raw.ends_with(b"/") && !matches!(kind, b'1'..=b'6'));
        // A hard link has no content, whatever its head says.
        let size = if kind == b'1' { 0 } else { pax.size.unwrap_or(declared) };
        Member { header, kind, pax, long_link, shown: text(&raw), is_folder, size }
    }

    /// The name that a link leads to.
    fn link(&self) -> String {
        let header = || self.header.link_name_bytes().map(|name| name.into_owned());
        text(&self.pax.linkpath.clone().or_else(|| self.long_link.clone()).or_else(header).unwrap_or_default())
    }

    /// Leaves out a member whose name leads out of the archive; a file by such a name is an error.
    fn leave_out_beyond(&self, tree: &mut Tree) -> Result<(), ArchiveError> {
        match self.kind {
            _ if self.is_folder => {}
            b'1'..=b'4' | b'6' | b'M' | b'N' | b'V' => {
                tree.leave_out(&self.shown, "has a name that leads out of the archive")
            }
            _ => return Err(ArchiveError::Escape { name: self.shown.clone() }),
        }
        Ok(())
    }

    /// Puts the member into the tree; its heads end at `at`. Gives where its content begins.
    fn put(&self, file: &Shared, at: u64, path: &str, tree: &mut Tree) -> Result<u64, ArchiveError> {
        match self.kind {
            _ if path.is_empty() => {}
            _ if self.is_folder => tree.folder(path),
            b'1' => match plain(&self.link()) {
                Some(target) => tree.hard_link(path, &target),
                None => tree.leave_out(path, "is a hard link that leads out of the archive"),
            },
            b'2' => tree.link(path, self.link()),
            b'3' | b'4' => tree.leave_out(path, "is a device"),
            b'6' => tree.leave_out(path, "is a named pipe (FIFO)"),
            b'M' => tree.leave_out(path, "is the rest of a file that begins in another archive"),
            b'N' => tree.leave_out(path, "is a list of names in a form that GNU tar gave up"),
            // The name of the archive.
            b'V' => {}
            b'S' => match self.header.as_gnu() {
                Some(gnu) => {
                    let (pieces, whole, behind) = old_sparse(file, gnu, at)?;
                    tree.file(path, sparse(&self.shown, whole, self.size, behind, &pieces)?);
                    return Ok(behind);
                }
                None => tree.leave_out(path, "is a sparse file in a form that only `star` writes"),
            },
            _ => self.put_file(file, at, path, tree)?,
        }
        Ok(at)
    }

    /// Puts an ordinary file into the tree, or one that PAX records say is sparse.
    fn put_file(&self, file: &Shared, at: u64, path: &str, tree: &mut Tree) -> Result<(), ArchiveError> {
        let (shown, size) = (&self.shown, self.size);
        match self.pax.sparse.form(shown).map_err(damaged)? {
            SparseForm::None => tree.file(path, Content { size, place: Place::At(at) }),
            SparseForm::Listed { whole, pieces } => tree.file(path, sparse(shown, whole, size, at, &pieces)?),
            SparseForm::Before { whole } => {
                let (pieces, length) = map_before(file, at, size, shown)?;
                tree.file(path, sparse(shown, whole, size - length, at + length, &pieces)?);
            }
            SparseForm::Unknown => tree.leave_out(path, "is a sparse file in a form that is not known"),
        }
        Ok(())
    }
}

/// Where the member after a content begins.
fn next(file: &Shared, at: u64, size: u64, what: impl Fn() -> String) -> Result<u64, ArchiveError> {
    match at.checked_add(size) {
        Some(end) if end <= file.length => Ok(end.next_multiple_of(BLOCK)),
        _ => Err(damaged(format!("{} goes on behind its end", what()))),
    }
}

/// The pieces of a sparse file in the old form: four in its head, and more in blocks behind it. Gives its whole size,
/// and where its content begins.
fn old_sparse(file: &Shared, gnu: &GnuHeader, mut at: u64) -> Result<(Vec<[u64; 2]>, u64, u64), ArchiveError> {
    let wrong = |error: std::io::Error| damaged(error.to_string());
    let mut pieces = Vec::new();
    let mut add = |listed: &[GnuSparseHeader]| -> Result<(), ArchiveError> {
        for piece in listed.iter().filter(|piece| !piece.is_empty()) {
            pieces.push([piece.offset().map_err(wrong)?, piece.length().map_err(wrong)?]);
        }
        Ok(())
    };
    add(&gnu.sparse)?;
    let mut goes_on = gnu.is_extended();
    while goes_on {
        let mut more = GnuExtSparseHeader::new();
        read(file, more.as_mut_bytes(), at)?;
        at += BLOCK;
        add(&more.sparse)?;
        goes_on = more.is_extended();
    }
    Ok((pieces, gnu.real_size().map_err(wrong)?, at))
}

/// The pieces of a sparse file of form 1.0: decimal numbers, a line each, first how many pieces there are. Gives how
/// many bytes they take, in whole blocks.
fn map_before(file: &Shared, at: u64, size: u64, name: &str) -> Result<(Vec<[u64; 2]>, u64), ArchiveError> {
    let wrong = || damaged(format!("the map of the sparse file `{name}` makes no sense"));
    let mut numbers: Vec<u64> = Vec::new();
    let (mut number, mut wanted, mut taken) = (None::<u64>, 1u64, 0);
    while (numbers.len() as u64) < wanted {
        if taken + BLOCK > size {
            return Err(wrong());
        }
        let block = block(file, at + taken)?.ok_or_else(wrong)?;
        taken += BLOCK;
        for &byte in &block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let value = number.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit));
                    number = Some(value.ok_or_else(wrong)?);
                }
                b'\n' => {
                    let value = number.take().ok_or_else(wrong)?;
                    if numbers.is_empty() {
                        wanted = value.checked_mul(2).and_then(|count| count.checked_add(1)).ok_or_else(wrong)?;
                    }
                    numbers.push(value);
                    if numbers.len() as u64 == wanted {
                        break;
                    }
                }
                _ => return Err(wrong()),
            }
        }
    }
    Ok((numbers[1..].chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect(), taken))
}

/// A sparse file whose pieces (where they stand in the file, and their lengths) lie one behind the other from `at` on.
fn sparse(name: &str, whole: u64, stored: u64, at: u64, pieces: &[[u64; 2]]) -> Result<Content, ArchiveError> {
    let wrong = || damaged(format!("the pieces of the sparse file `{name}` do not fit into it"));
    let (mut done, mut behind) = (0u64, 0u64);
    let mut placed = Vec::new();
    for &[from, length] in pieces.iter().filter(|piece| piece[1] > 0) {
        let end = from.checked_add(length).filter(|&end| from >= behind && end <= whole).ok_or_else(wrong)?;
        placed.push(Piece { from, at: at.checked_add(done).ok_or_else(wrong)?, length });
        done = done.checked_add(length).filter(|&done| done <= stored).ok_or_else(wrong)?;
        behind = end;
    }
    Ok(Content { size: whole, place: Place::Pieces(placed.into()) })
}

/// Notes what follows the mark of the end: `tar -x` does not read it either, unless it is told to.
fn behind_the_end(file: &Shared, mut at: u64, tree: &mut Tree) -> Result<(), ArchiveError> {
    let mut piece = vec![0; 1 << 16];
    while at < file.length {
        let length = (file.length - at).min(piece.len() as u64) as usize;
        read(file, &mut piece[..length], at)?;
        if let Some(first) = piece[..length].iter().position(|&byte| byte != 0) {
            let first = at + first as u64;
            let start = first / BLOCK * BLOCK;
            let is_head = block(file, start)?.is_some_and(|block| sum_is_right(&block));
            let what =
                if is_head { "another archive, which `tar -x` reads only with `--ignore-zeros`" } else { "no archive" };
            tree.leave_out(
                &format!("byte {start} and all behind it"),
                &format!("stand after the archive's end: {what}"),
            );
            return Ok(());
        }
        at += length as u64;
    }
    Ok(())
}

/// The block at a place; nothing at the end of the file. A last one that is cut must be zeros.
fn block(file: &Shared, at: u64) -> Result<Option<Block>, ArchiveError> {
    let left = file.length.saturating_sub(at).min(BLOCK) as usize;
    let mut block = [0; BLOCK as usize];
    read(file, &mut block[..left], at)?;
    if left == 0 {
        return Ok(None);
    }
    if left < block.len() && !is_zero(&block) {
        return Err(damaged(format!("it ends within the block at byte {at}")));
    }
    Ok(Some(block))
}

fn read(file: &Shared, bytes: &mut [u8], at: u64) -> Result<(), ArchiveError> {
    if at.checked_add(bytes.len() as u64).is_none_or(|end| end > file.length) {
        return Err(damaged(format!("a head at byte {at} goes on behind its end")));
    }
    Ok(std::os::unix::fs::FileExt::read_exact_at(&*file.file, bytes, at)?)
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// The sum of all bytes, its own field as spaces. Old programs added signed bytes.
fn sum_is_right(block: &Block) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let Ok(declared) = Header::from_byte_slice(block).cksum() else { return false };
    let bytes = || block.iter().enumerate().map(|(at, &byte)| if FIELD.contains(&at) { b' ' } else { byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    [unsigned, signed].contains(&i64::from(declared))
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
    bytes
}

/// A name as text. Bytes that are no UTF-8 are written as `\xe4`, so that two names stay two.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
    }
    text
}

fn damaged(reason: String) -> ArchiveError {
    ArchiveError::Damaged { reason }
}
