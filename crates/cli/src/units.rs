//! Sizes and times as people write them: `128k`, `16 MiB`, `24h`, `500ms`.

use std::time::Duration;

/// Bytes: a number, with k, m, g or t (powers of 1024) behind it, and `B` or `iB` after that if one likes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit
        .trim_end_matches(['b', 'B'])
        .trim_end_matches('i')
        .to_ascii_lowercase()
        .as_str()
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{unit}` is no unit of size; use k, m, g or t")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no size; write a number like 131072 or 128k"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// A time: a number with ms, s, m, h or d behind it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no time; write it like 30s, 500ms or 24h"))?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(format!("`{text}` has no unit of time; use ms, s, m, h or d")),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is too long"))
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim())
}

/// Bytes for people: `16.4 MiB`.
pub fn shown_bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value.fract() == 0.0 {
        format!("{value} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A number with its thousands set apart: `138,398`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 page", "2 pages".
pub fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("128k"), Ok(128 * 1024));
        assert_eq!(bytes("16 MiB"), Ok(16 << 20));
        assert_eq!(bytes("1GB"), Ok(1 << 30));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86400)));
    }

    #[test]
    fn anything_else_is_refused_with_a_hint() {
        for text in ["", "k", "-1", "1x", "99999999999999999999", "99999999t"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "1y",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!(shown_bytes(512), "512 bytes");
        assert_eq!(shown_bytes(131_072), "128 KiB");
        assert_eq!(shown_bytes(17_196_646), "16.4 MiB");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "page"), "1 page");
        assert_eq!(counted(1000, "page"), "1,000 pages");
    }
}
