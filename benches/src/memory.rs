//! How much memory this process has, in KiB, as Linux tells it.

/// In use now.
pub(crate) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most since the start, or since [`forget_peak`].
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Forgets the peak so far, and gives what is in use.
pub(crate) fn forget_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    resident()
}

fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
