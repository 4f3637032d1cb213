//! Functions of the caller that the engine asks: for the url, for the token, and what shall become of a change.
//!
//! A function answers by calling one of `partial_sync_answer_*` on what it was given, so that no memory changes its owner.

use std::{
    ffi::{CString, c_char, c_void},
    path::Path,
    sync::Arc,
};

use partial_sync::change::{
    Value,
    transform::{ChangeType, RowValues, Transform, TransformFn, TransformMutation},
};
use partial_sync_transport::{AuthToken, UrlSource};
use rusqlite::types::ValueRef;

use crate::{
    asked::ask,
    boundary::{Result, bytes, misuse, quietly, sized_text, text},
    codec::decode,
    column::PartialSyncValue,
};

/// What a function of yours answers. It belongs to the library and is valid until the function returns. The last answer
/// counts; without one the default does, which each function's comment names.
#[derive(Debug, Default)]
pub struct PartialSyncAnswer {
    said: Option<Said>,
}

#[derive(Debug)]
enum Said {
    Text(String),
    Skip,
    Rewrite { sql: String, values: Vec<Value> },
    Fail(String),
}

/// Asked for the url before each request: answer with `partial_sync_answer_text`, or with `partial_sync_answer_fail`, which
/// makes the request fail. Without an answer sync is paused: requests fail, and local reads and writes continue. It must
/// answer at once, and name the same remote every time.
pub type PartialSyncUrlFunction =
    Option<unsafe extern "C" fn(user_data: *mut c_void, answer: *mut PartialSyncAnswer)>;

/// Asked for the bearer token before each request, retries included: answer with `partial_sync_answer_text`, or with
/// `partial_sync_answer_fail`, which makes the request fail. Without an answer no token is sent. It runs on a thread of its own
/// and may take its time, within the timeout; a call that is broken off does not wait for it.
pub type PartialSyncTokenFunction =
    Option<unsafe extern "C" fn(user_data: *mut c_void, answer: *mut PartialSyncAnswer)>;

/// Asked about each local change before it is pushed, and before a pull puts it back: answer with
/// `partial_sync_answer_skip` to leave it out, `partial_sync_answer_rewrite` to run another statement in its place, or
/// `partial_sync_answer_fail` to stop the push or pull. Without an answer the change is sent as it is.
pub type PartialSyncTransformFunction = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        mutation: *const PartialSyncMutation,
        answer: *mut PartialSyncAnswer,
    ),
>;

/// Told that nothing will use `user_data` any more. It cannot use the database, which is being closed.
pub type PartialSyncReleaseFunction = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// What happened to a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialSyncChange {
    /// A new row.
    Insert = 1,
    /// A row changed.
    Update = 2,
    /// A row is gone.
    Delete = 3,
}

/// A column of a row with its value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncField {
    /// Name of the column.
    pub name: *const c_char,
    /// The value.
    pub value: PartialSyncValue,
}

/// A local change of a row. All of it is valid until the function returns. Generated columns are left out; columns come
/// in the order of their names.
#[repr(C)]
#[derive(Debug)]
pub struct PartialSyncMutation {
    /// When it was made, in seconds since 1970.
    pub change_time: i64,
    /// The table.
    pub table_name: *const c_char,
    /// What happened.
    pub change: PartialSyncChange,
    /// Whether the row's key is one integer.
    pub has_id: bool,
    /// That integer: before the change, or of the new row.
    pub id: i64,
    /// The row before; NULL when it is new.
    pub before: *const PartialSyncField,
    /// How many columns.
    pub before_count: usize,
    /// The row after; NULL when it is gone.
    pub after: *const PartialSyncField,
    /// How many columns.
    pub after_count: usize,
    /// Of an update: the new values of the columns that changed; NULL otherwise.
    pub updates: *const PartialSyncField,
    /// How many columns.
    pub updates_count: usize,
}

/// Answers with a text: a url or a token. `length` is in bytes, or negative: up to NUL. The text is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_answer_text(
    answer: *mut PartialSyncAnswer,
    text: *const c_char,
    length: i64,
) {
    // SAFETY: by the rules of the boundary.
    unsafe {
        say(answer, || {
            Ok(Said::Text(sized_text(text, length, "the answer")?.to_owned()))
        });
    }
}

/// Leaves the change out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_answer_skip(answer: *mut PartialSyncAnswer) {
    // SAFETY: by the rules of the boundary.
    unsafe { say(answer, || Ok(Said::Skip)) };
}

/// Puts one statement in the place of the change. `length` is that of `sql` in bytes, or negative: up to NUL. `values` are
/// those of its parameters, `values_length` bytes in the format of `PartialSyncBatch`. All is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_answer_rewrite(
    answer: *mut PartialSyncAnswer,
    sql: *const c_char,
    length: i64,
    values: *const u8,
    values_length: usize,
) {
    // SAFETY: by the rules of the boundary.
    unsafe {
        say(answer, || {
            let sql = sized_text(sql, length, "the statement of the answer")?.to_owned();
            let mut rest = bytes(values, values_length, "the values of the answer")?;
            let mut values = Vec::new();
            while !rest.is_empty() {
                match decode(&mut rest) {
                    Some(value) => values.push(value.into()),
                    None => return misuse("the values of the answer are not values"),
                }
            }
            Ok(Said::Rewrite { sql, values })
        });
    }
}

/// Makes what asked fail with this message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_answer_fail(answer: *mut PartialSyncAnswer, message: *const c_char) {
    // SAFETY: by the rules of the boundary.
    unsafe {
        say(answer, || {
            Ok(Said::Fail(text(message, "the message")?.to_owned()))
        });
    }
}

/// # Safety
/// By the rules of the boundary.
unsafe fn say(answer: *mut PartialSyncAnswer, said: impl FnOnce() -> Result<Said>) {
    // SAFETY: null, or the answer that the function was given and that it alone uses.
    let answer = unsafe { answer.as_mut() };
    quietly((), || {
        if let Some(answer) = answer {
            answer.said = Some(said().unwrap_or_else(|failure| Said::Fail(failure.to_string())));
        }
    });
}

/// The data of the caller's functions, which goes with the last of them.
struct UserData {
    data: *mut c_void,
    release: PartialSyncReleaseFunction,
    database: Arc<Path>,
}

// SAFETY: the header says that the functions are called from any thread, several at a time; the pointer is only handed on.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the caller gave a function of this type, to be called once with this data.
            ask(&self.database, || unsafe { release(self.data) });
        }
    }
}

/// The caller's functions that share their data.
#[derive(Clone)]
pub(crate) struct Callbacks(Arc<UserData>);

impl Callbacks {
    pub(crate) fn new(data: *mut c_void, release: PartialSyncReleaseFunction, database: Arc<Path>) -> Self {
        Self(Arc::new(UserData {
            data,
            release,
            database,
        }))
    }

    pub(crate) fn url(&self, function: PartialSyncUrlFunction) -> Option<UrlSource> {
        let (function, callbacks) = (function?, self.clone());
        Some(UrlSource::try_function(move || {
            // SAFETY: the caller gave a function of this type, to be called with this data.
            match callbacks.ask(|data, answer| unsafe { function(data, answer) }) {
                Some(Said::Text(url)) => Ok(Some(url)),
                Some(Said::Fail(message)) => Err(message.into()),
                _ => Ok(None),
            }
        }))
    }

    pub(crate) fn token(&self, function: PartialSyncTokenFunction) -> Option<AuthToken> {
        let (function, callbacks) = (function?, self.clone());
        Some(AuthToken::function(move || {
            let callbacks = callbacks.clone();
            async move {
                // It may take its time, to refresh the token, and must not keep a thread that moves bytes.
                let asked = tokio::task::spawn_blocking(move || {
                    // SAFETY: the caller gave a function of this type, to be called with this data.
                    callbacks.ask(|data, answer| unsafe { function(data, answer) })
                });
                match asked.await? {
                    Some(Said::Text(token)) => Ok(Some(token)),
                    Some(Said::Fail(message)) => Err(message.into()),
                    _ => Ok(None),
                }
            }
        }))
    }

    pub(crate) fn transform(&self, function: PartialSyncTransformFunction) -> Option<Arc<TransformFn>> {
        let (function, callbacks) = (function?, self.clone());
        Some(Arc::new(move |mutation: &TransformMutation| {
            let said = with_mutation(mutation, |mutation| {
                // SAFETY: the caller gave a function of this type, to be called with this data.
                callbacks.ask(|data, answer| unsafe { function(data, mutation, answer) })
            });
            match said {
                None => Transform::Keep,
                Some(Said::Skip) => Transform::Skip,
                Some(Said::Rewrite { sql, values }) => Transform::Rewrite { sql, values },
                Some(Said::Fail(message)) => Transform::Fail(message),
                Some(Said::Text(_)) => Transform::Fail("the transform function answered with a text".into()),
            }
        }))
    }

    fn ask(&self, function: impl FnOnce(*mut c_void, *mut PartialSyncAnswer)) -> Option<Said> {
        let mut answer = PartialSyncAnswer::default();
        ask(&self.0.database, || function(self.0.data, &mut answer));
        answer.said
    }
}

/// A row as C sees it, with the texts that its fields point to.
#[derive(Default)]
struct Fields {
    fields: Vec<PartialSyncField>,
    _names: Vec<CString>,
}

impl Fields {
    fn of(row: Option<&RowValues>) -> Option<Self> {
        let names: Vec<CString> = row?.keys().map(|name| c_text(name)).collect();
        let fields = names
            .iter()
            .zip(row?.values())
            .map(|(name, value)| PartialSyncField {
                name: name.as_ptr(),
                value: PartialSyncValue::from(ValueRef::from(value)),
            });
        let fields = fields.collect();
        Some(Self {
            fields,
            _names: names,
        })
    }

    fn start(row: Option<&Self>) -> *const PartialSyncField {
        row.map_or(std::ptr::null(), |row| row.fields.as_ptr())
    }

    fn count(row: Option<&Self>) -> usize {
        row.map_or(0, |row| row.fields.len())
    }
}

/// Text in C ends at its first NUL.
fn c_text(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

fn with_mutation<T>(from: &TransformMutation, work: impl FnOnce(*const PartialSyncMutation) -> T) -> T {
    let table = c_text(&from.table_name);
    let [before, after, updates] =
        [&from.before, &from.after, &from.updates].map(|row| Fields::of(row.as_ref()));
    let [before, after, updates] = [&before, &after, &updates].map(Option::as_ref);
    let mutation = PartialSyncMutation {
        change_time: from.change_time,
        table_name: table.as_ptr(),
        change: match from.change_type {
            ChangeType::Insert => PartialSyncChange::Insert,
            ChangeType::Update => PartialSyncChange::Update,
            ChangeType::Delete => PartialSyncChange::Delete,
        },
        has_id: from.id.is_some(),
        id: from.id.unwrap_or(0),
        before: Fields::start(before),
        before_count: Fields::count(before),
        after: Fields::start(after),
        after_count: Fields::count(after),
        updates: Fields::start(updates),
        updates_count: Fields::count(updates),
    };
    work(&mutation)
}
