//! SQLite's lexical rules, as far as statements are compared, cut and edited by: where words, names, strings, comments and
//! parameters begin and end. It follows `sqlite3GetToken` and never understands more than that.

use std::iter;

use crate::bookkeeping::OWN_TABLES;

/// What a [`Token`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or a bare name.
    Word,
    /// A quoted name or a string: `"a"`, `` `a` ``, `[a]`, `'a'`.
    Quoted,
    /// `?`, `?1`, `:a`, `@a`, `$a`
    Parameter,
    /// `;`
    Semicolon,
    /// Numbers, blob literals, operators.
    Other,
}

/// A token; white space and comments are not tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// As it stands in the statement.
    pub text: &'a str,
    /// Byte offset in the statement.
    pub start: usize,
}

impl Token<'_> {
    /// Byte offset of what follows it.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// The name that a [`TokenKind::Word`] or [`TokenKind::Quoted`] token spells.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_owned()),
            TokenKind::Quoted => {
                let open = self.text.chars().next()?;
                let close = if open == '[' { ']' } else { open };
                let inner = self.text[1..].strip_suffix(close)?;
                Some(match open {
                    '[' => inner.to_owned(),
                    _ => inner.replace(&format!("{open}{open}"), &open.to_string()),
                })
            }
            _ => None,
        }
    }
}

/// The table of this project that a token names, if it does; as a string, too, which SQLite takes for a name.
pub fn own_table(token: &Token<'_>) -> Option<&'static str> {
    let name = token.name()?;
    OWN_TABLES.into_iter().find(|own| own.eq_ignore_ascii_case(&name))
}

/// Whether two statements are the same word for word: white space, comments, the case of letters and semicolons at the end
/// aside.
///
/// ```
/// use partial_sync_transport::tokens::same_words;
///
/// assert!(same_words("create table t(a);", "CREATE TABLE t (a) -- that one"));
/// assert!(!same_words("CREATE TABLE t(a)", "CREATE TABLE \"t\"(a)"));
/// ```
pub fn same_words(a: &str, b: &str) -> bool {
    let words = |sql| {
        let mut words = tokens(sql);
        while words.last().is_some_and(|t| t.kind == TokenKind::Semicolon) {
            words.pop();
        }
        words
    };
    let (a, b) = (words(a), words(b));
    let same = |(a, b): (&Token<'_>, &Token<'_>)| a.kind == b.kind && a.text.eq_ignore_ascii_case(b.text);
    a.len() == b.len() && a.iter().zip(&b).all(same)
}

/// The tokens of a statement. Like SQLite, it ends at a NUL.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    each(sql.split('\0').next().unwrap_or_default()).collect()
}

/// What the first statement of the text begins with; `None` where there are only white space, comments and semicolons.
///
/// ```
/// use partial_sync_transport::tokens::first;
///
/// assert!(first(" -- a comment\n /* ; */ ;Select 1").is_some_and(|word| word.is("SELECT")));
/// for nothing in ["", " \n;; ", "-- a comment", "/* not ended SELECT 1", "\u{feff}"] {
///     assert_eq!(first(nothing), None);
/// }
/// ```
pub fn first(sql: &str) -> Option<Token<'_>> {
    each(sql).find(|token| token.kind != TokenKind::Semicolon)
}

fn each(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    iter::from_fn(move || {
        while at < sql.len() {
            let start = at;
            let (kind, end) = scan(sql.as_bytes(), start);
            at = end;
            if let Some(kind) = kind {
                let text = &sql[start..end];
                return Some(Token { kind, text, start });
            }
        }
        None
    })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Kind (`None`: white space or comment) and end of what begins at `at`. Ends are always at a character boundary:
/// bytes of longer characters are name bytes, and everything else that is searched for is ASCII.
fn scan(bytes: &[u8], at: usize) -> (Option<TokenKind>, usize) {
    let next = bytes.get(at + 1).copied();
    let find = |from: usize, wanted: &[u8]| {
        bytes[from.min(bytes.len())..]
            .windows(wanted.len())
            .position(|window| window == wanted)
            .map_or(bytes.len(), |i| from + i + wanted.len())
    };
    match bytes[at] {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0c => (None, at + 1),
        b'-' if next == Some(b'-') => (None, find(at, b"\n")),
        b'/' if next == Some(b'*') => (None, find(at + 2, b"*/")),
        0xef if bytes[at..].starts_with("\u{feff}".as_bytes()) => (None, at + 3),
        quote @ (b'\'' | b'"' | b'`') => (Some(TokenKind::Quoted), quoted_end(bytes, at, quote)),
        b'[' => (Some(TokenKind::Quoted), find(at, b"]")),
        b'x' | b'X' if next == Some(b'\'') => (Some(TokenKind::Other), quoted_end(bytes, at + 1, b'\'')),
        b'?' => (
            Some(TokenKind::Parameter),
            end_of_run(bytes, at + 1, |b| b.is_ascii_digit()),
        ),
        b':' | b'@' | b'$' | b'#' => match named_parameter_end(bytes, at) {
            Some(end) => (Some(TokenKind::Parameter), end),
            None => (Some(TokenKind::Other), at + 1),
        },
        b';' => (Some(TokenKind::Semicolon), at + 1),
        byte if byte.is_ascii_digit() => (
            Some(TokenKind::Other),
            end_of_run(bytes, at + 1, |b| is_name_byte(b) || b == b'.'),
        ),
        byte if is_name_byte(byte) => (Some(TokenKind::Word), end_of_run(bytes, at + 1, is_name_byte)),
        _ => (Some(TokenKind::Other), at + 1),
    }
}

fn end_of_run(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|&byte| !belongs(byte))
        .map_or(bytes.len(), |i| from + i)
}

fn quoted_end(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

/// `:a`, and the forms that SQLite takes over from Tcl: `$a::b(c)`.
fn named_parameter_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut named = false;
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        if is_name_byte(byte) {
            named = true;
            at += 1;
        } else if byte == b'(' && named {
            let end = end_of_run(bytes, at + 1, |b| b != b')' && !b.is_ascii_whitespace());
            return (bytes.get(end) == Some(&b')')).then_some(end + 1);
        } else if byte == b':' && bytes.get(at + 1) == Some(&b':') {
            at += 2;
        } else {
            break;
        }
    }
    named.then_some(at)
}
