//! `serin check`: the mistakes that break a canary, found in manifests before they reach a cluster, or in the cluster itself.
//!
//! Reads what it is given, hands it to the linter, prints what that finds. It judges nothing itself.

mod live;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serin_check::{Deny, Input, ObjectName, Options, Report, config, fix, render, sources, unknown_codes};

use crate::cluster::ClusterArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Find the mistakes that break a canary, in files or in the cluster
#[derive(Args, Debug)]
#[command(
    after_help = "A finding is certain (the input itself shows it) or depends on what the cluster holds; --live asks the cluster, --complete says that the input is all there is. Only certain errors fail, unless --deny says more.\n\nExit codes: 0 nothing that fails; 1 findings that fail (with --diff: there is something to fix); 2 no answer: a path that cannot be read, wrong usage, the cluster out of reach.\n\nExamples:\n  serin check deploy/\n  kustomize build overlays/production | serin check -\n  helm template . | serin check --complete -\n  serin check --live deploy/                before applying: files and cluster together\n  serin check --fix deploy/                 mend what is certain and local\n  serin check -o sarif deploy/ > check.sarif"
)]
pub(crate) struct CheckArgs {
    /// Files, folders, or - for standard input [default: the current folder, or with --live nothing]
    paths: Vec<PathBuf>,
    /// Ask the cluster for what the files do not hold; without files: check the cluster's own objects
    #[arg(long)]
    live: bool,
    /// With --live and no files: objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What is not in the input does not exist
    #[arg(long)]
    complete: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    output: Output,
    /// What fails besides certain errors
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    deny: Vec<Denied>,
    /// Only these rules, by code or its beginning: SRN301,SRN4
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    select: Vec<String>,
    /// Not these rules, by code or its beginning; the longer match wins over --select
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Leave out what matches, in folders
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Requests a second to a released service, for forecasts
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Mend the files: changes that are certain and local; all else keeps its bytes
    #[arg(long)]
    fix: bool,
    /// Show the changes that --fix makes, and make none
    #[arg(long, conflicts_with = "fix")]
    diff: bool,
    /// Leave out findings of this earlier report (-o json)
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// The configuration file [default: .serin.yaml here or above]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Human,
    /// One line for each finding, as editors read it
    Short,
    /// For programs
    Json,
    /// SARIF 2.1.0, for code hosts
    Sarif,
    /// Annotations of GitHub's workflows
    Github,
    /// JUnit's XML, for pipelines
    Junit,
}

/// What may be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Denied {
    /// Certain warnings
    Warnings,
    /// Findings that depend on the cluster, like certain ones
    Depends,
}

/// Checks.
pub(crate) async fn run(args: CheckArgs, cluster: &ClusterArgs, color: out::Color) -> Outcome {
    let (mut options, deny, mut exclude) = settings(&args)?;
    exclude.extend(args.exclude.iter().cloned());
    if options.namespace.is_none() {
        options.namespace.clone_from(&cluster.namespace);
    }
    let paths = match args.paths.as_slice() {
        [] if args.live => Vec::new(),
        [] => vec![PathBuf::from(".")],
        paths => paths.to_vec(),
    };
    let gathered = sources::gather(&paths, &exclude);
    for (path, why) in &gathered.problems {
        out::talk(&format!("serin: cannot read {path}: {why}"));
    }
    let unread = !gathered.problems.is_empty();
    let mut inputs = gathered.inputs;
    let mut only_in = None;
    if args.live {
        let seen = live::read(cluster).await?;
        for what in &seen.unread {
            out::talk(&format!("serin: {what}; what it holds counts as unknown"));
        }
        options.complete |= seen.unread.is_empty();
        options.namespace.get_or_insert(seen.namespace.clone());
        only_in = (inputs.is_empty() && !args.all_namespaces).then_some(seen.namespace);
        inputs.extend(seen.inputs);
    }
    let report = if args.fix || args.diff {
        let fixed = fix::apply(&inputs, &options);
        let changed = !fixed.changed.is_empty();
        if args.diff {
            let diffs: String = fixed.changed.iter().map(|(path, old, new)| fix::diff(path, old, new)).collect();
            out::answer(&diffs)?;
            return Ok(if unread { Exit::NoAnswer } else { exit_for(!changed) });
        }
        write_back(&fixed)?;
        for a in &fixed.applied {
            out::talk(&format!("{}:{}: {}: {}", a.path, a.line, a.code, a.title));
        }
        fixed.report
    } else {
        serin_check::check(inputs, &options)
    };
    finish(&args, report, gathered.others, only_in.as_deref(), deny, out::coloured(color), unread)
}

fn finish(args: &CheckArgs, mut report: Report, others: usize, only_in: Option<&str>, deny: Deny, color: bool, unread: bool) -> Outcome {
    report.stats.others += others;
    if let Some(namespace) = only_in {
        let of_it = |o: &ObjectName| o.namespace.as_deref() == Some(namespace) || o.kind == "Namespace" && o.name == namespace;
        report.findings.retain(|f| f.object.as_ref().is_some_and(of_it));
    }
    if let Some(path) = &args.baseline {
        let text = read(path)?;
        let known = report.without_known(&text).map_err(|why| {
            Failure::new(format!("{} is no report of serin check: {why}", path.display())).hint("serin check -o json > baseline.json")
        })?;
        if known > 0 {
            out::talk(&format!("{known} known findings left out ({})", path.display()));
        }
    }
    let text = match args.output {
        Output::Human => render::human(&report, style(color)),
        Output::Short => render::short(&report),
        Output::Json => render::json(&report),
        Output::Sarif => render::sarif(&report),
        Output::Github => render::github(&report),
        Output::Junit => render::junit(&report, deny),
    };
    // With a mended stream on standard output, the report is talk.
    if args.fix && args.paths.iter().any(|p| p.as_os_str() == "-") {
        out::talk(text.trim_end());
    } else {
        out::answer(&text)?;
    }
    Ok(if unread { Exit::NoAnswer } else { exit_for(!report.fails(deny)) })
}

fn exit_for(good: bool) -> Exit {
    if good { Exit::Done } else { Exit::No }
}

fn style(color: bool) -> render::Style {
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|k| std::env::var(k).ok().filter(|v| !v.is_empty()));
    // Without a locale there is no telling; line art that becomes question marks helps nobody.
    let unicode = locale.is_none_or(|l| l.to_ascii_lowercase().replace('-', "").contains("utf8"));
    render::Style { color, unicode, width: columns.unwrap_or(80) }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))
}

/// The configuration file and the flags over it.
fn settings(args: &CheckArgs) -> Result<(Options, Deny, Vec<String>), Failure> {
    let path = match &args.config {
        Some(path) => Some(path.clone()),
        None => std::env::current_dir().ok().and_then(|dir| config::find(&dir)),
    };
    let config = match path {
        None => config::Config::default(),
        Some(path) => {
            config::read(&path.display().to_string(), &read(&path)?).map_err(|problems| Failure::new(problems.join("\nserin: ")))?
        }
    };
    let unknown = unknown_codes(args.select.iter().chain(&args.ignore).map(String::as_str));
    if !unknown.is_empty() {
        return Err(Failure::new(format!("no rule is called {}", unknown.join(", "))).hint("serin explain"));
    }
    if args.rate.is_some_and(|r| r.is_nan() || r <= 0.0) {
        return Err(Failure::new("--rate is a number of requests a second, above 0"));
    }
    let config::Config { mut options, mut deny, exclude } = config;
    options.complete |= args.complete;
    options.rate = args.rate.or(options.rate);
    if !args.select.is_empty() {
        options.select.clone_from(&args.select);
    }
    options.ignore.extend(args.ignore.iter().cloned());
    deny.warnings |= args.deny.contains(&Denied::Warnings);
    deny.depends |= args.deny.contains(&Denied::Depends);
    Ok((options, deny, exclude))
}

/// Writes mended files in place; a stream goes to standard output, changed or not.
fn write_back(fixed: &fix::Fixed) -> Result<(), Failure> {
    for (path, _, new) in &fixed.changed {
        if path != "<stdin>" {
            write(Path::new(path), new)?;
        }
    }
    match fixed.inputs.iter().find(|i| i.path == "<stdin>") {
        Some(Input { bytes, .. }) => out::answer(&String::from_utf8_lossy(bytes)),
        None => Ok(()),
    }
}

/// Replaces a file by its new text in one step, so that a crash leaves the old or the new one.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
    // A link is written through, not replaced by a file.
    let target = std::fs::canonicalize(path).map_err(failed)?;
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".serin-").tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let permissions = std::fs::metadata(&target).map_err(failed)?.permissions();
    std::fs::set_permissions(file.path(), permissions).map_err(failed)?;
    file.persist(&target).map_err(|e| failed(e.error))?;
    Ok(())
}
