//! One pod: its address, its containers in their order, its status, and its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::events::About;
use super::super::object::{deleting, edit, items, name, namespace, pod_finished, text, uid};
use super::container::{Container, Order, Role, States, until_ending, until_killed};
use super::ip::PodIp;
use super::status::{ContainerState, State, pod_status, restart_policy};
use super::{COMPONENT, Kubelet, NOT_RUN};
use crate::store::{Key, Object, Write};

/// A pod that was deleted by force has this long to end.
const FORCED_GRACE: Duration = Duration::from_secs(1);

/// What the kubelet's loop tells a pod's task.
#[derive(Clone)]
pub enum Seen {
    /// It is there, like this.
    There(Object),
    /// Its object is gone; so must its processes be.
    Gone,
}

struct Pod {
    kubelet: Arc<Kubelet>,
    key: Key,
    uid: String,
    object: watch::Sender<Object>,
    order: watch::Sender<Order>,
    states: States,
    /// How many of the states are init containers.
    n_init: usize,
    ip: Option<PodIp>,
}

/// Runs a pod from its binding to its end. `seen` brings its changes; `stop` ends it with the lab.
pub async fn run(kubelet: Arc<Kubelet>, key: Key, object: Object, mut seen: watch::Receiver<Seen>, stop: CancellationToken) {
    let init = items(&object, "/spec/initContainers");
    let main = items(&object, "/spec/containers");
    let waiting = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let states = init.iter().map(|c| ContainerState::new(c, sidecar(c))).chain(main.iter().map(|c| {
        let mut state = ContainerState::new(c, false);
        state.state = State::Waiting { reason: waiting.into(), message: String::new() };
        state
    }));
    let mut pod = Pod {
        uid: uid(&object).to_owned(),
        n_init: init.len(),
        states: States::new(states.collect()),
        object: watch::Sender::new(object.clone()),
        order: watch::Sender::new(Order::Run),
        ip: None,
        kubelet,
        key,
    };
    pod.play_absent();
    if pod_finished(&object) {
        // Left from an earlier life of the store: nothing to run, only to be there.
        pod.until_deleted(&mut seen, &stop).await;
        return;
    }
    pod.ip = pod.kubelet.config.ips.take();
    let Some(ip) = pod.ip.as_ref().map(PodIp::addr) else {
        pod.warn("FailedCreatePodSandBox", "all addresses of this lab are taken");
        pod.until_deleted(&mut seen, &stop).await;
        return;
    };
    let mut changes = pod.states.changes();
    pod.write_status();

    let mut tasks = JoinSet::new();
    let containers = pod.run_containers(IpAddr::V4(ip), &mut tasks);
    let finished = {
        tokio::pin!(containers);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => pod.order.send_replace(Order::Kill),
                changed = seen.changed(), if *pod.order.borrow() != Order::Kill => {
                    let now = seen.borrow_and_update().clone();
                    pod.notice(changed.is_ok().then_some(now))
                }
                () = &mut containers => break,
                _ = changes.changed() => {
                    pod.write_status();
                    continue;
                }
            };
            if *pod.order.borrow() == Order::Kill {
                // Nobody reads the status of a lab that stops.
                (&mut containers).await;
                break;
            }
        }
        !stop.is_cancelled()
    };
    if !finished {
        return;
    }
    pod.write_status();
    // All containers have ended for good: the address is free, whatever the object still says.
    pod.ip = None;
    // One that is never restarted (a Job's, say) stays as an object until somebody deletes it.
    pod.until_deleted(&mut seen, &stop).await;
}

/// An init container that keeps running.
fn sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

impl Pod {
    fn warn(&self, reason: &str, message: &str) {
        let object = self.object.borrow().clone();
        self.kubelet.events.warning(COMPONENT, About::whole("v1", "Pod", &object), reason, message);
    }

    /// Containers that the mesh plays count as running, without a process.
    fn play_absent(&self) {
        let now = self.kubelet.now();
        for (slot, state) in self.states.get().iter().enumerate() {
            if !NOT_RUN.contains(&state.name.as_str()) {
                continue;
            }
            self.states.set(slot, |s| {
                s.played_by = "serin://mesh".into();
                if slot < self.n_init && !s.sidecar {
                    let end = super::status::End {
                        code: 0,
                        signal: None,
                        reason: "Completed".into(),
                        message: "played by the lab's mesh".into(),
                        started: now,
                        finished: now,
                    };
                    s.state = State::Terminated(end);
                } else {
                    s.state = State::Running { since: now };
                    (s.ready, s.started) = (true, true);
                }
            });
        }
    }

    /// Takes in what was seen of the object.
    fn notice(&self, seen: Option<Seen>) -> Order {
        let order = match seen {
            Some(Seen::There(object)) => {
                let order = match object["metadata"]["deletionGracePeriodSeconds"].as_u64() {
                    Some(grace) if deleting(&object) => {
                        let asked = Instant::now() + Duration::from_secs(grace);
                        match *self.order.borrow() {
                            // Asked again: only earlier, never later.
                            Order::End { by } => Order::End { by: by.min(asked) },
                            Order::Run | Order::Kill => Order::End { by: asked },
                        }
                    }
                    Some(_) | None if deleting(&object) => Order::End { by: Instant::now() },
                    Some(_) | None => Order::Run,
                };
                self.object.send_replace(object);
                order
            }
            Some(Seen::Gone) => Order::End { by: Instant::now() + FORCED_GRACE },
            // The kubelet's loop is gone, so is the lab.
            None => Order::Kill,
        };
        self.order.send_if_modified(|present| {
            let changed = *present != order && *present != Order::Kill;
            if changed {
                *present = order;
            }
            changed
        });
        order
    }

    fn container(&self, spec: &Value, slot: usize, role: Role, ip: IpAddr, order: watch::Receiver<Order>) -> Container {
        Container {
            kubelet: self.kubelet.clone(),
            pod: self.object.subscribe(),
            spec: spec.clone(),
            role,
            ip,
            states: self.states.clone(),
            slot,
            order,
        }
    }

    /// Runs the containers: init containers one after the other, then the others together; returns when all have ended.
    /// It borrows nothing of the pod, so that the pod can be told of changes meanwhile.
    fn run_containers(&self, ip: IpAddr, tasks: &mut JoinSet<()>) -> impl Future<Output = ()> + use<> {
        let object = self.object.borrow().clone();
        let states = self.states.clone();
        let mut order = self.order.subscribe();
        let skip = |spec: &Value| NOT_RUN.contains(&text(spec, "/name"));
        let mut init: Vec<(Container, Role)> = Vec::new();
        // Sidecars outlive the main containers; the order for them comes from here.
        let beside = watch::Sender::new(Order::Run);
        for (slot, spec) in items(&object, "/spec/initContainers").iter().enumerate().filter(|(_, spec)| !skip(spec)) {
            let (role, order) = if sidecar(spec) { (Role::Sidecar, beside.subscribe()) } else { (Role::Init, self.order.subscribe()) };
            init.push((self.container(spec, slot, role, ip, order), role));
        }
        let mut first = true;
        let mut main: Vec<Container> = Vec::new();
        for (n, spec) in items(&object, "/spec/containers").iter().enumerate().filter(|(_, spec)| !skip(spec)) {
            main.push(self.container(spec, self.n_init + n, Role::Main { first }, ip, self.order.subscribe()));
            first = false;
        }
        // A pod of nothing but what the mesh plays runs until it is deleted.
        let only_mesh = main.is_empty();
        let never = restart_policy(&object) == "Never";
        let mut tasks = std::mem::take(tasks);
        async move {
            let mut sidecars = JoinSet::new();
            let mut failed = false;
            for (container, role) in init {
                if failed || *order.borrow() != Order::Run {
                    break;
                }
                let slot = container.slot;
                match role {
                    Role::Sidecar => {
                        sidecars.spawn(container.run());
                        // The next one starts when it has: `started` is set after its startup probe.
                        let mut changes = states.changes();
                        while !states.get().get(slot).is_some_and(|s| s.started) && *order.borrow() == Order::Run {
                            tokio::select! {
                                _ = changes.changed() => {}
                                () = until_ending(&mut order) => {}
                            }
                        }
                    }
                    Role::Init | Role::Main { .. } => failed = container.run().await != Some(0) && never,
                }
            }
            if !failed && *order.borrow() == Order::Run {
                for container in main {
                    tasks.spawn(async move {
                        container.run().await;
                    });
                }
                if only_mesh {
                    until_ending(&mut order).await;
                }
            }
            loop {
                tokio::select! {
                    ended = tasks.join_next() => match ended {
                        Some(Ok(())) => {}
                        Some(Err(error)) => tracing::error!(%error, "a container's task"),
                        None => break,
                    },
                    // A lab that stops does not wait for the main ones to end first.
                    () = until_killed(&mut order), if *beside.borrow() != Order::Kill => {
                        beside.send_replace(Order::Kill);
                    }
                }
            }
            let last = match *order.borrow() {
                Order::Run => Order::End { by: Instant::now() + Duration::from_secs(30) },
                given => given,
            };
            beside.send_replace(last);
            while sidecars.join_next().await.is_some() {}
        }
    }

    fn write_status(&self) {
        let now = self.kubelet.now();
        let states = self.states.get();
        let (init, main) = states.split_at(self.n_init);
        let ip = self.ip.as_ref().map(|ip| ip.addr().to_string());
        edit(&self.kubelet.store, &self.key, &self.uid, Write::Status, |pod| {
            let keep = text(pod, "/status/podIP").to_owned();
            let ip = ip.as_deref().or(Some(keep.as_str()).filter(|k| !k.is_empty()));
            pod["status"] = pod_status(pod, init, main, ip, now);
        });
    }

    /// Waits for the end of a pod that runs nothing (any more), and lets its object go.
    async fn until_deleted(&self, seen: &mut watch::Receiver<Seen>, stop: &CancellationToken) {
        let asked = |seen: &Seen| match seen {
            Seen::There(pod) => deleting(pod),
            Seen::Gone => true,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = seen.wait_for(asked) => {}
        }
        self.forget();
    }

    fn forget(&self) {
        // Gone already, or replaced by another of the same name: nothing of ours is left.
        let _ = self.kubelet.store.delete(&self.key, Some(&self.uid), 0);
        let object = self.object.borrow().clone();
        let replaced = self.kubelet.store.get(&self.key).is_some_and(|now| uid(&now) != self.uid);
        if !replaced {
            self.kubelet.config.logs.remove(namespace(&object), name(&object));
        }
    }
}
