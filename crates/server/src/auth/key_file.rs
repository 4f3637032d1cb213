//! Keys and tokens from files: which files there are, and which keys are in the text of one.
//!
//! A file of keys is JSON, when it begins with `{`: a JSON Web Key or a set of them. Else it has lines: PEM blocks, keys with a
//! line of their own (see [`Key::line`]), empty ones, and comments, which begin with `#`. Whatever else is in it is an
//! error: what somebody took for a key must not be left out silently.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    key::{Id, Jwk, Key, NoKey},
    problem::{CredentialError, CredentialProblem, MOST_KEYS, Part, place},
};

/// No file of keys or tokens has more bytes.
const MOST_BYTES: u64 = 1 << 20;
/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The keys of a file, or of all files of a folder.
pub(super) fn keys_at(path: &Path) -> Result<Vec<Key>, CredentialError> {
    let mut keys = Keys::default();
    if !path.is_dir() {
        let contents = read(path)?;
        keys.add(&contents, Some(path)).map_err(|e| e.in_file(path))?;
        return Ok(keys.into_keys());
    }
    for file in
        files_of(path).map_err(|e| CredentialError::from(CredentialProblem::Unreadable(e)).in_file(path))?
    {
        let contents = read(&file)?;
        keys.add(&contents, Some(&file)).map_err(|e| e.in_file(&file))?;
    }
    if keys.found.is_empty() {
        return Err(CredentialError::from(CredentialProblem::Empty).in_file(path));
    }
    Ok(keys.into_keys())
}

/// The keys of a text.
pub(super) fn keys_in(contents: &[u8]) -> Result<Vec<Key>, CredentialError> {
    let mut keys = Keys::default();
    keys.add(contents, None)?;
    Ok(keys.into_keys())
}

/// The contents of a file, if it is a small one.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let mut contents = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut contents));
    let problem = match file {
        Ok(_) if contents.len() as u64 > MOST_BYTES => CredentialProblem::TooLarge(MOST_BYTES),
        Ok(_) => return Ok(contents),
        Err(source) => CredentialProblem::Unreadable(source),
    };
    Err(CredentialError::from(problem).in_file(path))
}

/// The lines of a text, with their numbers, without those that are empty or comments.
pub(super) fn lines(contents: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let contents = contents.strip_prefix(BYTE_ORDER_MARK).unwrap_or(contents);
    let lines = contents.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    (1..)
        .zip(lines)
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

/// A key in a text, as it is written there.
pub(super) enum Entry<'a> {
    Pem { block: Vec<u8>, is_private: bool },
    Line(&'a [u8]),
}

/// The keys of a text that is not JSON, each with the number of its first line.
pub(super) fn entries(contents: &[u8]) -> impl Iterator<Item = Result<(usize, Entry<'_>), CredentialError>> {
    let mut lines = lines(contents);
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        if !line.starts_with(b"-----BEGIN") {
            return Some(Ok((number, Entry::Line(line))));
        }
        let is_private = line.ends_with(b"PRIVATE KEY-----");
        let mut block = [line, b"\n"].concat();
        for (_, next) in lines.by_ref() {
            block.extend_from_slice(next);
            block.push(b'\n');
            if next.starts_with(b"-----END") {
                return Some(Ok((number, Entry::Pem { block, is_private })));
            }
        }
        Some(Err(CredentialProblem::CutPem.at(Part::Line(number))))
    })
}

/// The files of a folder in the order of their names, without hidden ones (of which folders of secrets in containers are
/// made) and without folders in it.
fn files_of(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The keys found so far, and where.
#[derive(Default)]
struct Keys {
    found: Vec<(Key, String)>,
}

impl Keys {
    fn into_keys(self) -> Vec<Key> {
        self.found.into_iter().map(|(key, _)| key).collect()
    }

    fn add(&mut self, contents: &[u8], path: Option<&Path>) -> Result<(), CredentialError> {
        let file = path.map(|path| path.display().to_string());
        let before = self.found.len();
        let text = contents.strip_prefix(BYTE_ORDER_MARK).unwrap_or(contents);
        match text.trim_ascii_start().starts_with(b"{") {
            true => self.add_json(text, file.as_deref())?,
            false => self.add_lines(contents, file.as_deref())?,
        }
        match self.found.len() > before {
            true => Ok(()),
            false => Err(CredentialProblem::Empty.into()),
        }
    }

    fn add_lines(&mut self, contents: &[u8], file: Option<&str>) -> Result<(), CredentialError> {
        for entry in entries(contents) {
            let (number, entry) = entry?;
            let key = match entry {
                Entry::Pem { is_private: true, .. } => Err(CredentialProblem::Private),
                Entry::Pem { block, .. } => Key::pem(&block),
                Entry::Line(line) => Key::line(line),
            };
            let part = Part::Line(number);
            self.push(key.map_err(|problem| problem.at(part))?, file, part)?;
        }
        Ok(())
    }

    fn add_json(&mut self, text: &[u8], file: Option<&str>) -> Result<(), CredentialError> {
        // The parser's own text may repeat what it read.
        let parsed = serde_json::from_slice::<Jwk>(text);
        let parsed = parsed.map_err(|e| CredentialProblem::NotJwk.at(Part::Line(e.line())))?;
        let set = parsed.keys.as_deref().unwrap_or(std::slice::from_ref(&parsed));
        let before = self.found.len();
        for (number, jwk) in (1..).zip(set) {
            match jwk.key() {
                Ok(key) => self.push(key, file, Part::Key(number))?,
                Err(NoKey::Other) => tracing::debug!(number, "a JSON Web Key is not for tokens, or unknown"),
                Err(NoKey::Problem(problem)) => return Err(problem.at(Part::Key(number))),
            }
        }
        match self.found.len() > before {
            true => Ok(()),
            false => Err(CredentialProblem::NoUsableJwk.into()),
        }
    }

    fn push(&mut self, key: Key, file: Option<&str>, part: Part) -> Result<(), CredentialError> {
        if let Some(id) = key.id.as_ref().map(Id::as_str) {
            let same = |(other, _): &&(Key, String)| other.id.as_ref().map(Id::as_str) == Some(id);
            if let Some((_, first)) = self.found.iter().find(same) {
                let (id, first) = (id.to_owned(), first.clone());
                return Err(CredentialProblem::DuplicateId { id, first }.at(part));
            }
        }
        if self.found.len() == MOST_KEYS {
            return Err(CredentialProblem::TooManyKeys.at(part));
        }
        self.found.push((key, place(file, Some(part))));
        Ok(())
    }
}
