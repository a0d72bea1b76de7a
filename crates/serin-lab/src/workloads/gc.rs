//! Garbage collection by owner references: dependents of what is gone go too, in the order their owner asked for.
//!
//! The API only marks: a finalizer `foregroundDeletion` makes the owner wait for its dependents, `orphan` sets them
//! free, neither lets the owner go at once and the dependents after it (background).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::object::{deleting, edit, flag, grace_seconds, items, remove_owner, text, uid, version};
use super::queue::{Context, Requeue};
use crate::store::{Key, Write, metadata};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Who is alive, and who depends on whom, by uid: kinds' names are not needed for it.
#[derive(Default)]
pub struct Owners {
    alive: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    owners_of: HashMap<Key, Vec<String>>,
}

impl Owners {
    /// Takes in that an object is there. Returns who has to be looked at for it.
    pub fn note(&mut self, key: &Key, object: &Value) -> Vec<Key> {
        self.alive.insert(uid(object).to_owned(), key.clone());
        let owners: Vec<String> = items(object, "/metadata/ownerReferences").iter().map(|o| text(o, "/uid").to_owned()).collect();
        let before = if owners.is_empty() { self.owners_of.remove(key) } else { self.owners_of.insert(key.clone(), owners.clone()) };
        let mut concerned = Vec::new();
        for former in before.into_iter().flatten().filter(|b| !owners.contains(b)) {
            self.release(&former, key);
            concerned.extend(self.alive.get(&former).cloned());
        }
        for owner in owners {
            self.dependents.entry(owner).or_default().insert(key.clone());
        }
        concerned
    }

    /// Takes in that an object is gone. Returns its dependents, and the owners that may have waited for it.
    pub fn forget(&mut self, key: &Key, object: &Value) -> Vec<Key> {
        self.alive.remove(uid(object));
        let mut concerned: Vec<Key> = self.dependents.get(uid(object)).into_iter().flatten().cloned().collect();
        for owner in self.owners_of.remove(key).into_iter().flatten() {
            self.release(&owner, key);
            concerned.extend(self.alive.get(&owner).cloned());
        }
        concerned
    }

    fn release(&mut self, owner: &str, key: &Key) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(key);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The owner of a uid, if it is alive and in reach of `dependent`: its own namespace, or none.
    fn reach(&self, owner: &str, dependent: &Key) -> Option<&Key> {
        self.alive.get(owner).filter(|o| o.namespace.is_none() || o.namespace == dependent.namespace)
    }
}

/// Looks at one object, as a dependent and as an owner. `seen` is the change up to which `owners` is complete.
pub fn reconcile(context: &Context, owners: &mut Owners, key: &Key, seen: u64) -> Requeue {
    let Some(object) = context.store.get(key) else { return Requeue::No };
    if version(&object) > seen {
        // Its owners may be newer than what is known of them; its own change comes here soon.
        return Requeue::No;
    }
    if deleting(&object) {
        finish_owner(context, owners, key, &object);
        return Requeue::No;
    }
    let references = items(&object, "/metadata/ownerReferences");
    if references.is_empty() {
        return Requeue::No;
    }
    let mut solid = 0;
    let mut dangling = Vec::new();
    let mut waiting = false;
    for reference in references {
        match owners.reach(text(reference, "/uid"), key).and_then(|owner| context.store.get(owner)) {
            None => dangling.push(text(reference, "/uid").to_owned()),
            Some(owner) if deleting(&owner) && has_finalizer(&owner, FOREGROUND) => {
                waiting = true;
                dangling.push(uid(&owner).to_owned());
            }
            // One that orphans is still there until its finalizer has been worked off.
            Some(_) => solid += 1,
        }
    }
    if dangling.is_empty() {
        return Requeue::No;
    }
    if solid > 0 {
        edit(&context.store, key, uid(&object), Write::Spec, |object| {
            for owner in &dangling {
                remove_owner(object, owner);
            }
        });
        return Requeue::No;
    }
    // As its owner goes, so does it: in the foreground when somebody waits and it has dependents itself.
    if waiting && owners.dependents.contains_key(uid(&object)) {
        add_finalizer(context, key, &object, FOREGROUND);
    }
    delete(context, key, &object);
    Requeue::No
}

/// Works off the finalizers of an object that is being deleted.
fn finish_owner(context: &Context, owners: &Owners, key: &Key, object: &Value) {
    let dependents: Vec<Key> = owners.dependents.get(uid(object)).into_iter().flatten().cloned().collect();
    if has_finalizer(object, ORPHAN) {
        for dependent in &dependents {
            let Some(found) = context.store.get(dependent) else { continue };
            edit(&context.store, dependent, uid(&found), Write::Spec, |found| remove_owner(found, uid(object)));
        }
        remove_finalizer(context, key, object, ORPHAN);
    }
    if has_finalizer(object, FOREGROUND) {
        let mut blocked = false;
        for dependent in &dependents {
            let Some(found) = context.store.get(dependent) else { continue };
            let reference = items(&found, "/metadata/ownerReferences").iter().find(|o| text(o, "/uid") == uid(object));
            blocked |= reference.is_some_and(|o| flag(o, "/blockOwnerDeletion"));
            if reference.is_some() && !deleting(&found) {
                let others = items(&found, "/metadata/ownerReferences").len() > 1;
                if others {
                    edit(&context.store, dependent, uid(&found), Write::Spec, |found| remove_owner(found, uid(object)));
                    continue;
                }
                if owners.dependents.contains_key(uid(&found)) {
                    add_finalizer(context, dependent, &found, FOREGROUND);
                }
                delete(context, dependent, &found);
            }
        }
        if !blocked {
            remove_finalizer(context, key, object, FOREGROUND);
        }
    }
}

fn delete(context: &Context, key: &Key, object: &Value) {
    let pod = key.resource.group.is_empty() && key.resource.plural == "pods";
    // Gone already is as good.
    let _ = context.store.delete(key, Some(uid(object)), if pod { grace_seconds(object) } else { 0 });
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(object, "/metadata/finalizers").iter().any(|f| f == finalizer)
}

fn add_finalizer(context: &Context, key: &Key, object: &Value, finalizer: &str) {
    edit(&context.store, key, uid(object), Write::Spec, |object| {
        if !has_finalizer(object, finalizer) {
            let mut all = items(object, "/metadata/finalizers").to_vec();
            all.push(finalizer.into());
            metadata(object).insert("finalizers".into(), all.into());
        }
    });
}

fn remove_finalizer(context: &Context, key: &Key, object: &Value, finalizer: &str) {
    edit(&context.store, key, uid(object), Write::Spec, |object| {
        let rest: Vec<Value> = items(object, "/metadata/finalizers").iter().filter(|f| *f != finalizer).cloned().collect();
        if rest.is_empty() {
            metadata(object).remove("finalizers");
        } else {
            metadata(object).insert("finalizers".into(), rest.into());
        }
    });
}
