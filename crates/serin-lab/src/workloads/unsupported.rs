//! Kinds that the API keeps and nothing here carries out: each says so, where its owner looks.

use super::events::About;
use super::object::{edit, flag, items, map, name, new_condition, number, set_condition, text, uid};
use super::queue::Context;
use crate::store::{Key, Write};

/// A CronJob's schedule does not run: it is kept as a template that Jobs are made from.
pub fn cron_job(context: &Context, key: &Key) {
    let Some(object) = context.store.get(key).filter(|o| !flag(o, "/spec/suspend")) else { return };
    let message = format!("the lab starts no Jobs on a schedule; `kubectl create job --from=cronjob/{} NAME` starts one", name(&object));
    context.events.warning("cronjob-controller", About::whole("batch/v1", "CronJob", &object), "NotSupported", &message);
}

/// A HorizontalPodAutoscaler scales nothing, as in a cluster without a metrics server.
pub fn autoscaler(context: &Context, key: &Key) {
    let Some(object) = context.store.get(key) else { return };
    let now = (context.store.clock())();
    let target =
        Key::namespaced("apps", "deployments", key.namespace.as_deref().unwrap_or_default(), text(&object, "/spec/scaleTargetRef/name"));
    let replicas = context.store.get(&target).map_or(0, |d| number(&d, "/status/replicas", 0));
    edit(&context.store, key, uid(&object), Write::Status, |object| {
        let mut conditions = items(object, "/status/conditions").to_vec();
        let message = "the lab measures no resources and scales nothing by them";
        set_condition(&mut conditions, new_condition("ScalingActive", "False", "NotSupported", message, now));
        let status = map(object, "status");
        status.insert("currentReplicas".into(), replicas.into());
        status.insert("desiredReplicas".into(), replicas.into());
        status.insert("conditions".into(), conditions.into());
    });
}
