//! Durations and sizes as people write them: `"30s"`, `"256MiB"`.

use std::time::Duration;

/// Units of size, the largest first. Powers of two only, so that there is one meaning.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Parses a size: an integer and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, with no space between.
///
/// Returns `None` for anything else, also for more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size so that [`parse_size`] gives it back, in the largest unit that divides it.
pub fn size_text(size: u64) -> String {
    let fits = |&&(_, bytes): &&(&str, u64)| size >= bytes && size.is_multiple_of(bytes);
    let (name, bytes) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", size / bytes)
}

/// Parses a duration: integers with units, such as `500ms`, `30s`, `1h 30m`, `30d`.
///
/// Returns `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Writes a duration so that [`parse_duration`] gives it back, in one unit. Days are used from two
/// on: a single one reads better as `24h`.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units: [(&str, u128, u128); 7] = [
        ("d", 86_400_000_000_000, 2),
        ("h", 3_600_000_000_000, 1),
        ("m", 60_000_000_000, 1),
        ("s", 1_000_000_000, 0),
        ("ms", 1_000_000, 1),
        ("us", 1_000, 1),
        ("ns", 1, 1),
    ];
    units
        .iter()
        .find(|(_, unit, least)| nanos.is_multiple_of(*unit) && nanos / unit >= *least)
        .map_or_else(String::new, |(name, unit, _)| {
            format!("{}{name}", nanos / unit)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, size: Option<u64>| assert_eq!(parse_size(text), size, "{text:?}");
        check("0B", Some(0));
        check("1B", Some(1));
        check("3KiB", Some(3072));
        check("256MiB", Some(268_435_456));
        check("1GiB", Some(1_073_741_824));
        check("2TiB", Some(2_199_023_255_552));
        check("18446744073709551615B", Some(u64::MAX));
        check("18446744073709551616B", None);
        check("16777216TiB", None);
        check("", None);
        check("5", None);
        check("GiB", None);
        check("1 GiB", None);
        check("1.5GiB", None);
        check("-1B", None);
        check("+1B", None);
        check("1GB", None);
        check("1gib", None);
    }

    #[test]
    fn sizes_written() {
        let check = |size, text: &str| {
            assert_eq!(size_text(size), text);
            assert_eq!(parse_size(text), Some(size));
        };
        check(0, "0B");
        check(1000, "1000B");
        check(1536, "1536B");
        check(1 << 20, "1MiB");
        check(3 << 30, "3GiB");
        check(u64::MAX, "18446744073709551615B");
    }

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("30s", Some(30_000));
        check("500ms", Some(500));
        check("2m", Some(120_000));
        check("1h 30m", Some(5_400_000));
        check("1h30m", Some(5_400_000));
        check("30d", Some(2_592_000_000));
        check("0s", Some(0));
        check("", None);
        check("30", None);
        check("s", None);
        check("-1s", None);
        check("soon", None);
    }

    #[test]
    fn durations_written() {
        let check = |millis, text: &str| {
            let duration = Duration::from_millis(millis);
            assert_eq!(duration_text(duration), text);
            assert_eq!(parse_duration(text), Some(duration));
        };
        check(0, "0s");
        check(50, "50ms");
        check(1_500, "1500ms");
        check(30_000, "30s");
        check(90_000, "90s");
        check(3_600_000, "1h");
        check(86_400_000, "24h");
        check(172_800_000, "2d");
        assert_eq!(duration_text(Duration::from_nanos(1_001)), "1001ns");
    }
}
