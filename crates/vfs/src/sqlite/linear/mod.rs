//! `instr`, `replace`, `trim`, `ltrim`, `rtrim` and `unhex` in time that grows with their arguments and not with the product of two of
//! them. SQLite's own take hours for megabytes, inside of one instruction of its virtual machine, where no interrupt is
//! looked at.
//!
//! They give exactly what SQLite's own give, but for a set of characters to trim or to pass over of more than
//! [`LARGEST_SET`] bytes: that is an error.

mod patch;
mod text;

#[cfg(test)]
mod tests;

use std::{
    ffi::{CStr, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use rusqlite::{Connection, ffi};
use text::Ends;

/// The largest set of characters to trim or to pass over, in bytes.
const LARGEST_SET: usize = 64 << 10;

type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Also limits what no other way is known for: `json_patch` of two large values is an error.
pub fn limit_others(conn: &Connection) -> rusqlite::Result<()> {
    patch::install(conn)
}

/// Puts them in the place of SQLite's own on this connection.
pub fn install(conn: &Connection) -> rusqlite::Result<()> {
    let functions: [(&CStr, c_int, Function); 9] = [
        (c"instr", 2, x_instr),
        (c"replace", 3, x_replace),
        (c"trim", 1, x_trim),
        (c"trim", 2, x_trim),
        (c"ltrim", 1, x_ltrim),
        (c"ltrim", 2, x_ltrim),
        (c"rtrim", 1, x_rtrim),
        (c"rtrim", 2, x_rtrim),
        (c"unhex", 2, x_unhex),
    ];
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    for (name, arguments, function) in functions {
        // SAFETY: the handle is that of an open connection, which `conn` borrows; the name is a C string; the function
        // needs no user data and nothing to destroy.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                conn.handle(),
                name.as_ptr(),
                arguments,
                flags,
                ptr::null_mut(),
                Some(function),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    Ok(())
}

/// One call of a function.
struct Call<'c> {
    context: *mut ffi::sqlite3_context,
    arguments: &'c [*mut ffi::sqlite3_value],
}

/// # Safety
/// To be called with what SQLite calls a function with, during that call.
unsafe fn answer(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
    function: fn(&Call<'_>),
) {
    // SAFETY: SQLite passes `count` values, which live until the function returns.
    let arguments = unsafe { std::slice::from_raw_parts(arguments, usize::try_from(count).unwrap_or(0)) };
    let call = Call { context, arguments };
    if catch_unwind(AssertUnwindSafe(|| function(&call))).is_err() {
        // SAFETY: the context is that of the call; the text is a C string, which SQLite copies.
        unsafe { ffi::sqlite3_result_error(context, c"internal error in a text function".as_ptr(), -1) };
    }
}

macro_rules! functions {
    ($($name:ident => $function:expr;)*) => {$(
        unsafe extern "C" fn $name(
            context: *mut ffi::sqlite3_context,
            count: c_int,
            arguments: *mut *mut ffi::sqlite3_value,
        ) {
            // SAFETY: SQLite's contract for functions.
            unsafe { answer(context, count, arguments, $function) }
        }
    )*};
}

functions! {
    x_instr => instr;
    x_replace => replace;
    x_trim => |call| trim(call, Ends { left: true, right: true });
    x_ltrim => |call| trim(call, Ends { left: true, right: false });
    x_rtrim => |call| trim(call, Ends { left: false, right: true });
    x_unhex => unhex;
}

impl<'c> Call<'c> {
    fn type_of(&self, index: usize) -> c_int {
        // SAFETY: the argument lives as long as the call.
        unsafe { ffi::sqlite3_value_type(self.arguments[index]) }
    }

    /// Whether a text or a blob has no bytes.
    fn is_empty(&self, index: usize) -> bool {
        // SAFETY: the argument lives as long as the call.
        unsafe { ffi::sqlite3_value_bytes(self.arguments[index]) == 0 }
    }

    /// An argument as SQLite makes it a text; `None` for NULL.
    fn text(&self, index: usize) -> Option<&'c [u8]> {
        // SAFETY: the argument lives as long as the call.
        unsafe { text_of(self.arguments[index]) }
    }

    /// A blob's bytes.
    fn blob(&self, index: usize) -> &'c [u8] {
        let value = self.arguments[index];
        // SAFETY: the argument lives as long as the call, and is not converted after this. An empty blob may be null.
        unsafe {
            let start = ffi::sqlite3_value_blob(value).cast::<u8>();
            let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
            if start.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(start, len)
            }
        }
    }

    fn number(&self, number: usize) {
        // SAFETY: the context is that of the call.
        unsafe { ffi::sqlite3_result_int64(self.context, i64::try_from(number).unwrap_or(i64::MAX)) }
    }

    fn copy(&self, text: &[u8]) {
        // SAFETY: the context is that of the call, and SQLite copies the bytes.
        unsafe {
            ffi::sqlite3_result_text64(
                self.context,
                text.as_ptr().cast(),
                text.len() as u64,
                ffi::SQLITE_TRANSIENT(),
                ffi::SQLITE_UTF8 as u8,
            );
        }
    }

    fn too_big(&self) {
        // SAFETY: the context is that of the call.
        unsafe { ffi::sqlite3_result_error_toobig(self.context) }
    }

    fn no_memory(&self) {
        // SAFETY: the context is that of the call.
        unsafe { ffi::sqlite3_result_error_nomem(self.context) }
    }

    /// The largest value of the connection.
    fn limit(&self) -> usize {
        // SAFETY: the context is that of the call, and so has a connection. A negative limit leaves it as it is.
        let limit = unsafe {
            let conn = ffi::sqlite3_context_db_handle(self.context);
            ffi::sqlite3_limit(conn, ffi::SQLITE_LIMIT_LENGTH, -1)
        };
        usize::try_from(limit).unwrap_or(0)
    }
}

/// # Safety
/// The value is live, and its text is not used after the value was freed or converted.
unsafe fn text_of<'v>(value: *mut ffi::sqlite3_value) -> Option<&'v [u8]> {
    // SAFETY: by contract. Bytes are counted after the conversion.
    unsafe {
        let start = ffi::sqlite3_value_text(value);
        let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        (!start.is_null()).then(|| std::slice::from_raw_parts(start, len))
    }
}

/// Memory of SQLite's, so that its limits count it.
struct Buffer {
    start: *mut u8,
    capacity: usize,
    len: usize,
}

impl Buffer {
    fn new(capacity: usize) -> Option<Self> {
        // SAFETY: an allocation of at least one byte, null when there is no memory.
        let start = unsafe { ffi::sqlite3_malloc64(capacity as u64 + 1) }.cast::<u8>();
        (!start.is_null()).then_some(Self {
            start,
            capacity,
            len: 0,
        })
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.capacity - self.len,
            "the size was counted before"
        );
        // SAFETY: there is room for them, as was just seen, and a new allocation overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(self.len), bytes.len()) };
        self.len += bytes.len();
    }

    /// Leaves the memory to SQLite.
    fn into_raw(self) -> (*mut u8, usize) {
        let this = std::mem::ManuallyDrop::new(self);
        (this.start, this.len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it came from SQLite's allocator and was not given away.
        unsafe { ffi::sqlite3_free(self.start.cast()) }
    }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    // SAFETY: SQLite calls it once, with what `Buffer::into_raw` gave.
    unsafe { ffi::sqlite3_free(memory) }
}

fn instr(call: &Call<'_>) {
    let types = (call.type_of(0), call.type_of(1));
    let at = match types {
        (ffi::SQLITE_NULL, _) | (_, ffi::SQLITE_NULL) => return,
        (ffi::SQLITE_BLOB, ffi::SQLITE_BLOB) => text::instr_blob(call.blob(0), call.blob(1)),
        (ffi::SQLITE_BLOB, _) | (_, ffi::SQLITE_BLOB) => {
            // Converted as copies, as SQLite does it: the arguments stay blobs.
            let (Some(haystack), Some(needle)) =
                (Copied::of(call.arguments[0]), Copied::of(call.arguments[1]))
            else {
                return call.no_memory();
            };
            if call.is_empty(1) {
                return call.number(1);
            }
            match (haystack.text(), needle.text()) {
                // Half a character of UTF-16: SQLite looks for the NUL that ends every text.
                (Some(haystack), Some([])) => match text::instr_text(haystack, &[0]) {
                    0 => text::chars(haystack) + 1,
                    at => at,
                },
                (Some(haystack), Some(needle)) => text::instr_text(haystack, needle),
                _ => return call.no_memory(),
            }
        }
        _ => match (call.text(0), call.text(1)) {
            (Some(haystack), Some(needle)) => text::instr_text(haystack, needle),
            _ => return call.no_memory(),
        },
    };
    call.number(at);
}

/// A copy of a value.
struct Copied(*mut ffi::sqlite3_value);

impl Copied {
    fn of(value: *mut ffi::sqlite3_value) -> Option<Self> {
        // SAFETY: the value is an argument of the call that is under way.
        let copy = unsafe { ffi::sqlite3_value_dup(value) };
        (!copy.is_null()).then_some(Self(copy))
    }

    fn text(&self) -> Option<&[u8]> {
        // SAFETY: the copy lives as long as this, and is converted once.
        unsafe { text_of(self.0) }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // SAFETY: it is this one's own.
        unsafe { ffi::sqlite3_value_free(self.0) }
    }
}

fn replace(call: &Call<'_>) {
    let (Some(text), Some(pattern)) = (call.text(0), call.text(1)) else {
        return;
    };
    if pattern.first().is_none_or(|byte| *byte == 0) {
        return call.copy(text);
    }
    let Some(replacement) = call.text(2) else { return };
    let count = text::occurrences(text, pattern);
    let size = text.len() - count * pattern.len() + count.saturating_mul(replacement.len());
    if size > text.len() && size > call.limit() {
        return call.too_big();
    }
    let Some(mut made) = Buffer::new(size) else {
        return call.no_memory();
    };
    text::replaced(text, pattern, replacement, |piece| made.push(piece));
    let (start, len) = made.into_raw();
    // SAFETY: the context is that of the call; SQLite takes the memory and frees it in any case.
    unsafe {
        ffi::sqlite3_result_text64(
            call.context,
            start.cast(),
            len as u64,
            Some(free),
            ffi::SQLITE_UTF8 as u8,
        );
    }
}

fn trim(call: &Call<'_>, ends: Ends) {
    if call.type_of(0) == ffi::SQLITE_NULL {
        return;
    }
    let Some(text) = call.text(0) else { return };
    let set = match call.arguments.len() {
        1 => b" ",
        _ => match call.text(1) {
            Some(set) if set.len() > LARGEST_SET => return call.too_big(),
            Some(set) => set,
            None => return,
        },
    };
    call.copy(text::trim(text, set, ends));
}

fn unhex(call: &Call<'_>) {
    let (Some(hex), Some(pass)) = (call.text(0), call.text(1)) else {
        return;
    };
    if pass.len() > LARGEST_SET {
        return call.too_big();
    }
    let Some(mut made) = Buffer::new(hex.len() / 2) else {
        return call.no_memory();
    };
    if text::unhex(hex, pass, |byte| made.push(&[byte])).is_none() {
        return;
    }
    let (start, len) = made.into_raw();
    // SAFETY: as in `replace`.
    unsafe { ffi::sqlite3_result_blob64(call.context, start.cast(), len as u64, Some(free)) }
}
