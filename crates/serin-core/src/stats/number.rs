//! Custom queries that yield a plain number: a limit, and not a test.
//!
//! Section 7. A number of unknown law carries no promise about errors, and none is made: readings in a row are counted, as people do. A query that yields
//! two counters belongs into `Analysis` instead. Deliberately outside alpha and beta.

use serde::{Deserialize, Serialize};

/// Missing readings in a row after which the step is held.
const MISSING_HOLDS: u32 = 5;

/// What the owner allows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberLimit {
    /// Readings below are bad.
    pub min: Option<f64>,
    /// Readings above are bad.
    pub max: Option<f64>,
    /// Bad readings in a row that end the rollout, and good ones that a step needs; 0 counts as 1.
    pub in_a_row: u32,
}

/// Readings of one number, in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberReadings {
    good: u32,
    bad: u32,
    missing: u32,
}

/// What they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NumberVerdict {
    /// Bad so many times in a row.
    Broken,
    /// Good so many times in a row.
    Kept,
    /// Not there so many times in a row: hold, and say which.
    Missing,
    /// Neither yet.
    Open,
}

impl NumberReadings {
    /// Adds a reading; none, or one that is no number, is missing: it counts for neither side and breaks no row.
    pub fn update(&mut self, limit: &NumberLimit, value: Option<f64>) {
        match value.filter(|v| !v.is_nan()) {
            None => self.missing = self.missing.saturating_add(1),
            Some(v) => {
                self.missing = 0;
                if limit.min.is_some_and(|min| v < min) || limit.max.is_some_and(|max| v > max) {
                    (self.bad, self.good) = (self.bad.saturating_add(1), 0);
                } else {
                    (self.good, self.bad) = (self.good.saturating_add(1), 0);
                }
            }
        }
    }

    /// Good ones in a row.
    pub fn good(&self) -> u32 {
        self.good
    }

    /// Bad ones in a row.
    pub fn bad(&self) -> u32 {
        self.bad
    }

    /// Missing ones in a row.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// A step's start: it needs good readings of its own.
    pub fn start_step(&mut self) {
        self.good = 0;
    }

    /// What the readings so far say.
    pub fn verdict(&self, limit: &NumberLimit) -> NumberVerdict {
        let enough = limit.in_a_row.max(1);
        if self.bad >= enough {
            NumberVerdict::Broken
        } else if self.missing >= MISSING_HOLDS {
            NumberVerdict::Missing
        } else if self.good >= enough {
            NumberVerdict::Kept
        } else {
            NumberVerdict::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NumberLimit = NumberLimit { min: Some(10.0), max: None, in_a_row: 3 };

    fn after(values: &[Option<f64>]) -> NumberVerdict {
        let mut r = NumberReadings::default();
        values.iter().for_each(|v| r.update(&LIMIT, *v));
        r.verdict(&LIMIT)
    }

    #[test]
    fn three_bad_in_a_row_break_the_limit_and_a_good_one_between_saves_it() {
        assert_eq!(after(&[Some(9.0); 3]), NumberVerdict::Broken);
        assert_eq!(after(&[Some(9.0), Some(9.0), Some(10.0), Some(9.0), Some(9.0)]), NumberVerdict::Open);
    }

    #[test]
    fn missing_counts_for_neither_and_five_hold() {
        assert_eq!(after(&[Some(9.0), None, Some(9.0), Some(f64::NAN), Some(9.0)]), NumberVerdict::Broken);
        assert_eq!(after(&[Some(11.0), None, Some(11.0), None, Some(11.0)]), NumberVerdict::Kept);
        assert_eq!(after(&[Some(11.0), Some(11.0), Some(11.0), None, None, None, None, None]), NumberVerdict::Missing);
        assert_eq!(after(&[]), NumberVerdict::Open);
    }

    #[test]
    fn infinity_is_a_number_and_may_break_a_limit() {
        assert_eq!(after(&[Some(f64::NEG_INFINITY); 3]), NumberVerdict::Broken);
    }
}
