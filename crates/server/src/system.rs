//! What the process has open and what its disk has left, as far as the system tells.

use std::path::Path;

/// Open files and sockets.
pub(crate) fn descriptors() -> Option<usize> {
    let listed = entries("/proc/self/fd").or_else(|| entries("/dev/fd"))?;
    // Without the one that the list is read through.
    Some(listed.saturating_sub(1))
}

/// Threads.
pub(crate) fn threads() -> Option<usize> {
    entries("/proc/self/task")
}

/// Bytes that may still be written to the disk that a file or folder is on.
pub(crate) fn disk_free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn entries(folder: &str) -> Option<usize> {
    Some(std::fs::read_dir(folder).ok()?.count())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(descriptors().unwrap() > 2);
        assert!(threads().unwrap() > 0);
        assert!(disk_free(folder.path()).unwrap() > 0);
        assert!(disk_free(&folder.path().join("nothing")).is_none());
    }
}
