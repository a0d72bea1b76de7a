//! One run: texts in, a report out. No I/O.
//!
//! Inputs that hold the same object in several folders (environments, overlays) are checked
//! folder by folder, so that staging is never blamed for production.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::comments::{Silence, silences};
use crate::diag::{Certainty, Finding, ObjectName, Severity};
use crate::index::{Index, Standing};
use crate::object::objects_in;
use crate::rules::{Cx, Out, Rule, all, find, nearest};
use crate::schema::Schemas;
use crate::source::{FileId, Loc, SourceFile, Span};
use crate::worlds::{kustomize_patches, only_where_all_agree, worlds};
use crate::yaml::{Parsed, ProblemKind, View, parse};

/// One text to check.
#[derive(Debug, Clone)]
pub struct Input {
    /// The name it is shown under.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It was read from the cluster: it serves to judge files, which replace it where they
    /// hold the same object.
    pub live: bool,
}

/// What to check and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is not in the input does not exist.
    pub complete: bool,
    /// Namespace of objects that name none.
    pub namespace: Option<String>,
    /// Codes, or beginnings of codes, to run; empty: all.
    pub select: Vec<String>,
    /// Codes, or beginnings of codes, not to run.
    pub ignore: Vec<String>,
    /// Requests a second that released services get, for forecasts; absent: not known.
    pub rate: Option<f64>,
    /// Severities that replace the pages'; `None` turns a rule off.
    pub severities: BTreeMap<String, Option<Severity>>,
}

/// What decides over success besides certain errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deny {
    /// Certain warnings fail too.
    pub warnings: bool,
    /// Findings that depend on the cluster count as certain ones.
    pub depends: bool,
}

impl Deny {
    /// Whether a finding makes the answer no.
    pub fn fails(self, finding: &Finding) -> bool {
        let counts = self.depends || finding.certainty == Certainty::Certain;
        let bad = finding.severity == Severity::Error || self.warnings && finding.severity == Severity::Warning;
        counts && bad
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Files read.
    pub files: usize,
    /// Kubernetes objects in them.
    pub objects: usize,
    /// Documents and files that are no Kubernetes objects, left alone.
    pub others: usize,
    /// Findings silenced by comments.
    pub silenced: usize,
}

/// What a run found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The files, by the numbers that findings name.
    pub files: Vec<SourceFile>,
    /// The findings, by file and place.
    pub findings: Vec<Finding>,
    /// Counts.
    pub stats: Stats,
}

/// Certain errors, certain warnings, certain remarks, and what depends on the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Certain errors.
    pub errors: usize,
    /// Certain warnings.
    pub warnings: usize,
    /// Certain remarks.
    pub infos: usize,
    /// Findings that depend on what the cluster holds.
    pub depends: usize,
}

impl Report {
    /// Counts the findings.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for f in &self.findings {
            match (&f.certainty, f.severity) {
                (Certainty::Depends(_), _) => tally.depends += 1,
                (Certainty::Certain, Severity::Error) => tally.errors += 1,
                (Certainty::Certain, Severity::Warning) => tally.warnings += 1,
                (Certainty::Certain, Severity::Info) => tally.infos += 1,
            }
        }
        tally
    }

    /// Whether the answer is no (exit code 1).
    pub fn fails(&self, deny: Deny) -> bool {
        self.findings.iter().any(|f| deny.fails(f))
    }

    /// Leaves out findings that an earlier report (`--output json`) has already, so that old ones
    /// do not hide new ones; each of them once. Returns how many.
    ///
    /// # Errors
    /// The text is no report.
    pub fn without_known(&mut self, baseline: &str) -> Result<usize, String> {
        let json: serde_json::Value = serde_json::from_str(baseline).map_err(|e| e.to_string())?;
        let known = json["findings"].as_array().ok_or("it has no `findings`")?;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for print in known.iter().filter_map(|f| f["fingerprint"].as_str()) {
            *counts.entry(print).or_default() += 1;
        }
        let mut keep = Vec::new();
        for f in &self.findings {
            let print = crate::render::fingerprint(self, f);
            match counts.get_mut(print.as_str()) {
                Some(n) if *n > 0 => {
                    *n -= 1;
                    keep.push(false);
                }
                _ => keep.push(true),
            }
        }
        let before = self.findings.len();
        let mut keep = keep.into_iter();
        self.findings.retain(|_| keep.next().unwrap_or(true));
        Ok(before - self.findings.len())
    }

    /// The file of a place.
    pub fn file(&self, loc: Loc) -> &SourceFile {
        &self.files[loc.file.0 as usize]
    }
}

/// Codes given by the user that no rule has.
pub fn unknown_codes<'o>(codes: impl IntoIterator<Item = &'o str>) -> Vec<String> {
    codes.into_iter().filter(|c| c.is_empty() || !all().iter().any(|r| begins(r.code, c))).map(str::to_owned).collect()
}

fn begins(code: &str, prefix: &str) -> bool {
    prefix.eq_ignore_ascii_case("all") || code.get(..prefix.len()).is_some_and(|c| c.eq_ignore_ascii_case(prefix))
}

impl Options {
    fn runs(&self, rule: &Rule) -> bool {
        // The longer match decides, so that `--ignore SRN3 --select SRN301` means SRN301.
        let best = |list: &[String]| list.iter().filter(|p| begins(rule.code, p)).map(|p| p.len()).max();
        let off = matches!(self.severities.get(rule.code), Some(None));
        let selected = if self.select.is_empty() { Some(0) } else { best(&self.select) };
        match (selected, best(&self.ignore)) {
            _ if off => false,
            (None, _) => false,
            (Some(_), None) => true,
            (Some(s), Some(i)) => s > i,
        }
    }
}

/// Checks texts.
pub fn check(inputs: Vec<Input>, options: &Options) -> Report {
    let parsed = parse_all(inputs);
    let live: Vec<bool> = parsed.iter().map(|(_, live)| *live).collect();
    let parsed: Vec<Parsed> = parsed.into_iter().map(|(p, _)| p).collect();
    let (objects, others) = collect(&parsed);
    let broken = parsed.iter().any(|p| p.problem.as_ref().is_some_and(|p| p.kind != ProblemKind::Template));
    let glued = parsed.iter().any(|p| !p.tree.duplicates.is_empty() && p.docs().any(|d| !crate::object::glued(d).is_empty()));
    let settled = options.complete && !broken && !glued;

    let rules: Vec<&'static Rule> = all().iter().filter(|r| options.runs(r)).collect();
    let mut findings = Vec::new();
    let worlds = worlds(&parsed, &objects, &live);
    let mut judged: Vec<usize> = vec![0; parsed.len()];
    for world in &worlds {
        world.iter().for_each(|n| judged[*n] += 1);
        let members: HashSet<usize> = world.iter().copied().collect();
        let files: Vec<&Parsed> = world.iter().map(|n| &parsed[*n]).collect();
        let views = objects.iter().filter(|(file, _)| members.contains(file)).map(|(file, view)| (*view, live[*file]));
        let views = prefer_files(views);
        let index = Index::build(views, options.namespace.as_deref(), settled);
        let cx = Cx { index: &index, files: &files, schemas: Schemas::get(), issues: std::sync::OnceLock::new(), rate: options.rate };
        findings.extend(run_rules(&cx, &rules, &index));
    }
    let mut report = Report {
        files: Vec::new(),
        findings: Vec::new(),
        stats: Stats { files: parsed.len(), objects: objects.len(), others, silenced: 0 },
    };
    if worlds.len() > 1 {
        only_where_all_agree(&mut findings, &judged);
    }
    finish(&mut findings, settled, options);
    if live.iter().any(|l| *l) && live.iter().any(|l| !*l) {
        let in_file = |loc: &Loc| !live[loc.file.0 as usize];
        findings.retain(|f| in_file(&f.primary.loc) || f.related.iter().any(|r| in_file(&r.loc)));
    }
    report.stats.silenced = silence(&parsed, &rules, &mut findings);
    findings.sort_by(|a, b| {
        let key = |f: &Finding| (f.primary.loc.file, f.primary.loc.span, f.code);
        key(a).cmp(&key(b))
    });
    report.findings = findings;
    report.files = parsed.into_iter().map(|p| p.source).collect();
    report
}

fn n_threads(work: usize, per_thread: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(work.div_ceil(per_thread)).max(1)
}

/// The encoding of a text that is no UTF-8 but means something to an editor.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, _, 0, ..] | [0, _, 0, _, ..] => Some("UTF-16"),
        _ => None,
    }
}

fn parse_one(n: usize, input: Input) -> (Parsed, bool) {
    let id = FileId(u32::try_from(n).unwrap_or(u32::MAX));
    if let Some(encoding) = other_encoding(&input.bytes) {
        let mut parsed = parse(id, SourceFile::new(input.path, String::new()));
        parsed.problem = Some(crate::yaml::ParseProblem {
            kind: ProblemKind::Syntax,
            message: format!("this is {encoding}: save it as UTF-8"),
            span: Span::new(0, 0),
        });
        return (parsed, input.live);
    }
    let parsed = match String::from_utf8(input.bytes) {
        Ok(text) => parse(id, SourceFile::new(input.path, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.into_bytes()).into_owned();
            let mut parsed = parse(id, SourceFile::new(input.path, String::new()));
            parsed.source = SourceFile::new(parsed.source.path, text);
            parsed.problem = Some(crate::yaml::ParseProblem {
                kind: ProblemKind::Syntax,
                message: "not UTF-8 text".to_owned(),
                span: Span::new(at, at),
            });
            parsed
        }
    };
    (parsed, input.live)
}

fn parse_all(inputs: Vec<Input>) -> Vec<(Parsed, bool)> {
    let threads = n_threads(inputs.len(), 64);
    if threads == 1 {
        return inputs.into_iter().enumerate().map(|(n, i)| parse_one(n, i)).collect();
    }
    let per = inputs.len().div_ceil(threads);
    let mut chunks = Vec::new();
    let mut rest: Vec<(usize, Input)> = inputs.into_iter().enumerate().collect();
    while !rest.is_empty() {
        let tail = rest.split_off(per.min(rest.len()));
        chunks.push(std::mem::replace(&mut rest, tail));
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = chunks
            .into_iter()
            .map(|chunk| scope.spawn(move || chunk.into_iter().map(|(n, i)| parse_one(n, i)).collect::<Vec<_>>()))
            .collect();
        handles
            .into_iter()
            .flat_map(|h| match h.join() {
                Ok(list) => list,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// All objects with the number of their file, and how many documents were none.
fn collect(parsed: &[Parsed]) -> (Vec<(usize, View<'_>)>, usize) {
    let patches = kustomize_patches(parsed);
    let mut objects = Vec::new();
    let mut others = 0;
    for (n, file) in parsed.iter().enumerate() {
        if patches.contains(&n) {
            others += 1;
            continue;
        }
        let mut found = Vec::new();
        for doc in file.docs() {
            if !objects_in(doc, &mut found) {
                others += 1;
            }
        }
        objects.extend(found.into_iter().map(|v| (n, v)));
    }
    (objects, others)
}

/// Objects of files replace the cluster's own of the same name; of two in one file, the last
/// is what remains after applying it.
fn prefer_files<'a>(views: impl Iterator<Item = (View<'a>, bool)>) -> Vec<(View<'a>, Standing)> {
    let views: Vec<_> = views.collect();
    let key = |v: &View<'a>| {
        let meta = v.get("metadata");
        let text = |k| meta.and_then(|m| m.get(k)).and_then(View::scalar);
        let api = v.str_at("apiVersion").unwrap_or("");
        let group = api.split_once('/').map_or("", |(g, _)| g);
        ((group, v.str_at("kind").unwrap_or("")), text("namespace"), text("name").unwrap_or(""))
    };
    let mut last: HashMap<_, usize> = HashMap::with_capacity(views.len());
    for (n, (v, live)) in views.iter().enumerate() {
        last.insert((key(v), *live), n);
    }
    let mine: HashSet<_> = views.iter().filter(|(_, live)| !*live).map(|(v, _)| key(v)).collect();
    views
        .iter()
        .enumerate()
        .filter(|(_, (v, live))| {
            let (kind, ns, name) = key(v);
            !*live || !(mine.contains(&(kind, ns, name)) || mine.contains(&(kind, None, name)))
        })
        .map(|(n, (v, live))| {
            let overwritten = !key(v).2.is_empty() && last.get(&(key(v), *live)) != Some(&n);
            (*v, if overwritten { Standing::Overwritten } else { Standing::Current })
        })
        .collect()
}

fn run_rules(cx: &Cx<'_>, rules: &[&'static Rule], index: &Index<'_>) -> Vec<Finding> {
    let run = |rule: &'static Rule| {
        let mut out = Out::default();
        (rule.run)(cx, &mut out);
        for f in &mut out.found {
            f.code = rule.code;
            f.severity = f.own_severity.unwrap_or(rule.page().severity);
            if f.title.is_empty() {
                rule.page().title.clone_into(&mut f.title);
            }
        }
        out.found
    };
    let threads = n_threads(index.objects.len(), 500);
    let mut found: Vec<Finding> = if threads == 1 {
        rules.iter().flat_map(|r| run(r)).collect()
    } else {
        let next = AtomicUsize::new(0);
        let all = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let found = run(rule);
                        if let Ok(mut all) = all.lock() {
                            all.extend(found);
                        }
                    }
                });
            }
        });
        all.into_inner().unwrap_or_else(|e| e.into_inner())
    };
    name_objects(&mut found, index);
    found
}

fn name_objects(found: &mut [Finding], index: &Index<'_>) {
    if found.is_empty() {
        return;
    }
    let mut places: Vec<(Loc, usize)> = index.objects.iter().enumerate().map(|(n, o)| (o.view.loc(), n)).collect();
    places.sort_unstable();
    for f in found {
        let at = f.primary.loc;
        let after = places.partition_point(|(loc, _)| (loc.file, loc.span.start) <= (at.file, at.span.start));
        let Some((loc, n)) = after.checked_sub(1).and_then(|n| places.get(n)) else {
            continue;
        };
        if loc.file == at.file && loc.span.end >= at.span.start {
            let o = &index.objects[*n];
            f.object = Some(ObjectName {
                kind: o.kind_name.to_owned(),
                namespace: crate::object::known(o.ns).map(str::to_owned),
                name: o.name.to_owned(),
            });
        }
    }
}

fn finish(findings: &mut Vec<Finding>, settled: bool, options: &Options) {
    let mut seen = HashSet::new();
    findings.retain(|f| seen.insert((f.code, f.primary.loc, f.title.clone())));
    for f in findings {
        if settled {
            f.certainty = Certainty::Certain;
        }
        if let Some(Some(severity)) = options.severities.get(f.code) {
            f.severity = *severity;
        }
    }
}

/// Takes out what comments silence, and adds what is wrong with the comments. Returns how
/// many were silenced.
fn silence(parsed: &[Parsed], rules: &[&'static Rule], findings: &mut Vec<Finding>) -> usize {
    let runs = |code: &str| rules.iter().any(|r| r.code == code);
    let mut silenced = 0;
    let mut extra = Vec::new();
    for file in parsed.iter().filter(|f| !f.tree.comments.is_empty()) {
        let (list, bad) = silences(file);
        let at = |span| Loc { file: file.id, span };
        for b in bad {
            extra.push(("SRN008", Finding::at(at(b.span), b.why)));
        }
        for s in &list {
            if s.codes.is_empty() {
                extra.push(("SRN008", Finding::at(at(s.span), "it names no rule")));
            }
            if s.reason.is_empty() {
                extra.push(("SRN007", Finding::at(at(s.span), "say why, after the brackets")));
            }
            for (code, span) in &s.codes {
                silenced += one_silence(file, s, code, *span, findings, &mut extra, &runs);
            }
        }
    }
    for (code, mut f) in extra {
        if !runs(code) {
            continue;
        }
        if let Some(rule) = find(code) {
            f.code = rule.code;
            f.severity = rule.page().severity;
            if f.title.is_empty() {
                rule.page().title.clone_into(&mut f.title);
            }
            findings.push(f);
        }
    }
    silenced
}

fn one_silence(
    file: &Parsed,
    s: &Silence,
    code: &str,
    span: Span,
    findings: &mut Vec<Finding>,
    extra: &mut Vec<(&'static str, Finding)>,
    runs: &dyn Fn(&str) -> bool,
) -> usize {
    let loc = Loc { file: file.id, span };
    let Some(rule) = find(code) else {
        let hint = nearest(code, all().iter().map(|r| r.code));
        let mut f = Finding::at(loc, "no rule has this code");
        if let Some(hint) = hint {
            f = f.help(format!("did you mean {hint}?"));
        }
        extra.push(("SRN008", f));
        return 0;
    };
    let before = findings.len();
    findings.retain(|f| {
        let hit = f.code == rule.code
            && f.primary.loc.file == file.id
            && s.scope.start <= f.primary.loc.span.start
            && f.primary.loc.span.start < s.scope.end;
        !hit
    });
    let n = before - findings.len();
    if n == 0 && runs(rule.code) {
        extra.push(("SRN008", Finding::at(loc, format!("{} finds nothing here", rule.code)).help("remove the comment")));
    }
    n
}
