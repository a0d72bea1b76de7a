//! Which files are judged together: environments and alternatives hold the same objects and
//! exclude each other, so each is judged with what is in none of them.
//!
//! It reads names and paths alone, and judges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::diag::{Certainty, Finding};
use crate::object::{Kind, kind_of};
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

/// Groups of files to be judged together. Folders (or files) that each hold the same object
/// are alternatives: each of them is judged with all that is in none.
pub(crate) fn worlds(parsed: &[Parsed], objects: &[(usize, View<'_>)], live: &[bool]) -> Vec<Vec<usize>> {
    let mut by_name: HashMap<(&str, &str, &str, &str), usize> = HashMap::new();
    let mut forks: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
    // The cluster's own objects are no alternative to a file's: the file replaces them.
    for (file, view) in objects.iter().filter(|(file, view)| !live[*file] && tells_environments_apart(*view)) {
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
        exclude_each_other(forks.entry(common).or_default(), a, b);
    }
    if forks.is_empty() {
        return vec![(0..parsed.len()).collect()];
    }
    Choices::new(parsed, objects, forks).worlds(parsed.len())
}

/// Whether an object of this kind that stands in two folders makes environments of them. Each
/// team's folder may bring the namespace, a ConfigMap or a Secret along.
fn tells_environments_apart(view: View<'_>) -> bool {
    let group = view.str_at("apiVersion").and_then(|a| a.rsplit_once('/').map(|(g, _)| g)).unwrap_or("");
    let kind = kind_of(group, view.str_at("kind").unwrap_or(""));
    !matches!(kind, Kind::Other | Kind::Namespace | Kind::ServiceAccount | Kind::ConfigMap)
}

/// Notes that two branches hold the same object: they, and what is joined with them, exclude
/// each other.
fn exclude_each_other(groups: &mut Vec<BTreeSet<String>>, a: String, b: String) {
    let (together, apart): (Vec<_>, Vec<_>) = std::mem::take(groups).into_iter().partition(|g| g.contains(&a) || g.contains(&b));
    let mut group: BTreeSet<String> = together.into_iter().flatten().collect();
    group.extend([a, b]);
    *groups = apart;
    groups.push(group);
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

/// Branches of one folder that exclude each other.
struct Group {
    dir: String,
    branches: Vec<String>,
    /// The branch that stands for the others while they are not asked for: the fullest.
    usual: usize,
}

/// All that is to be chosen between.
struct Choices {
    groups: Vec<Group>,
    /// By file: the groups that it takes part in, and in which branch.
    places: Vec<Vec<(usize, usize)>>,
}

/// Up to so many alternatives are tried one by one, each beside the usual ones of other
/// groups; of more, several are tried in one world.
const ONE_BY_ONE: usize = 64;
/// Worlds at most: a tree of many different alternatives is judged as far as that.
const MAX_WORLDS: usize = 256;

impl Choices {
    fn new(parsed: &[Parsed], objects: &[(usize, View<'_>)], forks: BTreeMap<String, Vec<BTreeSet<String>>>) -> Choices {
        let mut groups = Vec::new();
        let mut by_dir: HashMap<String, HashMap<String, (usize, usize)>> = HashMap::new();
        for (dir, sets) in forks {
            for set in sets {
                let branches: Vec<String> = set.into_iter().collect();
                let known = by_dir.entry(dir.clone()).or_default();
                for (n, branch) in branches.iter().enumerate() {
                    known.insert(branch.clone(), (groups.len(), n));
                }
                groups.push(Group { dir: dir.clone(), branches, usual: 0 });
            }
        }
        let places: Vec<Vec<(usize, usize)>> = parsed.iter().map(|p| places_of(&p.source.path, &by_dir)).collect();
        let mut sizes: Vec<Vec<usize>> = groups.iter().map(|g: &Group| vec![0; g.branches.len()]).collect();
        for (g, b) in objects.iter().flat_map(|(file, _)| &places[*file]) {
            sizes[*g][*b] += 1;
        }
        for (group, sizes) in groups.iter_mut().zip(sizes) {
            // Of equals, the first.
            group.usual = (0..sizes.len()).rev().max_by_key(|n| sizes[*n]).unwrap_or(0);
        }
        Choices { groups, places }
    }

    /// Each alternative in at least one world: environments of one name together, and those
    /// of unlike names beside what is usual, or if they are many, side by side.
    fn worlds(&self, files: usize) -> Vec<Vec<usize>> {
        let mut open: Vec<BTreeSet<usize>> = self.groups.iter().map(|g| (0..g.branches.len()).collect()).collect();
        let one_by_one = open.iter().map(BTreeSet::len).sum::<usize>() <= ONE_BY_ONE;
        let mut worlds = Vec::new();
        while let Some(group) = open.iter().position(|o| !o.is_empty()).filter(|_| worlds.len() < MAX_WORLDS) {
            let Some(branch) = open[group].first().copied() else { break };
            let choice = self.choose(group, branch, if one_by_one { &[] } else { &open });
            let world: Vec<usize> = (0..files).filter(|n| self.places[*n].iter().all(|(g, b)| choice[*g] == *b)).collect();
            for (g, b) in world.iter().flat_map(|n| &self.places[*n]) {
                open[*g].remove(b);
            }
            // Never asked for twice, even if no file was found in it.
            open[group].remove(&branch);
            worlds.push(world);
        }
        worlds
    }

    /// A branch for each group, such that one certain branch is among them.
    fn choose(&self, group: usize, branch: usize, open: &[BTreeSet<usize>]) -> Vec<usize> {
        let wanted = &self.groups[group];
        let name = &wanted.branches[branch];
        let leads_there = |g: &Group| {
            let rest = wanted.dir.strip_prefix(&g.dir)?;
            g.branches.iter().position(|b| rest.strip_prefix(b.as_str()).is_some_and(|r| r.starts_with('/')))
        };
        self.groups
            .iter()
            .enumerate()
            .map(|(n, g)| {
                if n == group {
                    return branch;
                }
                let named = || g.branches.iter().position(|b| b == name);
                leads_there(g).or_else(named).or_else(|| open.get(n)?.first().copied()).unwrap_or(g.usual)
            })
            .collect()
    }
}

/// The branches in which a file lies.
fn places_of(path: &str, by_dir: &HashMap<String, HashMap<String, (usize, usize)>>) -> Vec<(usize, usize)> {
    let folder = with_slash(path);
    let mut found = Vec::new();
    let ends = std::iter::once(0).chain(folder.match_indices('/').map(|(n, _)| n + 1));
    for end in ends {
        let Some(known) = by_dir.get(&folder[..end]) else { continue };
        let branch = match folder[end..].split('/').next().filter(|f| !f.is_empty()) {
            Some(first) => first.to_owned(),
            None => own_branch(path),
        };
        found.extend(known.get(&branch));
    }
    found
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
