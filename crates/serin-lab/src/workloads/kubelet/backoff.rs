//! How long a container that has ended waits before it is started again, as the kubelet counts it.
//!
//! The first restart is at once; then 10 s from the end of the last run, doubling to 5 minutes. A run that ends more than
//! 10 minutes after the last count starts over (`k8s.io/client-go/util/flowcontrol/backoff.go`: twice the maximum).

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// The count of one container.
#[derive(Default)]
pub struct Backoff {
    next: Option<(Duration, Instant)>,
}

impl Backoff {
    /// How long to wait after a run that ended at `finished`; called once for each end, before the wait.
    pub fn after(&mut self, finished: Instant) -> Duration {
        match self.next {
            Some((wait, counted)) if finished.duration_since(counted) <= LONGEST * 2 => {
                self.next = Some(((wait * 2).min(LONGEST), finished + wait));
                wait
            }
            _ => {
                self.next = Some((FIRST, finished));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoff.after(now);
            waits.push(wait.as_secs());
            now += wait + Duration::from_secs(1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after(now + Duration::from_secs(601)), Duration::ZERO);
        assert_eq!(backoff.after(now + Duration::from_secs(602)), FIRST);
    }
}
