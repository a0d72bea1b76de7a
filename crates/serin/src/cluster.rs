//! The way to a cluster: kubectl's flags in, a client out, and errors in words that name what to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use serin_api::CanaryRelease;

use crate::exit::Failure;

/// How to reach the cluster, as kubectl has it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig to use [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// Act as this user
    #[arg(long = "as", value_name = "USER", help_heading = "Cluster")]
    pub(crate) impersonate: Option<String>,
    /// The namespace [default: the context's]
    #[arg(short = 'n', long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) namespace: Option<String>,
}

/// A command's own arguments, beside those that reach the cluster.
#[derive(Args, Debug)]
pub(crate) struct On<T: Args> {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) args: T,
}

/// A client, and the namespace that commands work in.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// The namespace of `-n`, else the context's.
    pub(crate) namespace: String,
    /// Whom the cluster takes the caller for, as far as the kubeconfig says; for requests and their history.
    pub(crate) user: String,
    /// The server, for messages.
    pub(crate) server: String,
}

/// A person does not wait longer for a cluster that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl ClusterArgs {
    /// Reads the kubeconfig and makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    pub(crate) async fn connect(&self) -> Result<Cluster, Failure> {
        let kubeconfig = self.read()?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let context = self.context.clone().or_else(|| kubeconfig.current_context.clone());
        let named = kubeconfig.contexts.iter().find(|c| Some(&c.name) == context.as_ref()).and_then(|c| c.context.as_ref());
        let user = named.and_then(|c| c.user.clone()).unwrap_or_default();
        let cluster_name = named.map(|c| c.cluster.clone()).unwrap_or_default();
        let cluster = kubeconfig.clusters.iter().find(|c| c.name == cluster_name).and_then(|c| c.cluster.as_ref());
        let proxy = cluster.and_then(|c| c.proxy_url.clone());
        let contexts: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| {
            let failure = Failure::new(format!("cannot use the kubeconfig: {e}"));
            match &self.context {
                Some(context) if !contexts.contains(context) => {
                    Failure::new(format!("the kubeconfig has no context {context}; there is {}", listed(&contexts)))
                        .hint("kubectl config get-contexts")
                }
                _ => failure.hint("kubectl config view"),
            }
        })?;
        // kube takes HTTPS_PROXY and ignores NO_PROXY, which sends a cluster on this very machine through a proxy.
        if proxy.is_none() {
            config.proxy_url = None;
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| Failure::new(format!("cannot make a client for {server}: {e}")))?;
        let user = self.impersonate.clone().unwrap_or(user);
        Ok(Cluster { client, namespace, user, server })
    }

    fn read(&self) -> Result<Kubeconfig, Failure> {
        match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map_err(|e| Failure::new(why_unread(&e)).hint("serin lab status")),
            None => Kubeconfig::read().map_err(|e| {
                let hint = "set KUBECONFIG or --kubeconfig, or start a cluster on this machine: serin lab up";
                Failure::new(format!("no cluster to talk to: {}", why_unread(&e))).hint(hint)
            }),
        }
    }
}

fn why_unread(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(cause, path) => format!("cannot read kubeconfig {}: {cause}", path.display()),
        other => format!("cannot read the kubeconfig: {}", chain(other)),
    }
}

impl Cluster {
    /// CanaryReleases of the namespace.
    pub(crate) fn releases(&self) -> Api<CanaryRelease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// CanaryPolicies of a namespace.
    pub(crate) fn policies(&self, namespace: &str) -> Api<serin_api::CanaryPolicy> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The release of that name.
    ///
    /// # Errors
    /// It is not there, and which are; or the cluster does not answer.
    pub(crate) async fn release(&self, name: &str) -> Result<CanaryRelease, Failure> {
        let api = self.releases();
        match api.get_opt(name).await {
            Ok(Some(release)) => Ok(release),
            Ok(None) => {
                let all = api
                    .list(&ListParams::default())
                    .await
                    .map_err(|e| self.failed(&format!("list CanaryReleases in namespace {}", self.namespace), &e))?;
                let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
                Err(Failure::new(format!("no CanaryRelease {name} in namespace {}; there is {}", self.namespace, listed(&names)))
                    .hint(if names.is_empty() { "serin get -A" } else { "serin get" }))
            }
            Err(e) => Err(self.failed(&format!("read CanaryRelease {}/{name}", self.namespace), &e)),
        }
    }

    /// A failed call in words: what was tried, why it failed, and what to type.
    pub(crate) fn failed(&self, tried: &str, error: &kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                let failure = Failure::new(format!("cannot {tried}: {}", status.message));
                match grant(&status.message) {
                    Some(lines) => lines.into_iter().fold(failure, Failure::hint),
                    None => failure.hint(format!("kubectl auth can-i --list -n {}", self.namespace)),
                }
            }
            kube::Error::Api(status) if status.code == 401 => {
                Failure::new(format!("cannot {tried}: {} does not know the credentials of the kubeconfig", self.server))
                    .hint("kubectl auth whoami")
            }
            kube::Error::Api(status)
                if status.code == 404 && status.reason.is_empty()
                    || matches!(error, kube::Error::Api(s) if s.code == 404 && s.message.contains("page not found")) =>
            {
                Failure::new(format!("cannot {tried}: {} does not know the kind CanaryRelease ({})", self.server, status_text(error)))
                    .hint("serin install --crds | kubectl apply -f -")
            }
            kube::Error::Api(status) => Failure::new(format!("cannot {tried}: {}", status.message)),
            _ => Failure::new(format!("cannot {tried}: {} does not answer: {}", self.server.trim_end_matches('/'), chain(error)))
                .hint("kubectl cluster-info"),
        }
    }
}

/// The lines that give the right that an API server misses, out of its own words: `User "u" cannot list resource "r" in API group "g"
/// in the namespace "n"`, or `at the cluster scope`.
fn grant(message: &str) -> Option<Vec<String>> {
    let quoted = |after: &str| message.split_once(after)?.1.split('"').nth(1).filter(|s| !s.is_empty());
    let user = quoted("User ")?;
    let verb = message.split_once(" cannot ")?.1.split(' ').next()?;
    let resource = quoted(" resource ")?;
    let group = quoted(" API group ").map(|g| format!(".{g}")).unwrap_or_default();
    // A subresource comes after its kind and group: canaryreleases.serin.dev/status.
    let resource = match resource.split_once('/') {
        Some((kind, sub)) => format!("{kind}{group}/{sub}"),
        None => format!("{resource}{group}"),
    };
    let (kind, place) = match quoted(" in the namespace ") {
        Some(namespace) => ("role", format!(" -n {namespace}")),
        None => ("clusterrole", String::new()),
    };
    let binding = format!("{kind}binding");
    // An account of a namespace is bound as one.
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    };
    Some(vec![
        format!("kubectl create {kind} serin-{verb} --verb={verb} --resource={resource}{place}"),
        format!("kubectl create {binding} serin-{verb} --{kind}=serin-{verb} {subject}{place}"),
    ])
}

/// A definition is served within moments of its creation.
const SERVED: Duration = Duration::from_secs(30);

/// Makes the kind known, as `serin install --crds | kubectl apply -f -` does, and waits until it is served.
///
/// # Errors
/// The cluster refuses it.
pub(crate) async fn define(cluster: &Cluster) -> Result<(), Failure> {
    for crd in serin_api::definitions() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        match api.create(&PostParams::default(), &crd).await {
            Ok(_) => {}
            Err(e) if matches!(&e, kube::Error::Api(s) if s.is_already_exists()) => {}
            Err(e) => return Err(cluster.failed(&format!("create CustomResourceDefinition {name}"), &e)),
        }
        let established = conditions::is_crd_established();
        match tokio::time::timeout(SERVED, await_condition(api, &name, established)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(Failure::new(format!("cannot watch CustomResourceDefinition {name}: {}", chain(&e)))),
            Err(_) => return Err(Failure::new(format!("CustomResourceDefinition {name} is not served"))),
        }
    }
    Ok(())
}

fn status_text(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error { format!("{} {}", status.code, status.message.trim()) } else { String::new() }
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// `a, b and c`; `none`.
pub(crate) fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_string(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::grant;

    #[test]
    fn a_right_that_lacks_is_told_with_the_lines_that_give_it() {
        let said = r#"canaryreleases.serin.dev "cart" is forbidden: User "jane" cannot patch resource "canaryreleases/status" in API group "serin.dev" in the namespace "shop""#;
        assert_eq!(
            grant(said).expect("lines"),
            [
                "kubectl create role serin-patch --verb=patch --resource=canaryreleases.serin.dev/status -n shop",
                "kubectl create rolebinding serin-patch --role=serin-patch --user=jane -n shop",
            ]
        );
        let said = r#"pods is forbidden: User "system:serviceaccount:serin-system:serin" cannot list resource "pods" in API group "" at the cluster scope"#;
        assert_eq!(
            grant(said).expect("lines"),
            [
                "kubectl create clusterrole serin-list --verb=list --resource=pods",
                "kubectl create clusterrolebinding serin-list --clusterrole=serin-list --serviceaccount=serin-system:serin",
            ]
        );
        assert_eq!(grant("forbidden by a webhook"), None);
    }
}
