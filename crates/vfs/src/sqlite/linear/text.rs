//! The functions themselves, on bytes. Whatever bytes there are, they give what SQLite's own functions give, which in turn do not
//! look for valid UTF-8: a byte of 0xc0 or more begins a character, and the bytes 0x80 to 0xbf after it belong to it.

use std::collections::{HashMap, HashSet};

use memchr::memmem;

/// `instr` of two texts: the number of the character at which `needle` is first found, or 0.
pub(super) fn instr_text(haystack: &[u8], needle: &[u8]) -> usize {
    let Some(&first) = needle.first() else { return 1 };
    // Looked for where characters begin, and at the very beginning.
    if is_continuation(first) {
        return usize::from(haystack.starts_with(needle));
    }
    match memmem::find(haystack, needle) {
        Some(0) => 1,
        Some(at) => chars(&haystack[..at]) + 1,
        None => 0,
    }
}

/// How many characters `instr` steps over.
pub(super) fn chars(text: &[u8]) -> usize {
    match text {
        [] => 0,
        [_, rest @ ..] => 1 + rest.iter().filter(|byte| !is_continuation(**byte)).count(),
    }
}

/// `instr` of two blobs: the number of the byte.
pub(super) fn instr_blob(haystack: &[u8], needle: &[u8]) -> usize {
    memmem::find(haystack, needle).map_or(0, |at| at + 1)
}

/// How often `pattern` occurs, one occurrence after the other.
pub(super) fn occurrences(text: &[u8], pattern: &[u8]) -> usize {
    memmem::find_iter(text, pattern).count()
}

/// Calls `give` for each piece of `text` with every occurrence of `pattern` replaced.
pub(super) fn replaced(text: &[u8], pattern: &[u8], replacement: &[u8], mut give: impl FnMut(&[u8])) {
    let mut rest = 0;
    for at in memmem::find_iter(text, pattern) {
        give(&text[rest..at]);
        give(replacement);
        rest = at + pattern.len();
    }
    give(&text[rest..]);
}

/// Which ends are trimmed.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// `text` without the characters of `set`, up to its first NUL, at its ends.
pub(super) fn trim<'t>(text: &'t [u8], set: &[u8], ends: Ends) -> &'t [u8] {
    let set = up_to_nul(set);
    if !set.is_ascii() {
        return CharSet::new(set).trim(text, ends);
    }
    let mut goes = [false; 256];
    for &byte in set {
        goes[usize::from(byte)] = true;
    }
    let stays = |byte: &u8| !goes[usize::from(*byte)];
    let from = match ends.left {
        true => text.iter().position(stays).unwrap_or(text.len()),
        false => 0,
    };
    let to = match ends.right {
        true => text[from..]
            .iter()
            .rposition(stays)
            .map_or(from, |last| from + last + 1),
        false => text.len(),
    };
    &text[from..to]
}

/// The characters that are trimmed, as a tree of their bytes. Of several that fit, the one named first in the set is taken, as
/// SQLite does: with bytes that are not UTF-8, which one is taken makes a difference.
struct CharSet {
    children: HashMap<(u32, u8), u32>,
    /// For each node: the place in the set of the character that ends in it.
    places: Vec<Option<u32>>,
}

const ROOT: u32 = 0;

impl CharSet {
    fn new(set: &[u8]) -> Self {
        let mut made = Self {
            children: HashMap::new(),
            places: vec![None],
        };
        let mut at = 0;
        let mut place = 0;
        while at < set.len() {
            let mut node = ROOT;
            let end = at + char_len(&set[at..]);
            for &byte in &set[at..end] {
                let next = u32::try_from(made.places.len()).unwrap_or(u32::MAX);
                node = *made.children.entry((node, byte)).or_insert_with(|| {
                    made.places.push(None);
                    next
                });
            }
            made.places[node as usize].get_or_insert(place);
            place += 1;
            at = end;
        }
        made
    }

    /// The place of each character of the set that `text` begins with, by its length less one.
    fn prefixes<'s>(&'s self, text: &'s [u8]) -> impl Iterator<Item = Option<u32>> + 's {
        let mut node = Some(ROOT);
        text.iter().map_while(move |&byte| {
            node = self.children.get(&(node?, byte)).copied();
            node.map(|node| self.places[node as usize])
        })
    }

    fn single(&self, byte: u8) -> Option<u32> {
        self.prefixes(&[byte]).next().flatten()
    }

    fn trim_left<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        loop {
            let fits = self
                .prefixes(text)
                .zip(1..)
                .filter_map(|(place, len)| Some((place?, len)));
            match fits.min() {
                Some((_, len)) => text = &text[len..],
                None => return text,
            }
        }
    }

    fn trim_right<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        while let Some(&last) = text.last() {
            // The byte that begins the last character, if there is one, with the bytes that continue it.
            let lead = text.iter().rposition(|byte| !is_continuation(*byte));
            let Some(lead) = lead.filter(|at| text[*at] >= 0xc0) else {
                match self.single(last) {
                    Some(_) => text = &text[..text.len() - 1],
                    None => return text,
                }
                continue;
            };
            let whole: Vec<Option<u32>> = self.prefixes(&text[lead..]).collect();
            // From here on either one byte that continues it goes, or all of it.
            loop {
                let len = text.len() - lead;
                let all = whole.get(len - 1).copied().flatten();
                let one = if len == 1 {
                    None
                } else {
                    self.single(text[text.len() - 1])
                };
                match (all, one) {
                    (None, None) => return text,
                    (Some(all), one) if one.is_none_or(|one| all < one) => {
                        text = &text[..lead];
                        break;
                    }
                    _ => text = &text[..text.len() - 1],
                }
            }
        }
        text
    }

    fn trim<'t>(&self, text: &'t [u8], ends: Ends) -> &'t [u8] {
        let text = if ends.left { self.trim_left(text) } else { text };
        if ends.right { self.trim_right(text) } else { text }
    }
}

/// `unhex` with characters to be passed over; `None` = NULL.
pub(super) fn unhex(hex: &[u8], pass: &[u8], mut give: impl FnMut(u8)) -> Option<()> {
    let hex = up_to_nul(hex);
    let passed: HashSet<u32> = Chars(pass).collect();
    let mut at = 0;
    while let Some(&byte) = hex.get(at) {
        match digit(byte) {
            Some(high) => {
                give(high << 4 | digit(*hex.get(at + 1)?)?);
                at += 2;
            }
            None => {
                let mut rest = Chars(&hex[at..]);
                if !passed.contains(&rest.next()?) {
                    return None;
                }
                at = hex.len() - rest.0.len();
            }
        }
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn up_to_nul(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Bytes of the first character.
fn char_len(text: &[u8]) -> usize {
    match text {
        [0xc0..=0xff, rest @ ..] => 1 + rest.iter().take_while(|byte| is_continuation(**byte)).count(),
        _ => 1,
    }
}

/// Characters as SQLite reads them, with its numbers for what is not UTF-8.
struct Chars<'t>(&'t [u8]);

impl Iterator for Chars<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let len = char_len(self.0);
        let (&lead, more) = self.0.get(..len)?.split_first()?;
        self.0 = &self.0[len..];
        if lead < 0xc0 {
            return Some(u32::from(lead));
        }
        let begin = match lead {
            ..0xe0 => lead & 0x1f,
            0xe0..0xf0 => lead & 0x0f,
            0xf0..0xf8 => lead & 0x07,
            0xf8..0xfc => lead & 0x03,
            _ => u8::from(lead == 0xfd),
        };
        let char = more.iter().fold(u32::from(begin), |char, byte| {
            (char << 6).wrapping_add(u32::from(byte & 0x3f))
        });
        let is_none = char < 0x80 || char & 0xffff_f800 == 0xd800;
        Some(if is_none { 0xfffd } else { char })
    }
}
