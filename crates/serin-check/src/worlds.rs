//! Which files are judged together: environments and alternatives hold the same objects and
//! exclude each other, so each is judged with what is in none of them.
//!
//! It reads names and paths alone, and judges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::diag::{Certainty, Finding};
use crate::yaml::{Parsed, View};

fn folder(path: &str) -> &str {
    path.rfind('/').map_or("", |n| &path[..n])
}

fn join(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    if folder.starts_with('/') { format!("/{joined}") } else { joined }
}

/// Files that kustomizations apply as patches: parts of objects, not objects.
pub(crate) fn kustomize_patches(parsed: &[Parsed]) -> HashSet<usize> {
    let is_kustomization = |p: &&Parsed| {
        let name = p.source.path.rsplit('/').next().unwrap_or("");
        matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization")
    };
    let mut paths = HashSet::new();
    for file in parsed.iter().filter(is_kustomization) {
        let dir = folder(&file.source.path);
        for doc in file.docs() {
            let listed = doc
                .list("patchesStrategicMerge")
                .filter_map(View::str)
                .chain(doc.list("patches").chain(doc.list("patchesJson6902")).filter_map(|p| p.str_at("path")));
            for path in listed.filter(|p| !p.contains('\n')) {
                paths.insert(join(dir, path));
            }
        }
    }
    if paths.is_empty() {
        return HashSet::new();
    }
    let hit = |(_, p): &(usize, &Parsed)| paths.contains(&join("", &p.source.path)) || paths.contains(&p.source.path);
    parsed.iter().enumerate().filter(hit).map(|(n, _)| n).collect()
}

/// The folder of a path with a slash at its end; nothing for a bare name.
fn with_slash(path: &str) -> String {
    path.rfind('/').map_or_else(String::new, |n| path[..=n].to_owned())
}

/// The branch that a file in the forking folder itself stands for.
fn own_branch(path: &str) -> String {
    format!("./{}", path.rsplit('/').next().unwrap_or(path))
}

/// Groups of files to be judged together. Folders (or files) that each hold the same object are
/// alternatives: each of them is judged with all that is in neither.
pub(crate) fn worlds(parsed: &[Parsed], objects: &[(usize, View<'_>)], live: &[bool]) -> Vec<Vec<usize>> {
    let mut by_name: HashMap<(&str, &str, &str, &str), usize> = HashMap::new();
    let mut forks: BTreeMap<String, Fork> = BTreeMap::new();
    // The cluster's own objects are no alternative to a file's: the file replaces them.
    for (file, view) in objects.iter().filter(|(file, _)| !live[*file]) {
        let meta = view.get("metadata");
        let text = |key| meta.and_then(|m| m.get(key)).and_then(View::scalar);
        let Some(name) = text("name") else { continue };
        let key = (
            view.str_at("apiVersion").and_then(|a| a.rsplit_once('/').map(|(g, _)| g)).unwrap_or(""),
            view.str_at("kind").unwrap_or(""),
            text("namespace").unwrap_or(""),
            name,
        );
        let Some(first) = by_name.insert(key, *file).filter(|first| first != file) else {
            continue;
        };
        let (common, a, b) = parting(&parsed[first].source.path, &parsed[*file].source.path);
        forks.entry(common).or_default().join(a, b);
    }
    let mut open: Vec<Vec<usize>> = vec![(0..parsed.len()).collect()];
    for (dir, fork) in &forks {
        let branches: Vec<Option<&str>> = parsed.iter().map(|p| fork.branch_of(dir, &p.source.path)).collect();
        open = open.iter().flat_map(|world| fork.worlds(world, &branches)).collect();
        // A tree of forks in forks may multiply; beyond this the rest is judged as one.
        if open.len() > 256 {
            break;
        }
    }
    open
}

/// Where two paths part: the folder they share, and the branch of each in it.
fn parting(a: &str, b: &str) -> (String, String, String) {
    let (dir_a, dir_b) = (with_slash(a), with_slash(b));
    let (mut left, mut right) = (dir_a.split_inclusive('/'), dir_b.split_inclusive('/'));
    let mut common = String::new();
    let branch = loop {
        match (left.next(), right.next()) {
            (Some(x), Some(y)) if x == y => common.push_str(x),
            sides => break sides,
        }
    };
    let name = |side: Option<&str>, path: &str| side.map_or_else(|| own_branch(path), |s| s.trim_end_matches('/').to_owned());
    (common, name(branch.0, a), name(branch.1, b))
}

/// The branches of one folder that are alternatives, in groups: those of one group exclude
/// each other, those of two groups do not.
#[derive(Default)]
struct Fork {
    groups: Vec<BTreeSet<String>>,
}

impl Fork {
    /// Two branches hold the same object.
    fn join(&mut self, a: String, b: String) {
        let (mut together, apart): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.groups).into_iter().partition(|g| g.contains(&a) || g.contains(&b));
        let mut group: BTreeSet<String> = together.drain(..).flatten().collect();
        group.extend([a, b]);
        self.groups = apart;
        self.groups.push(group);
    }

    /// The branch in which a file lies, if it lies in one.
    fn branch_of(&self, dir: &str, path: &str) -> Option<&str> {
        let folder = with_slash(path);
        let rest = folder.strip_prefix(dir)?;
        let branch = match rest.split('/').next().filter(|f| !f.is_empty()) {
            Some(first) => first.to_owned(),
            None => own_branch(path),
        };
        self.groups.iter().find_map(|g| g.get(&branch)).map(String::as_str)
    }

    /// A world by its alternatives: each is tried once, with the first one of every other
    /// group beside it.
    fn worlds(&self, world: &[usize], branches: &[Option<&str>]) -> Vec<Vec<usize>> {
        let here: Vec<Vec<&str>> = self
            .groups
            .iter()
            .map(|g| g.iter().map(String::as_str).filter(|b| world.iter().any(|n| branches[*n] == Some(*b))).collect())
            .collect();
        let pick = |choice: &HashSet<&str>| world.iter().copied().filter(|n| branches[*n].is_none_or(|b| choice.contains(b))).collect();
        let firsts: HashSet<&str> = here.iter().filter_map(|g| g.first().copied()).collect();
        let mut found: Vec<Vec<usize>> = vec![pick(&firsts)];
        for group in &here {
            for branch in group.iter().skip(1) {
                let mut choice = firsts.clone();
                choice.remove(group[0]);
                choice.insert(branch);
                found.push(pick(&choice));
            }
        }
        found
    }
}

/// What lacks in one of several alternatives, and stands in another, is not missing.
pub(crate) fn only_where_all_agree(findings: &mut Vec<Finding>, judged: &[usize]) {
    let key = |f: &Finding| (f.code, f.primary.loc, f.title.clone());
    let mut times: HashMap<_, usize> = HashMap::new();
    for f in findings.iter() {
        *times.entry(key(f)).or_default() += 1;
    }
    findings
        .retain(|f| f.certainty == Certainty::Certain || times.get(&key(f)).is_none_or(|n| *n >= judged[f.primary.loc.file.0 as usize]));
}
