//! Points in time as people and names carry them: UTC, to the second.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since 1970-01-01 00:00 UTC.
///
/// For names, logs and the catalogue of kept versions. Nothing is ever decided by comparing two of
/// these from different machines.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UtcMs(pub u64);

impl UtcMs {
    /// Returns year, month, day, hour, minute, second.
    ///
    /// The calendar is computed as in Howard Hinnant, "chrono-compatible low-level date
    /// algorithms", `civil_from_days`.
    fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let seconds = self.0 / 1000;
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        (
            year,
            month,
            day,
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
        )
    }

    /// Returns the time at which a UTC calendar date and time of day begins; `None` before 1970.
    ///
    /// The inverse of what is shown, after Howard Hinnant's `days_from_civil`.
    fn from_civil(year: u64, month: u64, day: u64, seconds: u64) -> Option<Self> {
        let year = if month <= 2 {
            year.checked_sub(1)?
        } else {
            year
        };
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
        let year_of_era = year % 400;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (year / 400 * 146_097 + day_of_era).checked_sub(719_468)?;
        Some(Self((days * 86_400 + seconds) * 1000))
    }

    /// Reads a time as [`UtcMs::for_name`] writes it.
    pub fn from_name(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(' ')?;
        let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let time: u64 = (time.len() == 6).then(|| time.parse().ok())??;
        let (hour, minute, second) = (time / 10_000, time / 100 % 100, time % 100);
        let valid = year < 10_000
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        valid.then(|| Self::from_civil(year, month, day, hour * 3600 + minute * 60 + second))?
    }

    /// Returns the time as it stands in the name of a conflict copy: `2026-11-22 211405`.
    ///
    /// There is no colon in it, because Finder shows one as a slash and some volumes refuse it.
    pub fn for_name(self) -> String {
        let (year, month, day, hour, minute, second) = self.civil();
        format!("{year:04}-{month:02}-{day:02} {hour:02}{minute:02}{second:02}")
    }
}

impl fmt::Display for UtcMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        let check = |ms, shown: &str| assert_eq!(UtcMs(ms).to_string(), shown);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(951_868_800_000, "2000-03-01T00:00:00Z");
        check(1_795_382_045_999, "2026-11-22T21:14:05Z");
        check(4_102_444_799_000, "2099-12-31T23:59:59Z");
        assert_eq!(UtcMs(1_795_382_045_000).for_name(), "2026-11-22 211405");
    }

    #[test]
    fn a_name_is_read_back() {
        for seconds in [0, 951_782_400, 951_868_800, 1_795_382_045, 4_102_444_799] {
            let time = UtcMs(seconds * 1000);
            assert_eq!(UtcMs::from_name(&time.for_name()), Some(time));
        }
        for wrong in [
            "",
            "2026-11-22",
            "2026-13-01 000000",
            "2026-11-22 250000",
            "x-y-z 000000",
            "0000-01-01 000000",
        ] {
            assert_eq!(UtcMs::from_name(wrong), None, "{wrong}");
        }
    }
}
