//! Whole rollouts of the default plan, cell by cell: `cargo run --release -p serin-core --example promises [RUNS] [SEED]`.
//!
//! Uses every core; what it prints is in `docs/statistics.md`.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serin_core::plan::{Bad, Mode, OnInconclusive, OnNoTraffic, Plan, PlanSpec, Scaling, Step, SubsetHome, Trigger};
use serin_core::simulate::{PromiseTable, promise_cells, simulate};
use serin_core::stats::Test;
use serin_core::units::Weight;

fn default_plan() -> Option<Plan> {
    let minutes = |m: u64| Duration::from_secs(60 * m);
    let step =
        |percent: u32| Some(Step::Weight { weight: Weight::percent(percent)?, hold: minutes(2), confirm: percent == 50, max_wait: None });
    let spec = PlanSpec {
        desired: None,
        trigger: Trigger::Automatic,
        suspend: false,
        mode: Mode::Act,
        settle: Duration::from_secs(10),
        manage_route: false,
        subsets: SubsetHome::Companion,
        scaling: Scaling::ByWeight,
        steps: [1, 5, 10, 25, 50].into_iter().filter_map(step).collect(),
        bake: minutes(10),
        interval: Duration::from_secs(10),
        confidence: 0.95,
        on_inconclusive: OnInconclusive::Hold,
        on_no_traffic: OnNoTraffic::Hold,
        metrics: vec![
            ("errors".into(), Bad::Errors, Test::Compare { margin: 0.005, ratio: 1.0 }),
            ("slow".into(), Bad::SlowerThan { edge_ms: 500.0 }, Test::Compare { margin: 0.01, ratio: 1.0 }),
        ],
    };
    Plan::new(spec).ok()
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let (runs, seed) = (arguments.next().unwrap_or(250), arguments.next().unwrap_or(1));
    let plan = default_plan().ok_or_else(|| std::io::Error::other("the default plan is refused"))?;
    let cells = promise_cells(&plan);
    let (next, done, begun) = (AtomicUsize::new(0), Mutex::new(vec![None; cells.len()]), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((i, cell)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cells.get(i)?))) {
                    let outcome = simulate(&plan, &cell.world, runs, seed.wrapping_add(i as u64), 2.0 * 3600.0);
                    if let Ok(mut done) = done.lock() {
                        done[i] = Some((cell.clone(), outcome));
                    }
                }
            });
        }
    });
    let cells: Vec<_> = done.into_inner().map_err(|e| std::io::Error::other(e.to_string()))?.into_iter().flatten().collect();
    let all = runs * cells.len() as u64;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", PromiseTable { cells, steps: plan.spec().steps.len() })?;
    writeln!(out, "{all} rollouts, {:.0} a second", all as f64 / begun.elapsed().as_secs_f64())
}
