//! Does the canary get the share that was set?
//!
//! Section 7. Within a step the requests to the canary among all are tested against the weight, give or take 15 % of the odds. A
//! contradiction holds a rollout and never ends it: sticky sessions, few clients or callers outside the mesh are the usual causes.
//! Which requests follow the weight at all (match traffic does not) is the caller's knowledge.

use alloc::string::String;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bet::limit_ln_s;
use super::codec::{Reader, Writer};
use super::counts::Counts;

const FORMAT: u8 = 1;
/// Odds within this factor of those that were set are as good as set: pools of few clients are never exact.
const TOLERANCE: f64 = 1.15;
/// How many times the tolerated odds each bet expects, upwards and downwards.
const FACTORS: [f64; 4] = [1.1, 1.5, 3.0, 10.0];
/// A false alarm in a thousand steps at most: what holds here is often a bias that nobody can mend at once.
const ALARM: f64 = 1000.0;
/// With so many requests expected and none seen, there is no doubt.
const EXPECTED_AND_NONE: f64 = 12.0;

/// The share that was seen in one step, against the weight that is set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Split {
    weight: f64,
    total: f64,
    canary: f64,
}

/// What contradicts the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitAlarm {
    /// The share is another.
    Share,
    /// No request at all reaches the canary.
    NoneReachesCanary,
}

impl Split {
    /// A step's start, or a new start after whatever made it wrong was mended.
    pub const fn new() -> Self {
        Self { weight: 0.0, total: 0.0, canary: 0.0 }
    }

    /// Adds a poll: the canary's share as set (a fraction; at 0 and 1 nothing is tested), requests to both arms, and to the canary
    /// among them. Another weight starts anew. Polls of the first 30 seconds after a change are better left out.
    pub fn update(&mut self, weight: f64, total: f64, canary: f64) {
        let weight = if weight > 0.0 && weight < 1.0 { weight } else { 0.0 };
        if weight != self.weight {
            *self = Self { weight, ..Self::new() };
        }
        let poll = Counts::new(total, canary).clean();
        self.total += poll.n;
        self.canary += poll.x;
    }

    /// Logarithm of the evidence that the share is not the weight.
    pub fn ln_e(&self) -> f64 {
        if self.weight <= 0.0 || self.total <= 0.0 {
            return 0.0;
        }
        let odds = self.weight / (1.0 - self.weight);
        let share = |odds: f64| (odds / (1.0 + odds)).clamp(1e-300, 1.0 - 1e-16);
        let mut ln = [0.0; 2 * FACTORS.len()];
        for (i, factor) in FACTORS.into_iter().enumerate() {
            let (hi, lo) = (odds * TOLERANCE, odds / TOLERANCE);
            ln[2 * i] = limit_ln_s(self.total, self.canary, share(hi * factor), share(hi));
            ln[2 * i + 1] = limit_ln_s(self.total, self.canary, share(lo / factor), share(lo));
        }
        let top = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + libm::log(ln.iter().map(|l| libm::exp(l - top)).sum::<f64>() / ln.len() as f64)
    }

    /// Whether the share contradicts the weight now. It goes away by itself as requests come that follow it.
    pub fn alarm(&self) -> bool {
        self.contradiction().is_some()
    }

    /// How it does.
    pub fn contradiction(&self) -> Option<SplitAlarm> {
        let none = self.canary <= 0.0;
        let expected = none && self.total * self.weight >= EXPECTED_AND_NONE;
        match (none, expected || self.ln_e() >= libm::log(ALARM)) {
            (_, false) => None,
            (true, true) => Some(SplitAlarm::NoneReachesCanary),
            (false, true) => Some(SplitAlarm::Share),
        }
    }

    /// The canary's share as seen; 0 without requests.
    pub fn seen(&self) -> f64 {
        Counts::new(self.total, self.canary).rate()
    }

    /// Requests to both arms.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Requests to the canary among them.
    pub fn canary(&self) -> f64 {
        self.canary
    }
}

impl Serialize for Split {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut w = Writer::new();
        [self.weight, self.total, self.canary].into_iter().for_each(|n| w.number(n));
        serializer.serialize_str(&w.finish(FORMAT))
    }
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let mut r = Reader::new(text, FORMAT)?;
            let split = Self { weight: r.number()?, total: r.number()?, canary: r.number()? };
            r.end().map(|()| split)
        };
        read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_thousand_contradicts_ten_percent() {
        let mut s = Split::new();
        s.update(0.1, 4812.0, 2396.0);
        assert_eq!(s.contradiction(), Some(SplitAlarm::Share));
        assert!((s.seen() - 0.498).abs() < 1e-3);
    }

    #[test]
    fn what_was_set_is_no_alarm_and_a_new_weight_starts_anew() {
        let mut s = Split::new();
        for _ in 0..1000 {
            s.update(0.1, 100.0, 10.0);
        }
        assert_eq!(s.contradiction(), None);
        s.update(0.25, 100.0, 25.0);
        assert_eq!((s.total(), s.canary()), (100.0, 25.0));
    }

    #[test]
    fn twelve_expected_and_none_seen_is_an_alarm() {
        let mut s = Split::new();
        s.update(0.01, 800.0, 0.0);
        assert_eq!(s.contradiction(), None);
        s.update(0.01, 400.0, 0.0);
        assert_eq!(s.contradiction(), Some(SplitAlarm::NoneReachesCanary));
    }

    #[test]
    fn an_alarm_ends_when_the_callers_follow_again() {
        let mut s = Split::new();
        s.update(0.1, 500.0, 250.0);
        assert!(s.contradiction().is_some());
        for _ in 0..100 {
            s.update(0.1, 500.0, 50.0);
        }
        assert_eq!(s.contradiction(), None);
    }

    #[test]
    fn all_or_nothing_is_not_tested() {
        for weight in [0.0, 1.0, -1.0, 2.0, f64::NAN] {
            let mut s = Split::new();
            s.update(weight, 1000.0, 500.0);
            assert_eq!((s.ln_e(), s.contradiction()), (0.0, None));
        }
    }
}
