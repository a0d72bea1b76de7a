//! The evidence of some runs, drawn as SVG: harm above, fitness below, steps shaded.
//!
//! One self-contained text, light and dark by the reader's setting, no script. Shapes differ as well as colours.

use alloc::format;
use alloc::string::String;

use super::stage::{End, Point, Run};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const PANEL: f64 = 190.0;
const TOPS: [f64; 2] = [44.0, 290.0];
const HEIGHT: f64 = 530.0;
/// Evidence below one in a million is drawn at the edge, as beyond a thousand-fold of what convicts.
const LOW: f64 = -14.0;
const HIGH: f64 = 10.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:14px}.s{fill:#0001}.g{stroke:#8884}.v{stroke:#b00;\
stroke-dasharray:6 4}.p{fill:none;stroke:#1a7f37}.b{fill:none;stroke:#b3261e;stroke-dasharray:2 2}.u{fill:none;stroke:#777;stroke-dasharray:8 3}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#fff1}.p{stroke:#56d364}.b{stroke:#ff7b72}.u{stroke:#aaa}.v{stroke:#ff7b72}}";

/// Label, chance of error, and what is drawn.
type Panel = (&'static str, f64, fn(&Point) -> f64);

/// Draws runs over time. `alpha` and `beta` say where the verdicts lie; `title` is escaped. Promoted runs are full lines, taken back ones dotted,
/// undecided ones dashed.
pub fn plot(title: &str, runs: &[Run], alpha: f64, beta: f64) -> String {
    let longest = runs.iter().map(|r| r.took_s).fold(60.0, f64::max);
    let x = |s: f64| LEFT + (WIDTH - LEFT - RIGHT) * (s / longest).clamp(0.0, 1.0);
    let y = |top: f64, ln: f64| top + PANEL * (HIGH - ln.clamp(LOW, HIGH)) / (HIGH - LOW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><style>{STYLE}</style><title>{0}</title>",
        escaped(title)
    );
    let mut add = |text: String| svg.push_str(&text);
    add(format!("<text class=\"t\" x=\"{LEFT}\" y=\"20\">{}</text>", escaped(title)));
    let panels: [Panel; 2] = [
        ("harm: evidence that the canary is worse; above the line it is taken back", alpha, |p| p.ln_harm),
        ("fitness: evidence that it is not, from each step's begin; above the line a confirm step is passed", beta, |p| p.ln_fit),
    ];
    for ((label, chance, of), top) in panels.into_iter().zip(TOPS) {
        if let Some(longest) = runs.iter().max_by(|a, b| a.took_s.total_cmp(&b.took_s)) {
            steps(&longest.trace, longest.took_s).enumerate().filter(|(i, _)| i % 2 == 1).for_each(|(_, (from, to))| {
                add(format!("<rect class=\"s\" x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\"/>", x(from), x(to) - x(from)));
            });
        }
        add(format!("<text x=\"{LEFT}\" y=\"{:.0}\">{label}</text>", top - 6.0));
        for (ln, text) in
            [(-13.815_510_557_964_274, "1e-6"), (-6.907_755_278_982_137, "0.001"), (0.0, "1"), (6.907_755_278_982_137, "1000")]
        {
            add(format!("<line class=\"g\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>", WIDTH - RIGHT, y(top, ln)));
            add(format!("<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, y(top, ln) + 4.0));
        }
        let verdict = y(top, -libm::log(chance.clamp(1e-9, 1.0)));
        add(format!("<line class=\"v\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{verdict:.1}\" y2=\"{verdict:.1}\"/>", WIDTH - RIGHT));
        add(format!(
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            WIDTH - RIGHT,
            verdict - 4.0,
            1.0 / chance.clamp(1e-9, 1.0)
        ));
        for run in runs {
            let class = match run.end {
                End::Promoted => 'p',
                End::RolledBack { .. } => 'b',
                End::Undecided { .. } => 'u',
            };
            let mut points = String::new();
            // More points than pixels say nothing.
            let every = run.trace.len().div_ceil(800).max(1);
            for p in run.trace.iter().step_by(every).chain(run.trace.last()) {
                points.push_str(&format!("{:.1},{:.1} ", x(p.at_s), y(top, of(p))));
            }
            add(format!("<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end()));
        }
        let minutes = longest / 60.0;
        let tick = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 360.0, 720.0, 1440.0, 10_080.0]
            .into_iter()
            .find(|t| minutes / t <= 12.0)
            .unwrap_or(minutes);
        let mut at = 0.0;
        while at <= minutes {
            add(format!("<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{at:.0}</text>", x(at * 60.0), top + PANEL + 16.0));
            at += tick;
        }
    }
    add(format!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">minutes; full lines were promoted, dotted ones taken back, dashed ones undecided</text></svg>",
        WIDTH / 2.0,
        HEIGHT - 14.0
    ));
    svg
}

/// Spans of equal share, in seconds.
fn steps(trace: &[Point], end: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
    let mut begins = trace.chunk_by(|a, b| a.share == b.share).filter_map(|c| Some(c.first()?.at_s)).peekable();
    core::iter::from_fn(move || {
        let from = begins.next()?;
        Some((from, begins.peek().copied().unwrap_or(end)))
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
