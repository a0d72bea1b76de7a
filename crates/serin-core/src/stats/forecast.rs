//! How long a verdict will take, before and while it is waited for.
//!
//! Section 8. Evidence is a walk whose drift and spread per canary request follow from the rates; when it first reaches what convicts or
//! acquits is inverse Gaussian. Within 15 % of simulation wherever it is longer than two polls. Deliberately promises nothing: it is no test.

use super::analysis::{Analysis, MetricTest, Settings, Test};
use super::bet::bet;
use super::fitness::{GROSS_MARGIN, LIMIT_PARTS, PassEvidence, SHARES};
use super::special::inverse_gaussian_quantile;

/// What harm has to earn: half of the money is staked in the first step, on half of the budget, and `ln 20` convicts.
pub const HARM_EVIDENCE: f64 = 7.0;

/// Evidence per canary request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Its mean.
    pub drift: f64,
    /// Its variance.
    pub variance: f64,
    /// What the kindest possible request brings.
    pub most: f64,
}

/// Canary requests until a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needed {
    /// Fewer never suffice.
    pub least: f64,
    /// Enough in half of all cases.
    pub median: f64,
    /// Enough in nine of ten.
    pub ninety: f64,
}

/// The evidence that a fit canary (as good as stable, whose rate is `p`) gathers per request at this share of the requests. `None`: it never will.
pub fn pass_speed(p: f64, weight: f64, margin: f64, ratio: f64) -> Option<Speed> {
    speed(p, p, weight, margin, ratio, Toward::Pass)
}

/// The evidence against a canary of rate `p_canary` beside stable's `p`. `None`: it is not worse.
pub fn harm_speed(p: f64, p_canary: f64, weight: f64, margin: f64, ratio: f64) -> Option<Speed> {
    if p_canary > margin + ratio * p { speed(p, p_canary, weight, margin, ratio, Toward::Harm) } else { None }
}

#[derive(Clone, Copy, PartialEq)]
enum Toward {
    Harm,
    Pass,
}

fn speed(p: f64, t: f64, weight: f64, margin: f64, ratio: f64, toward: Toward) -> Option<Speed> {
    let inside = |v: f64| v > 0.0 && v < 1.0;
    let Test::Compare { margin, ratio } = (Test::Compare { margin, ratio }).clean() else { return None };
    if !inside(p) || !inside(t) || !inside(weight) {
        return None;
    }
    let r = (1.0 - weight) / weight;
    let null = bet(1.0, r, margin, ratio, p, t);
    let (x, y) = (null.x_null, null.y_null);
    if !inside(x) || !inside(y) {
        return None;
    }
    let ln = |a: f64, b: f64| libm::log1p((a - b) / b);
    let (c1, c0) = (ln(t, y), ln(1.0 - t, 1.0 - y));
    let (s1, s0) = (ln(p, x), ln(1.0 - p, 1.0 - x));
    let of_stable = r * (p * s1 + (1.0 - p) * s0);
    let kindest = if toward == Toward::Pass { c0 } else { c1 };
    let drift = t * c1 + (1.0 - t) * c0 + of_stable;
    let variance = t * (1.0 - t) * (c1 - c0) * (c1 - c0) + r * p * (1.0 - p) * (s1 - s0) * (s1 - s0);
    found(Speed { drift, variance, most: kindest + of_stable })
}

fn found(s: Speed) -> Option<Speed> {
    let sound = |v: f64| v.is_finite() && v > 0.0;
    (sound(s.drift) && sound(s.variance) && sound(s.most)).then_some(s)
}

/// The evidence that a canary of rate `p` gathers per request against a limit. `None`: it never passes.
pub fn limit_pass_speed(p: f64, max: f64) -> Option<Speed> {
    if !(p > 0.0 && max > p && max < 1.0) {
        return None;
    }
    let of = |part: &f64| {
        let theta = part * max;
        let (c1, c0) = (libm::log(theta / max), libm::log1p(-theta) - libm::log1p(-max));
        Speed { drift: p * c1 + (1.0 - p) * c0, variance: p * (1.0 - p) * (c1 - c0) * (c1 - c0), most: c0 }
    };
    LIMIT_PARTS.iter().map(of).reduce(|a, b| if b.drift > a.drift { b } else { a }).and_then(found)
}

/// What fitness has to earn from nothing, when nearly all of it comes from the first bet: `ln(1/beta) + ln(1/0.6)`.
pub fn pass_evidence_needed(beta: f64) -> f64 {
    -libm::log(beta.clamp(1e-12, 1.0)) - libm::log(SHARES[0])
}

/// Canary requests until so much evidence is there.
pub fn needed(speed: Speed, evidence: f64) -> Needed {
    let l = evidence.max(1e-9);
    let least = l / speed.most;
    let (mean, phi) = (l / speed.drift, l * speed.drift / speed.variance);
    let at = |p: f64| (mean * inverse_gaussian_quantile(p, phi)).max(least);
    Needed { least, median: at(0.5), ninety: at(0.9) }
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// The canary's share of them, as a fraction.
    pub weight: f64,
    /// Requests a second to both versions together.
    pub rate: f64,
    /// The burst factor: how many times more of them it takes (1: no bursts).
    pub bursts: f64,
}

/// Minutes for so many canary requests. Without traffic it takes for ever, which is a very large number.
pub fn minutes(requests: f64, s: &Stream) -> f64 {
    let per_minute = s.weight * s.rate * 60.0;
    if per_minute > 0.0 { (requests * s.bursts.max(1.0) / per_minute).min(f64::MAX) } else { f64::MAX }
}

/// Coarser margins that a step may ask for when the plan's own would take too long, as multiples of it.
const GRADES: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];
/// No graded margin is coarser than 5 points: what passes there would mean nothing.
const COARSEST: f64 = 0.05;

/// Section 8's graded margin: the smallest of m, 2m, 5m, 10m, 20m (none above 5 points) whose 90 % forecast fits into the time, to be chosen at a step's start and
/// kept. `None` if none fits. The last confirm step has to ask for m itself, or the promise is given up.
pub fn graded_margin(p: f64, margin: f64, ratio: f64, beta: f64, stream: &Stream, minutes_there: f64) -> Option<f64> {
    let grades = GRADES.iter().map(|g| g * margin).enumerate().filter(|(i, m)| *i == 0 || *m <= COARSEST).map(|(_, m)| m);
    let fits = |m: &f64| {
        pass_speed(p, stream.weight, *m, ratio)
            .is_some_and(|s| minutes(needed(s, pass_evidence_needed(beta)).ninety, stream) <= minutes_there)
    };
    grades.into_iter().find(fits)
}

impl Analysis {
    /// Canary requests until this metric is probably (in half of all cases) shown fit, from the evidence that there is, if the canary is as good as
    /// stable. `None` where it never would be; 0 once it is.
    pub fn requests_needed(&self, metric: usize, tests: &[MetricTest], s: &Settings, weight: f64) -> Option<f64> {
        let evidence = self.pass_evidence(metric)?;
        if self.fitness(metric, s).fit {
            return Some(0.0);
        }
        self.more(metric, &tests.get(metric)?.of_fitness(), evidence, s, weight)
    }

    /// The same until a gross fault is excluded. The share is taken from the step's own requests.
    pub fn gross_requests_needed(&self, metric: usize, s: &Settings) -> Option<f64> {
        let evidence = self.gross_evidence(metric)?;
        if self.fitness(metric, s).gross_excluded {
            return Some(0.0);
        }
        let step = self.step_totals(metric);
        let weight = (step.canary.n / (step.canary.n + step.stable.n)).clamp(0.001, 0.9);
        let weight = if weight.is_nan() { 0.01 } else { weight };
        self.more(metric, &Test::Compare { margin: GROSS_MARGIN, ratio: 1.0 }, evidence, s, weight)
    }

    /// Canary requests until a step that has not begun shows as much by this test. `None` where it never would.
    pub fn requests_from_nothing(&self, metric: usize, test: &Test, s: &Settings, weight: f64) -> Option<Needed> {
        let p = self.stable_rate(metric);
        self.more_at(metric, test, (p, p), &PassEvidence::default(), s, weight)
    }

    fn more(&self, metric: usize, test: &Test, evidence: &PassEvidence, s: &Settings, weight: f64) -> Option<f64> {
        let canary = self.totals(metric).canary.plus(super::Counts::new(100.0, 0.5)).rate();
        let needed = self.more_at(metric, test, (self.stable_rate(metric), canary), evidence, s, weight)?;
        Some(libm::ceil(needed.median))
    }

    /// `stable` is what a comparison takes for both, `canary` what is held against a limit.
    fn more_at(
        &self,
        metric: usize,
        test: &Test,
        (stable, canary): (f64, f64),
        evidence: &PassEvidence,
        s: &Settings,
        weight: f64,
    ) -> Option<Needed> {
        let speed = match test.clean() {
            Test::Compare { margin, ratio } => pass_speed(stable, weight, margin, ratio),
            Test::Limit { max } => limit_pass_speed(canary, max),
        }?;
        // The bet that leads, or the mixture where another one does.
        let there = evidence.ln_best().max(evidence.ln_e());
        let open = (pass_evidence_needed(s.beta) - there).max(0.0);
        let bursts = self.pass_burst_factor(metric, s.bursts);
        let Needed { least, median, ninety } = needed(speed, open);
        Some(Needed { least: least * bursts, median: median * bursts, ninety: ninety * bursts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_error_free_service_needs_seven_hundred_requests_at_half_a_point() {
        let n = needed(pass_speed(0.0001, 0.1, 0.005, 1.0).expect("it can"), pass_evidence_needed(0.05));
        assert!((600.0..850.0).contains(&n.median), "{n:?}");
    }

    #[test]
    fn what_can_never_pass_has_no_forecast() {
        assert_eq!(pass_speed(0.01, 0.1, 0.0, 1.0), None);
        assert_eq!(pass_speed(0.01, 0.0, 0.005, 1.0), None);
        assert_eq!(pass_speed(f64::NAN, 0.1, 0.005, 1.0), None);
        assert_eq!(limit_pass_speed(0.02, 0.01), None);
    }

    #[test]
    fn a_short_step_asks_for_a_coarser_margin_and_none_above_five_points() {
        let grade = |minutes| graded_margin(0.001, 0.005, 1.0, 0.05, &Stream { weight: 0.01, rate: 5.0, bursts: 1.0 }, minutes);
        assert_eq!(grade(1e6), Some(0.005));
        assert_eq!(grade(60.0), Some(0.05));
        assert_eq!(grade(1.0), None);
    }

    #[test]
    fn without_traffic_it_takes_for_ever() {
        assert!(minutes(100.0, &Stream { weight: 0.1, rate: 0.0, bursts: 1.0 }) > 1e300);
    }
}
