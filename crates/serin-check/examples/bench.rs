//! Prints how fast the linter is: 10,000 generated manifests (2,000 services in two versions).
//!
//! `cargo run --release -p serin-check --example bench` [-- FOLDER writes the manifests there]

use std::io::Write as _;
use std::time::Instant;

use serin_check::{Input, Options, check, render};

const SERVICES: usize = 2_000;

fn deployment(n: usize, version: &str, replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-{n}-{version}
  namespace: team-{team}
  labels:
    app: app-{n}
    version: {version}
spec:
  replicas: {replicas}
  selector:
    matchLabels:
      app: app-{n}
      version: {version}
  template:
    metadata:
      labels:
        app: app-{n}
        version: {version}
        sidecar.istio.io/inject: \"true\"
    spec:
      serviceAccountName: app-{n}
      containers:
      - name: app
        image: registry.example.com/app-{n}:{version}
        env:
        - name: LOG_LEVEL
          value: info
        - name: PORT
          value: \"8080\"
        ports:
        - name: http
          containerPort: 8080
        readinessProbe:
          httpGet: {{path: /ready, port: http}}
        resources:
          requests: {{cpu: 100m, memory: 128Mi}}
",
        team = n % 40
    )
}

fn manifests(n: usize) -> String {
    let team = n % 40;
    // Each hundredth service has the article's mistake, so that findings are printed too.
    let gateways = if n.is_multiple_of(100) { "  gateways:\n  - public\n" } else { "" };
    [
        deployment(n, "v1", 3),
        deployment(n, "v2", 1),
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: app-{n}\n  namespace: team-{team}\nspec:\n  selector:\n    app: app-{n}\n  ports:\n  - name: http\n    port: 80\n    targetPort: http\n"
        ),
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: app-{n}\n  namespace: team-{team}\nspec:\n  host: app-{n}\n  subsets:\n  - name: v1\n    labels:\n      version: v1\n  - name: v2\n    labels:\n      version: v2\n"
        ),
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: app-{n}\n  namespace: team-{team}\nspec:\n  hosts:\n  - app-{n}\n{gateways}  http:\n  - name: primary\n    route:\n    - destination:\n        host: app-{n}\n        subset: v1\n      weight: 90\n    - destination:\n        host: app-{n}\n        subset: v2\n      weight: 10\n"
        ),
    ]
    .join("---\n")
}

/// The highest resident size of this process so far, in MB; Linux only.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kb: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1024.0)
}

fn main() -> std::io::Result<()> {
    let texts: Vec<String> = (0..SERVICES).map(manifests).collect();
    if let Some(folder) = std::env::args().nth(1) {
        std::fs::create_dir_all(&folder)?;
        for (n, text) in texts.iter().enumerate() {
            std::fs::write(format!("{folder}/app-{n}.yaml"), text)?;
        }
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let before = peak_mb();
    let mut out = std::io::stdout().lock();
    for round in 1..=5 {
        let inputs: Vec<Input> = texts
            .iter()
            .enumerate()
            .map(|(n, t)| Input { path: format!("app-{n}.yaml"), bytes: t.clone().into_bytes(), live: false })
            .collect();
        let start = Instant::now();
        let report = check(inputs, &Options::default());
        let checked = start.elapsed();
        let printed = render::human(&report, render::Style::default()).len();
        let total = start.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let rate = report.stats.objects as f64 / checked.as_secs_f64();
        writeln!(
            out,
            "run {round}: {} manifests ({:.1} MB) in {:.0} ms, {:.0} ms with printing {} findings ({printed} bytes): {rate:.0} manifests/s",
            report.stats.objects,
            bytes as f64 / 1e6,
            checked.as_secs_f64() * 1e3,
            total.as_secs_f64() * 1e3,
            report.findings.len(),
        )?;
    }
    if let (Some(before), Some(after)) = (before, peak_mb()) {
        writeln!(out, "memory: {after:.0} MB at most, {before:.0} MB of it before the first run")?;
    }
    Ok(())
}
