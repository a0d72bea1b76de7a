//! The arithmetic of rolling updates and of scaling: sizes in, sizes out. No objects, no clock, no I/O.
//!
//! It follows the deployment controller of Kubernetes (`pkg/controller/deployment/{rolling,sync}.go`), with one
//! difference that makes `maxSurge` and `maxUnavailable` hold at every moment and not only in the sum of what was asked
//! for: a set counts with the larger of its asked and its living pods, and with no more available pods than it
//! was asked to keep.

/// One ReplicaSet as the arithmetic sees it. Sets are listed from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Pods it is asked to have.
    pub asked: i64,
    /// Pods it has that nobody has told to end.
    pub living: i64,
    /// Of these, those ready for long enough.
    pub available: i64,
}

impl Set {
    /// Pods it may have, before its controller has caught up.
    fn at_most(self) -> i64 {
        self.asked.max(self.living)
    }

    /// Available pods it keeps once its controller has caught up: unready ones are deleted first.
    fn kept(self) -> i64 {
        self.available.min(self.asked)
    }
}

/// What a Deployment asks for, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `spec.replicas`.
    pub replicas: i64,
    /// Pods that may exist beyond `replicas`.
    pub max_surge: i64,
    /// Pods of `replicas` that may be unavailable.
    pub max_unavailable: i64,
}

impl Limits {
    /// Resolves both fields; with both 0 nothing could ever move, so one pod may then be unavailable.
    pub fn new(replicas: i64, max_surge: i64, max_unavailable: i64) -> Self {
        let max_unavailable = if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    fn max_total(self) -> i64 {
        self.replicas + self.max_surge
    }

    fn min_available(self) -> i64 {
        self.replicas - self.max_unavailable
    }
}

/// How large the new set may be now.
pub fn new_size(limits: Limits, new: Set, old: &[Set]) -> i64 {
    if new.asked >= limits.replicas {
        return limits.replicas;
    }
    let total = new.at_most() + old.iter().map(|s| s.at_most()).sum::<i64>();
    let room = limits.max_total() - total;
    new.asked + room.clamp(0, limits.replicas - new.asked)
}

/// How large the old sets may be now, in their order. Called when the new set has the size that [`new_size`] gives.
pub fn old_sizes(limits: Limits, new: Set, old: &[Set]) -> Vec<i64> {
    let mut sizes: Vec<i64> = old.iter().map(|s| s.asked).collect();
    let all_asked = new.asked + sizes.iter().sum::<i64>();
    let new_lacking = new.asked - new.kept();
    let room = all_asked - limits.min_available() - new_lacking;
    if room <= 0 {
        return sizes;
    }

    // Pods that serve nobody go first: this is what gets a rollout past an old version that never came up.
    let mut left = room;
    for (size, set) in sizes.iter_mut().zip(old) {
        let gone = left.min(*size - set.kept()).max(0);
        *size -= gone;
        left -= gone;
    }

    // Then available ones, as far as enough remain.
    let available = new.kept() + old.iter().map(|s| s.kept()).sum::<i64>();
    let mut left = available - limits.min_available();
    for size in &mut sizes {
        let gone = left.min(*size).max(0);
        *size -= gone;
        left -= gone;
    }
    sizes
}

/// One ReplicaSet as scaling sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Pods it is asked to have, above 0.
    pub asked: i64,
    /// What all sets together were allowed when it was last sized (`deployment.kubernetes.io/max-replicas`).
    pub of: i64,
}

/// Spreads a change of `spec.replicas` over the sets of an unfinished rollout in proportion to their sizes; what rounding
/// leaves goes to the first. Sets are given in the order in which they are served: larger first, and of equal ones the
/// newest when growing, the oldest when shrinking.
pub fn spread(limits: Limits, sets: &[Share]) -> Vec<i64> {
    let total: i64 = sets.iter().map(|s| s.asked).sum();
    let allowed = if limits.replicas > 0 { limits.max_total() } else { 0 };
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes: Vec<i64> = sets
        .iter()
        .map(|set| {
            let left = to_add - added;
            let share = share_of(limits, *set);
            let change = match to_add {
                0 => 0,
                grow if grow > 0 => share.min(left).max(0),
                _ => share.max(left).min(0),
            };
            added += change;
            set.asked + change
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

/// How much a set grows (or shrinks) to keep its share of the whole, rounded half away from zero.
fn share_of(limits: Limits, set: Share) -> i64 {
    if limits.replicas == 0 {
        return -set.asked;
    }
    let of = if set.of > 0 { set.of } else { limits.max_total() };
    let product = set.asked * limits.max_total();
    (2 * product + of).div_euclid(2 * of) - set.asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn set(asked: i64, living: i64, available: i64) -> Set {
        Set { asked, living, available }
    }

    #[test]
    fn three_replicas_at_the_defaults_surge_by_one_and_lose_none() {
        let limits = Limits::new(3, 1, 0);
        assert_eq!(new_size(limits, set(0, 0, 0), &[set(3, 3, 3)]), 1);
        assert_eq!(old_sizes(limits, set(1, 1, 0), &[set(3, 3, 3)]), [3]);
        assert_eq!(old_sizes(limits, set(1, 1, 1), &[set(3, 3, 3)]), [2]);
        assert_eq!(new_size(limits, set(1, 1, 1), &[set(2, 3, 3)]), 1, "the old pod is not gone yet");
        assert_eq!(new_size(limits, set(1, 1, 1), &[set(2, 2, 2)]), 2);
    }

    #[test]
    fn unready_pods_of_old_versions_make_way_first() {
        let limits = Limits::new(4, 1, 1);
        // The middle version never came up: its pods go, the oldest version keeps serving.
        assert_eq!(old_sizes(limits, set(0, 0, 0), &[set(3, 3, 3), set(2, 2, 0)]), [3, 0]);
    }

    #[test]
    fn no_surge_and_no_unavailability_still_moves() {
        assert_eq!(Limits::new(3, 0, 0).max_unavailable, 1);
    }

    #[test]
    fn scaling_in_the_middle_keeps_the_proportions() {
        // The example of Kubernetes' documentation: 10 replicas with maxSurge 3, 8 old and 5 new, scaled to 15.
        let shares = [Share { asked: 8, of: 13 }, Share { asked: 5, of: 13 }];
        assert_eq!(spread(Limits::new(15, 3, 2), &shares), [11, 7]);
        assert_eq!(spread(Limits::new(0, 3, 2), &shares), [0, 0]);
    }

    /// A world of pods under the arithmetic: pods come up, fail and go in any order, and controllers lag.
    #[derive(Clone, Debug)]
    struct World {
        limits: Limits,
        asked: Vec<i64>,
        /// Living pods per set; true is available.
        pods: Vec<Vec<bool>>,
    }

    impl World {
        fn sets(&self) -> Vec<Set> {
            let count = |n: usize| i64::try_from(n).unwrap();
            let sets = self.asked.iter().zip(&self.pods);
            sets.map(|(asked, pods)| set(*asked, count(pods.len()), count(pods.iter().filter(|p| **p).count()))).collect()
        }

        fn living(&self) -> i64 {
            self.sets().iter().map(|s| s.living).sum()
        }

        fn available(&self) -> i64 {
            self.sets().iter().map(|s| s.available).sum()
        }

        fn deployment_controller(&mut self) {
            let sets = self.sets();
            let (new, old) = sets.split_last().unwrap();
            let size = new_size(self.limits, *new, old);
            let last = self.asked.len() - 1;
            if size != new.asked {
                self.asked[last] = size;
            } else {
                for (asked, size) in self.asked.iter_mut().zip(old_sizes(self.limits, *new, old)) {
                    *asked = size;
                }
            }
        }

        /// One pod made or deleted, an unready one first.
        fn replica_set_controller(&mut self, which: usize) {
            let (asked, pods) = (self.asked[which], &mut self.pods[which]);
            let living = i64::try_from(pods.len()).unwrap();
            if living < asked {
                pods.push(false);
            } else if living > asked {
                let victim = pods.iter().position(|p| !p).unwrap_or(0);
                pods.remove(victim);
            }
        }
    }

    proptest! {
        #[test]
        fn surge_and_unavailability_hold_at_every_moment(
            replicas in 0i64..12, surge in 0i64..5, unavailable in 0i64..5,
            old in prop::collection::vec(0i64..6, 0..3),
            steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..400),
        ) {
            let limits = Limits::new(replicas, surge, unavailable);
            // The start is a finished rollout of the first old set, the others are remains of earlier tries.
            let mut asked: Vec<i64> = old;
            let mut room = limits.max_total();
            for a in &mut asked {
                *a = (*a).min(room);
                room -= *a;
            }
            asked.push(0);
            let pods = asked.iter().map(|a| vec![true; usize::try_from(*a).unwrap()]).collect();
            let mut world = World { limits, asked, pods };
            // Pods that failed after a deletion was decided and before it was done: nobody could have known.
            let mut failed = 0;
            for (what, which, pod) in steps {
                // A pod that comes up when its end is decided already is not counted on.
                let before: i64 = world.sets().iter().map(|s| s.kept()).sum();
                let n = which.index(world.pods.len());
                match what {
                    0 | 1 => world.deployment_controller(),
                    2 | 3 => world.replica_set_controller(n),
                    // A pod comes up, or fails.
                    4 | 5 => {
                        let pods = &mut world.pods[n];
                        if !pods.is_empty() {
                            let at = pod.index(pods.len());
                            failed += i64::from(pods[at] && what == 5);
                            pods[at] = what == 4;
                        }
                    }
                    _ => unreachable!(),
                }
                prop_assert!(world.living() <= limits.max_total(), "surge: {world:?}");
                if what < 4 {
                    let floor = (limits.min_available() - failed).min(before);
                    prop_assert!(world.available() >= floor, "{before} available before, {world:?}");
                }
                if world.sets().iter().all(|s| s.living <= s.asked) {
                    failed = 0;
                }
            }
            // And it ends: with every pod coming up, all pods are new ones.
            for _ in 0..200 {
                world.deployment_controller();
                for n in 0..world.pods.len() {
                    world.replica_set_controller(n);
                    world.pods[n].iter_mut().for_each(|p| *p = true);
                }
            }
            let sets = world.sets();
            let (new, old) = sets.split_last().unwrap();
            prop_assert_eq!(*new, set(replicas, replicas, replicas));
            prop_assert!(old.iter().all(|s| s.living == 0 && s.asked == 0), "{:?}", world);
        }

        #[test]
        fn spreading_gives_exactly_the_allowed_number(
            replicas in 0i64..50, surge in 0i64..5, sets in prop::collection::vec((1i64..20, 1i64..60), 1..5),
        ) {
            let limits = Limits::new(replicas, surge, 1);
            let mut shares: Vec<Share> = sets.iter().map(|(asked, of)| Share { asked: *asked, of: *of }).collect();
            shares.sort_by_key(|s| -s.asked);
            let sizes = spread(limits, &shares);
            prop_assert!(sizes.iter().all(|s| *s >= 0));
            let allowed = if replicas == 0 { 0 } else { limits.max_total() };
            let total: i64 = sizes.iter().sum();
            let before: i64 = shares.iter().map(|s| s.asked).sum();
            // Shrinking more than the first set holds stops at 0 there, as in Kubernetes; the next sync finishes it.
            prop_assert!(total == allowed || (before > allowed && sizes[0] == 0), "{sizes:?} of {allowed}");
        }
    }
}
