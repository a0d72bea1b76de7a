//! How long a healthy canary takes to be shown fit: `cargo run --release -p serin-core --example forecast`.
//!
//! Requests to the canary and minutes, by stable's error rate, margin, share and traffic; half of all rollouts are faster than the first number, nine of ten
//! than the second.

use std::io::Write as _;

use serin_core::stats::forecast::{Stream, minutes, needed, pass_evidence_needed, pass_speed};

fn text(minutes: f64) -> String {
    match minutes {
        m if m < 1.0 => "1 min".into(),
        m if m < 120.0 => format!("{m:.0} min"),
        m if m < 2880.0 => format!("{:.0} h", m / 60.0),
        m => format!("{:.0} d", m / 1440.0),
    }
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "| stable's errors | margin | canary requests at 50 % | 50 % of 5/s | 50 % of 50/s | 10 % of 50/s | 10 % of 500/s |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for p in [0.0001, 0.001, 0.01, 0.05] {
        for margin in [0.005, 0.01, 0.05] {
            let both = |weight: f64| pass_speed(p, weight, margin, 1.0).map(|s| needed(s, pass_evidence_needed(0.05)));
            let time = |weight: f64, rate: f64| {
                let stream = Stream { weight, rate, bursts: 1.0 };
                both(weight)
                    .map_or_else(String::new, |n| format!("{} / {}", text(minutes(n.median, &stream)), text(minutes(n.ninety, &stream))))
            };
            let n = both(0.5).map_or_else(String::new, |n| format!("{:.0} / {:.0}", n.median, n.ninety));
            let times = [time(0.5, 5.0), time(0.5, 50.0), time(0.1, 50.0), time(0.1, 500.0)].join(" | ");
            writeln!(out, "| {} % | {} points | {n} | {times} |", 100.0 * p, 100.0 * margin)?;
        }
    }
    Ok(())
}
