//! Seeded draws: which request fails, and how long one takes. The same seed gives the same sequence.
//!
//! This is no cryptography; SplitMix64 (Steele, Lea, Flood 2014) is two lines and passes BigCrush.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A share of requests, from none to all, kept as a threshold of 64-bit draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// No request.
    pub const NONE: Self = Self(0.0);

    /// Whether a draw falls into the share.
    pub fn hits(self, draw: u64) -> bool {
        unit(draw) < self.0
    }
}

impl FromStr for Share {
    type Err = ();

    /// `5%`, `0.05`, `1` (all).
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let share = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map_err(|_| ())? / 100.0,
            None => text.parse::<f64>().map_err(|_| ())?,
        };
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(()) }
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// No time.
    None,
    /// Always the same: `20ms`.
    Fixed(Duration),
    /// Anything between, all equally likely: `10ms-50ms`.
    Uniform(Duration, Duration),
    /// Exponential with this mean, cut at twenty times the mean: `exp:20ms`.
    Exponential(Duration),
}

impl Delay {
    /// The time for one draw.
    pub fn draw(self, draw: u64) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Fixed(time) => time,
            Self::Uniform(from, to) => from + (to - from).mul_f64(unit(draw)),
            Self::Exponential(mean) => mean.mul_f64((-(1.0 - unit(draw)).ln()).min(20.0)),
        }
    }
}

impl FromStr for Delay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        use super::settings::duration;
        let text = text.trim();
        if let Some(mean) = text.strip_prefix("exp:") {
            return duration(mean).map(Self::Exponential).ok_or(());
        }
        if let Some(time) = duration(text) {
            return Ok(if time.is_zero() { Self::None } else { Self::Fixed(time) });
        }
        let (from, to) = text.split_once("..").or_else(|| text.split_once('-')).ok_or(())?;
        match (duration(from), duration(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self::Uniform(from, to)),
            _ => Err(()),
        }
    }
}

/// A sequence of draws, shared by the requests in the order in which they come.
#[derive(Debug)]
pub struct Draws(AtomicU64);

impl Draws {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next draw.
    pub fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a with 64 bits: a stable number from a name.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A draw as a number from 0 up to, never equal to, 1: its upper 53 bits.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let take = |seed| {
            let draws = Draws::new(seed);
            (0..8).map(|_| draws.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(42), take(42));
        assert_ne!(take(42), take(43));
        // The first number of the published reference implementation for seed 0.
        assert_eq!(Draws::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_share_is_hit_as_often_as_it_says() {
        let draws = Draws::new(1);
        let share: Share = "5%".parse().unwrap();
        let hits = (0..100_000).filter(|_| share.hits(draws.next())).count();
        // Five standard deviations of a binomial with n = 100,000 and p = 0.05 are 345.
        assert!((4_655..=5_345).contains(&hits), "{hits}");
        assert!(!Share::NONE.hits(0));
        assert!("1".parse::<Share>().unwrap().hits(u64::MAX));
    }

    #[test]
    fn delays_stay_within_what_they_say() {
        let ms = Duration::from_millis;
        let draws = Draws::new(9);
        for _ in 0..1_000 {
            let uniform = "10ms-50ms".parse::<Delay>().unwrap().draw(draws.next());
            assert!((ms(10)..=ms(50)).contains(&uniform), "{uniform:?}");
            assert!("exp:20ms".parse::<Delay>().unwrap().draw(draws.next()) <= ms(400));
        }
        assert_eq!("0".parse::<Delay>(), Ok(Delay::None));
        assert_eq!("50ms-10ms".parse::<Delay>(), Err(()));
    }
}
