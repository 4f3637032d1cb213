//! How many files and sockets the process may have open at a time.

/// Raises the limit to the highest that the system allows without asking an administrator, and says what it is. For a
/// program, at its start: a library does not change the limits of the process that it is in.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

/// The limit; `None` = there is none that this system would tell.
pub(crate) fn allowed() -> Option<u64> {
    rlimit::Resource::NOFILE.get_soft().ok()
}
