//! The limits that have no flag, as sections of the configuration file. A field of the server's options that has neither a key
//! here nor a flag does not compile.

use std::time::Duration;

use partial_sync_server::{Limits, hrana::HranaOptions, pages::QueryLimits};

use super::file::Value;
use crate::units;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tuning {
    pub limits: Limits,
    pub sql: HranaOptions,
    pub queries: QueryLimits,
}

/// What a key sets, which says how its value is written.
enum Place<'a> {
    Count(&'a mut usize),
    Pages(&'a mut u64),
    Bytes(&'a mut usize),
    /// Bytes, perhaps none.
    Size(&'a mut u64),
    /// Bytes; not set unless the file does.
    MaybeSize(&'a mut Option<u64>),
    Time(&'a mut Duration),
    /// A time that may be zero.
    Wait(&'a mut Duration),
}

const MOST: u64 = 1_000_000_000;
const MOST_BYTES: u64 = 1 << 50;
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

impl Place<'_> {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let number = |value: &Value, most| {
            let number = match value {
                Value::Number(number) => *number,
                Value::Text(text) => units::bytes(text)?,
                _ => return Err("write a number like 4096, or a size like \"16m\"".to_owned()),
            };
            match number {
                0 => Err("it must be at least 1".to_owned()),
                number if number > most => Err(format!("it may be {most} at most")),
                number => Ok(number),
            }
        };
        let small = |value: &Value, most| {
            let number = number(value, most)?;
            usize::try_from(number).map_err(|_| format!("it may be {} at most", usize::MAX))
        };
        let zero = matches!(value, Value::Number(0)) || *value == Value::Text("0".to_owned());
        match self {
            Self::Count(place) => **place = small(value, MOST)?,
            Self::Bytes(place) => **place = small(value, MOST_BYTES)?,
            Self::Pages(place) => **place = number(value, MOST)?,
            Self::Size(place) if zero => **place = 0,
            Self::Size(place) => **place = number(value, MOST_BYTES)?,
            Self::MaybeSize(place) => **place = Some(number(value, MOST_BYTES)?),
            Self::Time(place) | Self::Wait(place) => {
                let Value::Text(text) = value else {
                    return Err("write a time as a text with its unit, like \"30s\" or \"5m\"".to_owned());
                };
                match units::duration(text)? {
                    time if time > LONGEST => return Err("it may be ten years (3650d) at most".to_owned()),
                    time => **place = time,
                }
            }
        }
        match self {
            Self::Time(place) if place.is_zero() => Err("it must be longer than zero".to_owned()),
            _ => Ok(()),
        }
    }

    /// The value as it is written in a file; `None` = not set.
    fn shown(&self) -> Option<String> {
        Some(match self {
            Self::Count(number) => number.to_string(),
            Self::Pages(number) => number.to_string(),
            Self::Bytes(bytes) => shown_bytes(**bytes as u64),
            Self::Size(bytes) => shown_bytes(**bytes),
            Self::MaybeSize(bytes) => shown_bytes((**bytes)?),
            Self::Time(time) | Self::Wait(time) => format!("\"{}\"", humantime::format_duration(**time)),
        })
    }
}

/// A size that is read as the same number.
fn shown_bytes(bytes: u64) -> String {
    let unit = [('g', 30), ('m', 20), ('k', 10)];
    let unit = unit
        .into_iter()
        .find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    match unit {
        Some((unit, shift)) => format!("\"{}{unit}\"", bytes >> shift),
        None => bytes.to_string(),
    }
}

type Visit<'a> = &'a mut dyn FnMut(&'static str, &str, Place<'_>);

/// `flags` are set by flags, under their names.
macro_rules! section {
    ($visit:ident, $section:literal, $options:expr, $type:ident {
        $($field:ident: $kind:ident,)*
    } $(flags { $($flag:ident),* })?) => {
        let $type { $($field,)* $($($flag: _,)*)? } = $options;
        $($visit($section, &stringify!($field).replace('_', "-"), Place::$kind($field));)*
    };
}

impl Tuning {
    /// Shows each key, with its section, and the place of its value.
    fn visit(&mut self, visit: Visit<'_>) {
        section!(
            visit,
            "limits",
            &mut self.limits,
            Limits {
                connections: Count,
                connections_per_address: Count,
                requests: Count,
                requests_per_caller: Count,
                head_time: Time,
                idle_time: Time,
                body_time: Time,
                stall_time: Time,
                body: Bytes,
                body_read_only: Bytes,
                body_pages: Bytes,
                bodies: Bytes,
                disk_reserve: Size,
            }
        );
        section!(visit, "sql", &mut self.sql, HranaOptions {
            baton_idle: Time,
            transaction_timeout: Time,
            busy_timeout: Wait,
            statement_timeout: Time,
            request_timeout: Time,
            answer_bytes: Bytes,
            all_answer_bytes: Bytes,
            value_bytes: Bytes,
            reader_value_bytes: Bytes,
            reader_pattern_bytes: Bytes,
            reader_memory_bytes: MaybeSize,
            batch_steps: Count,
            pipeline_requests: Count,
            concurrent_requests: Count,
            caller_requests: Count,
            batons: Count,
            caller_batons: Count,
            wal_bytes: Size,
            read_grace: Wait,
            idle_connections: Count,
        } flags { temporary_bytes });
        section!(
            visit,
            "queries",
            &mut self.queries,
            QueryLimits {
                time: Time,
                pages: Pages,
                value_bytes: Bytes,
                pattern_bytes: Bytes,
                memory_bytes: MaybeSize,
                temporary_bytes: Size,
                at_once: Count,
                of_caller: Count,
            }
        );
    }

    /// Sets a key. `None` = there is no such key.
    pub(super) fn set(&mut self, section: &str, key: &str, value: &Value) -> Option<Result<(), String>> {
        let mut done = None;
        self.visit(&mut |in_section, known, mut place| {
            if (in_section, known) == (section, key) {
                done = Some(place.set(value));
            }
        });
        done
    }

    /// The names of the sections.
    pub(super) fn sections() -> Vec<&'static str> {
        let mut sections: Vec<_> = Self::default()
            .shown()
            .iter()
            .map(|(section, ..)| *section)
            .collect();
        sections.dedup();
        sections
    }

    /// Section, key and value of each, as in a file; a value that is not set is `None`.
    pub(super) fn shown(&self) -> Vec<(&'static str, String, Option<String>)> {
        let mut shown = Vec::new();
        self.clone().visit(&mut |section, key, place| {
            shown.push((section, key.to_owned(), place.shown()));
        });
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_limit_sets_it() {
        let mut tuning = Tuning::default();
        for (section, key, shown) in Tuning::default().shown() {
            let Some(shown) = shown else { continue };
            let value = match (shown.strip_prefix('"'), shown.parse()) {
                (Some(text), _) => Value::Text(text.trim_end_matches('"').to_owned()),
                (None, number) => Value::Number(number.unwrap()),
            };
            assert_eq!(
                tuning.set(section, &key, &value),
                Some(Ok(())),
                "{section}.{key} = {shown}"
            );
        }
        assert_eq!(tuning.shown(), Tuning::default().shown());
    }

    #[test]
    fn a_limit_that_would_stop_the_server_is_refused() {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut tuning = Tuning::default();
        for (section, key, value) in [
            ("limits", "connections", Value::Number(0)),
            ("limits", "connections", Value::Number(u64::MAX)),
            ("limits", "connections", Value::Flag(true)),
            ("limits", "head-time", text("0s")),
            ("limits", "head-time", text("18446744073709551615s")),
            ("limits", "head-time", Value::Number(10)),
            ("limits", "body", text("99999t")),
            ("sql", "value-bytes", text("much")),
            ("queries", "pages", text("0")),
        ] {
            assert!(
                tuning.set(section, key, &value).unwrap().is_err(),
                "{key} = {value:?}"
            );
        }
        for (section, key, value) in [
            ("limits", "disk-reserve", Value::Number(0)),
            ("sql", "read-grace", text("0s")),
            ("limits", "body", text("16 MiB")),
        ] {
            assert_eq!(tuning.set(section, key, &value), Some(Ok(())), "{key}");
        }
        assert!(
            tuning
                .set("limits", "temporary-bytes", &Value::Number(1))
                .is_none()
        );
    }
}
