//! A share of requests as an exact fraction: what a route expresses, where [`Weight`] is what a plan asks for.
//!
//! Deliberately no rounding but in [`Share::rounded`], which says so.

use core::cmp::Ordering;
use core::fmt;

use crate::units::Weight;

/// `parts` of `of`, in lowest terms, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    parts: u64,
    of: u64,
}

impl Share {
    /// No request.
    pub const NONE: Self = Self { parts: 0, of: 1 };
    /// Every request.
    pub const WHOLE: Self = Self { parts: 1, of: 1 };

    /// `None` for a share of nothing, and for more than the whole.
    pub fn new(parts: u64, of: u64) -> Option<Self> {
        if of == 0 || parts > of {
            return None;
        }
        let divisor = gcd(parts, of);
        Some(Self { parts: parts / divisor, of: of / divisor })
    }

    /// The numerator.
    pub const fn parts(self) -> u64 {
        self.parts
    }

    /// The denominator; never 0.
    pub const fn of(self) -> u64 {
        self.of
    }

    /// Whether it is no share at all.
    pub const fn is_none(self) -> bool {
        self.parts == 0
    }

    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        self.parts as f64 / self.of as f64
    }

    /// The nearest share that a plan can ask for (thousandths of a percent).
    pub fn rounded(self) -> Weight {
        Weight::of(self.parts, self.of)
    }
}

impl From<Weight> for Share {
    fn from(weight: Weight) -> Self {
        Self::new(u64::from(weight.parts()), u64::from(Weight::WHOLE)).unwrap_or(Self::NONE)
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        (u128::from(self.parts) * u128::from(other.of)).cmp(&(u128::from(other.parts) * u128::from(self.of)))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Percent where it is exact to a thousandth (`10 %`, `0.5 %`), else the fraction (`1/3`).
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = self.rounded();
        if Self::from(rounded) == *self { rounded.fmt(f) } else { write!(f, "{}/{}", self.parts, self.of) }
    }
}

/// The greatest common divisor; never 0.
pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}
