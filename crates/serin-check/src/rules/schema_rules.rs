//! Rules on fields and versions: what the API server would refuse or drop.

use super::{Cx, Out, nearest};
use crate::diag::{Finding, Severity, fix, replace};
use crate::object::Kind;
use crate::schema::{Issue, Problem};
use crate::yaml::View;

/// All that the field definitions say of the objects; computed once per pass.
fn issues<'c>(cx: &'c Cx<'_>) -> &'c [Issue] {
    cx.issues.get_or_init(|| {
        let mut found = Vec::new();
        for obj in &cx.index.objects {
            cx.schemas.check(obj, &mut found);
            if crate::crd::is_own(obj.kind) {
                crate::crd::check(obj, &mut found);
            }
        }
        found
    })
}

fn report(cx: &Cx<'_>, out: &mut Out, wanted: fn(&Problem) -> bool) {
    for issue in issues(cx).iter().filter(|i| wanted(&i.problem)) {
        let mut f = Finding::at(issue.loc, issue.label.clone()).fix(issue.fix.clone());
        if let Some(help) = &issue.help {
            f = f.help(help.clone());
        }
        // A field without a near neighbour may be newer than these definitions.
        if issue.problem == (Problem::Unknown { hint: None, sure: false }) {
            f = f.severity(Severity::Warning);
        }
        out.add(f);
    }
}

/// SRN010
pub(super) fn unknown_field(cx: &Cx<'_>, out: &mut Out) {
    report(cx, out, |p| matches!(p, Problem::Unknown { .. }));
}

/// SRN011
pub(super) fn wrong_type(cx: &Cx<'_>, out: &mut Out) {
    report(cx, out, |p| *p == Problem::WrongType);
}

/// SRN012
pub(super) fn missing_field(cx: &Cx<'_>, out: &mut Out) {
    report(cx, out, |p| *p == Problem::Missing);
}

/// SRN501
pub(super) fn refused(cx: &Cx<'_>, out: &mut Out) {
    report(cx, out, |p| *p == Problem::Refused);
}

/// SRN014
pub(super) fn bad_value(cx: &Cx<'_>, out: &mut Out) {
    report(cx, out, |p| *p == Problem::BadValue);
}

struct Removed {
    group: &'static str,
    version: &'static str,
    kinds: &'static [&'static str],
    new: &'static str,
    since: &'static str,
    /// The new version reads the same fields.
    same_fields: bool,
}

const REMOVED: &[Removed] = &[
    Removed {
        group: "extensions",
        version: "v1beta1",
        kinds: &["Deployment", "DaemonSet", "ReplicaSet"],
        new: "apps/v1",
        since: "Kubernetes 1.16",
        same_fields: false,
    },
    Removed {
        group: "extensions",
        version: "v1beta1",
        kinds: &["NetworkPolicy"],
        new: "networking.k8s.io/v1",
        since: "Kubernetes 1.16",
        same_fields: true,
    },
    Removed {
        group: "extensions",
        version: "v1beta1",
        kinds: &["Ingress"],
        new: "networking.k8s.io/v1",
        since: "Kubernetes 1.22",
        same_fields: false,
    },
    Removed {
        group: "networking.k8s.io",
        version: "v1beta1",
        kinds: &["Ingress"],
        new: "networking.k8s.io/v1",
        since: "Kubernetes 1.22",
        same_fields: false,
    },
    Removed {
        group: "apps",
        version: "v1beta1",
        kinds: &["Deployment", "StatefulSet"],
        new: "apps/v1",
        since: "Kubernetes 1.16",
        same_fields: false,
    },
    Removed {
        group: "apps",
        version: "v1beta2",
        kinds: &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"],
        new: "apps/v1",
        since: "Kubernetes 1.16",
        same_fields: true,
    },
    Removed {
        group: "policy",
        version: "v1beta1",
        kinds: &["PodDisruptionBudget"],
        new: "policy/v1",
        since: "Kubernetes 1.25",
        same_fields: true,
    },
    Removed {
        group: "autoscaling",
        version: "v2beta1",
        kinds: &["HorizontalPodAutoscaler"],
        new: "autoscaling/v2",
        since: "Kubernetes 1.25",
        same_fields: false,
    },
    Removed {
        group: "autoscaling",
        version: "v2beta2",
        kinds: &["HorizontalPodAutoscaler"],
        new: "autoscaling/v2",
        since: "Kubernetes 1.26",
        same_fields: true,
    },
    Removed { group: "batch", version: "v1beta1", kinds: &["CronJob"], new: "batch/v1", since: "Kubernetes 1.25", same_fields: true },
    Removed {
        group: "authentication.istio.io",
        version: "v1alpha1",
        kinds: &["Policy", "MeshPolicy"],
        new: "security.istio.io/v1 PeerAuthentication and RequestAuthentication",
        since: "Istio 1.6",
        same_fields: false,
    },
    Removed {
        group: "rbac.istio.io",
        version: "v1alpha1",
        kinds: &["ServiceRole", "ServiceRoleBinding", "ClusterRbacConfig", "RbacConfig"],
        new: "security.istio.io/v1 AuthorizationPolicy",
        since: "Istio 1.6",
        same_fields: false,
    },
];

/// Kinds of the judged groups that have no definitions here but do exist.
const OTHERS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "Secret",
            "PersistentVolumeClaim",
            "PersistentVolume",
            "Endpoints",
            "LimitRange",
            "ResourceQuota",
            "Event",
            "Node",
            "ReplicationController",
            "PodTemplate",
            "Binding",
            "List",
            "ComponentStatus",
        ],
    ),
    ("apps", &["ControllerRevision"]),
    ("networking.k8s.io", &["IngressClass", "IPAddress", "ServiceCIDR"]),
    ("networking.istio.io", &["ProxyConfig", "WorkloadGroup"]),
];

/// SRN013
pub(super) fn version(cx: &Cx<'_>, out: &mut Out) {
    for obj in &cx.index.objects {
        let Some(api) = obj.view.get("apiVersion") else {
            continue;
        };
        let removed = REMOVED.iter().find(|r| r.group == obj.group && r.version == obj.version && r.kinds.contains(&obj.kind_name));
        if let Some(r) = removed {
            let mend = r.same_fields.then(|| fix(format!("write {}", r.new), [replace(api, r.new)])).flatten();
            out.add(
                Finding::at(api.loc(), format!("gone since {}", r.since))
                    .effect("the API server answers that it knows no such kind")
                    .help(format!("use {}", r.new))
                    .fix(mend),
            );
            continue;
        }
        known_group(cx, obj, api, out);
    }
}

fn known_group(cx: &Cx<'_>, obj: &crate::object::Object<'_>, api: View<'_>, out: &mut Out) {
    if crate::crd::is_own(obj.kind) {
        let known = crate::crd::versions(obj.kind);
        if !known.iter().any(|v| v == obj.version) {
            out.add(
                Finding::at(api.loc(), format!("{} has no version {}", obj.kind_name, obj.version))
                    .help(format!("use serin.dev/{}", super::list(known))),
            );
        }
        return;
    }
    if obj.group == "serin.dev"
        && let Some(kind) = obj.view.get("kind")
    {
        const OWN: [&str; 2] = ["CanaryRelease", "CanaryPolicy"];
        let meant = nearest(obj.kind_name, OWN).map_or_else(|| format!("use {}", OWN.join(" or ")), |own| format!("use {own}"));
        out.add(Finding::at(kind.loc(), format!("serin.dev has no kind {}", obj.kind_name)).help(meant));
        return;
    }
    if let Some(versions) = cx.schemas.versions(obj.group, obj.kind_name) {
        // v1 of the autoscaler is served beside v2, with other fields.
        let also = obj.kind == Kind::HorizontalPodAutoscaler && obj.version == "v1";
        if !versions.contains(&obj.version) && !also {
            let prefix = if obj.group.is_empty() { String::new() } else { format!("{}/", obj.group) };
            out.add(
                Finding::at(api.loc(), format!("{} has no version {}", obj.kind_name, obj.version))
                    .help(format!("use {prefix}{}", versions[0])),
            );
        }
        return;
    }
    let Some(kind) = obj.view.get("kind") else {
        return;
    };
    let others = OTHERS.iter().find(|(g, _)| *g == obj.group).map_or(&[][..], |(_, k)| k);
    if others.contains(&obj.kind_name) {
        return;
    }
    if let Some(hint) = nearest(obj.kind_name, cx.schemas.kinds_of(obj.group)) {
        out.add(
            Finding::at(kind.loc(), format!("{} has no such kind", obj.group))
                .help(format!("did you mean {hint}?"))
                .fix(fix(format!("write {hint}"), [replace(kind, hint)])),
        );
        return;
    }
    // A known kind under another group: `apiVersion: v1` with `kind: Deployment`.
    let home = cx.schemas.homes(obj.kind_name).filter(|(g, _)| *g != obj.group).min();
    let judged = matches!(
        obj.group,
        "" | "apps"
            | "batch"
            | "policy"
            | "autoscaling"
            | "networking.k8s.io"
            | "networking.istio.io"
            | "security.istio.io"
            | "telemetry.istio.io"
            | "monitoring.coreos.com"
    );
    if let (Some((group, version)), true) = (home, judged) {
        let right = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        out.add(
            Finding::at(api.loc(), format!("{} is not of this group", obj.kind_name))
                .help(format!("write {right}"))
                .fix(fix(format!("write {right}"), [replace(api, right)])),
        );
    }
}
