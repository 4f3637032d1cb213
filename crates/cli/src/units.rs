//! Sizes, times and counts as people write and read them: `128k`, `16 MiB`, `24h`, `138,398`.

use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use indicatif::HumanCount;
use partial_sync_ltx::TxId;

/// Bytes: a number, followed by k, m, g, t or p if one likes, and by `B` or `iB` after that. All are powers of 1024, also
/// those without an `i`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(['b', 'B']).trim_end_matches('i').trim_end();
    if let Ok(bytes) = number.parse() {
        return Ok(bytes);
    }
    match format!("{number}iB").parse() {
        // What does not fit comes out as the highest number.
        Ok(ByteSize(u64::MAX)) => Err(format!("`{text}` is too large")),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err(format!(
            "`{text}` is not a size; write a number like 131072, or one with k, m, g or t like 128k"
        )),
    }
}

/// A time: numbers, each with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 30s, 500ms or 24h"))
}

/// Which state of a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// That after a transaction.
    Id(TxId),
    /// The last one that was committed then: milliseconds since 1970.
    Time(i64),
}

/// An id, or a time.
pub(crate) fn at(text: &str) -> Result<At, String> {
    if let Some(id) = TxId::parse(text) {
        return Ok(At::Id(id));
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| {
        format!("{error}; write a time like 2026-11-30T17:30:00Z, or an id of 16 digits as `log` prints it")
    })?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(At::Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

/// An address to listen on: a name or address, and a port.
pub(crate) fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err(format!(
            "`{text}` is not an address with a port; write it like 127.0.0.1:8080 or [::1]:8080"
        )),
    }
}

/// So many differences are listed for a person; JSON has all.
pub(crate) const LISTED: usize = 20;

/// Bytes for people: `16.4 MiB`.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A number with its thousands set apart: `138,398`.
pub(crate) fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// "1 page", "2 pages".
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("4096 ", 4096),
            ("128k", 128 << 10),
            ("128K", 128 << 10),
            ("128ki", 128 << 10),
            ("128kb", 128 << 10),
            ("128 KiB", 128 << 10),
            ("16 MiB", 16 << 20),
            ("16m", 16 << 20),
            ("1GB", 1 << 30),
            ("1g", 1 << 30),
            ("3t", 3 << 40),
            ("2 TB", 2 << 40),
            ("1.5k", 1536),
            ("9007199254740993", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, time) in [
            ("500ms", Duration::from_millis(500)),
            ("0s", Duration::ZERO),
            ("30s", Duration::from_secs(30)),
            ("30 s", Duration::from_secs(30)),
            ("5m", Duration::from_secs(300)),
            ("24h", Duration::from_secs(86_400)),
            ("7d ", Duration::from_secs(7 * 86_400)),
            ("1h 30min", Duration::from_secs(5400)),
            ("18446744073709551615s", Duration::from_secs(u64::MAX)),
        ] {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_hint() {
        for text in [
            "",
            "k",
            "iB",
            "-1",
            "1x",
            "1 2k",
            "1..5k",
            "99999999999999999999",
            "99999999t",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "1x",
            "-1s",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            let refused = duration(text).unwrap_err();
            assert!(refused.contains("30s"), "{text}: {refused}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        for text in ["127.0.0.1:0", "[::1]:8080", "localhost:8080", ":::80"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "8080",
            ":8080",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "http://localhost",
        ] {
            assert!(address(text).unwrap_err().contains("[::1]:8080"), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!(shown_bytes(512), "512 B");
        assert_eq!(shown_bytes(131_072), "128.0 KiB");
        assert_eq!(shown_bytes(17_196_646), "16.4 MiB");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "page"), "1 page");
        assert_eq!(counted(1000, "page"), "1,000 pages");
    }
}
