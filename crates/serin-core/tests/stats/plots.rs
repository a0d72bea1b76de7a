//! The plots of `docs/statistics.md` are what `simulate` draws today: `UPDATE=1 cargo test -p serin-core --test stats plots` writes them anew.

use std::fs;
use std::path::Path;

use serin_core::plan::Plan;
use serin_core::simulate::{Begin, Fault, Outage, World, plot, run_once};

use crate::rollouts::default_plan;

#[test]
fn the_plots_of_the_documentation_are_todays() {
    let plan = Plan::new(default_plan()).expect("a plan");
    let fault = |from, errors| vec![Fault { from, errors, ..Fault::default() }];
    let slow = World { requests_per_s: vec![10.0], ..World::default() };
    let outage = Outage { from_s: 400.0, seconds: 180.0, errors: 0.10 };
    let cases = [
        ("healthy", "Eight healthy canaries, 10 requests a second", slow.clone()),
        (
            "late-fault",
            "A fault of 5 points that begins with the third step, 50 requests a second",
            World { faults: fault(Begin::Step(3), 0.05), ..World::default() },
        ),
        (
            "outage",
            "An outage of 10 points that both share, minutes 7 to 10; the canary is as good as stable",
            World { outages: vec![outage], ..World::default() },
        ),
    ];
    for (name, title, world) in cases {
        let runs: Vec<_> = (0..8).map(|i| run_once(&plan, &world, 42, i, 3.0 * 3600.0)).collect();
        let svg = plot(title, &runs, plan.settings().alpha, plan.settings().beta) + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plots").join(format!("{name}.svg"));
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("docs/plots can be made");
            fs::write(&path, &svg).expect("the plot can be written");
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(there == svg, "{} is not what simulate draws today: UPDATE=1 cargo test -p serin-core --test stats plots", path.display());
    }
}
