//! What the statistics cost: time, allocations and bytes, printed. `cargo run --release -p serin-core --example cost`.
//!
//! Shows figures and judges none of them: a busy machine is no bug.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serin_core::stats::{Analysis, Batch, Bursts, Counting, MetricTest, Settings, Test, interval};

/// Counts what is asked of the system's allocator.
struct Counted;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// An allocator cannot be counted without being one; it adds a number and passes the call on.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const SETTINGS: Settings = Settings { alpha: 0.05, beta: 0.05, bursts: Bursts::Auto, interval_s: 10.0 };

/// Median microseconds of one call over many rounds, and allocations per call.
fn measure(mut call: impl FnMut()) -> (f64, f64) {
    const CALLS: u32 = 200;
    const ROUNDS: usize = 101;
    (0..CALLS).for_each(|_| call());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        *round = start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
    }
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / (f64::from(CALLS) * ROUNDS as f64);
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], allocations)
}

fn judged(metrics: usize) -> (Analysis, (f64, f64)) {
    let test = |i: usize| if i % 5 == 4 { Test::Limit { max: 0.05 } } else { Test::Compare { margin: 0.005, ratio: 1.0 } };
    let tests: Vec<MetricTest> = (0..metrics).map(|i| MetricTest::new(test(i), 1.0 / metrics as f64)).collect();
    let mut analysis = Analysis::new(&tests, &[]);
    analysis.start_step();
    let mut i = 0_u32;
    let mut batches = vec![None; metrics];
    let cost = measure(|| {
        i += 1;
        batches.fill(Some(Batch::new(50.0, f64::from(u8::from(i.is_multiple_of(3))), 450.0, f64::from(i % 4))));
        analysis.judge(&tests, &SETTINGS, black_box(&batches), 10.0, Counting::Full);
        black_box(analysis.harm(&tests, &SETTINGS));
    });
    (analysis, cost)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for metrics in [1, 2, 20] {
        let (analysis, (us, allocations)) = judged(metrics);
        let text = analysis.to_checkpoint();
        writeln!(
            out,
            "judge a reading of {metrics:>2} metrics {us:>8.2} µs {allocations:>6.2} allocations · checkpoint {:>4} bytes a metric",
            text.len() / metrics
        )?;
        let (us, _) = measure(|| {
            let text = analysis.to_checkpoint();
            black_box(Analysis::from_checkpoint(&text).is_ok());
        });
        writeln!(out, "  its checkpoint written and read {us:>8.2} µs")?;
    }
    let batch = Batch::new(471.0, 2.0, 4341.0, 9.0);
    let (us, _) = measure(|| {
        black_box(interval::difference(black_box(&batch), 0.05));
    });
    writeln!(out, "interval of a difference, for display {us:>8.2} µs")?;
    let tests = [MetricTest::new(Test::Compare { margin: 0.005, ratio: 1.0 }, 1.0)];
    let (analysis, _) = judged(1);
    let (us, _) = measure(|| {
        black_box(analysis.requests_needed(0, &tests, &SETTINGS, 0.1));
    });
    writeln!(out, "forecast of the requests still needed  {us:>8.2} µs")
}
