//! `serin get`: releases as a list, as kubectl would print them.

use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt, pin_mut};
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use serin_api::CanaryRelease;

use super::{Format, print};
use crate::clock::now;
use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::view::release::{Columns, list};

/// List releases
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done; 2 no answer.\n\nExamples:\n  serin get\n  serin get -A -o wide\n  serin get my-app -o json\n  serin get my-app -o yaml --resolved"
)]
pub(crate) struct GetArgs {
    /// Only this release
    name: Option<String>,
    /// Releases of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only releases with these labels, as team=shop
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Go on printing each change
    #[arg(short, long)]
    watch: bool,
    /// The spec that is worked with: what the release says, completed by its policy and Serin's defaults, and where each value comes from
    #[arg(long, requires = "name", conflicts_with = "watch")]
    resolved: bool,
    /// The controller's namespace, whose CanaryPolicy "default" holds for releases that name none
    #[arg(long, value_name = "NAME", default_value = super::install::NAMESPACE, requires = "resolved")]
    controller_namespace: String,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Output>,
}

/// Formats of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The objects, for machines
    Json,
    /// The objects, for machines and people
    Yaml,
    /// With more columns
    Wide,
    /// Only canaryrelease.serin.dev/NAME
    Name,
}

/// Prints the list, and with `-w` every change after it.
pub(crate) async fn run(args: GetArgs, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let api: Api<CanaryRelease> = if args.all_namespaces { Api::all(cluster.client.clone()) } else { cluster.releases() };
    if let (true, Some(name)) = (args.resolved, &args.name) {
        let format = if args.output == Some(Output::Json) { Format::Json } else { Format::Yaml };
        return super::resolved::run(&cluster, name, &args.controller_namespace, format).await;
    }
    let releases = match &args.name {
        Some(_) if args.all_namespaces => return Err(Failure::new("a name and --all-namespaces do not go together").hint("serin get -A")),
        Some(name) => vec![cluster.release(name).await?],
        None => {
            let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
            api.list(&params).await.map_err(|e| failed(&cluster, args.all_namespaces, &e))?.items
        }
    };
    if releases.is_empty() && !args.watch && matches!(args.output, None | Some(Output::Wide)) {
        let place = if args.all_namespaces { "in any namespace".to_string() } else { format!("in namespace {}", cluster.namespace) };
        out::talk(&format!("no CanaryRelease {place}"));
        return Ok(Exit::Done);
    }
    show(&args, &releases, true)?;
    if args.watch {
        follow(&args, api, &releases).await?;
    }
    Ok(Exit::Done)
}

fn failed(cluster: &Cluster, all: bool, error: &kube::Error) -> Failure {
    let place = if all { "in all namespaces".to_string() } else { format!("in namespace {}", cluster.namespace) };
    cluster.failed(&format!("list CanaryReleases {place}"), error)
}

fn columns(args: &GetArgs) -> Columns {
    Columns::of(args.all_namespaces, args.output == Some(Output::Wide))
}

fn show(args: &GetArgs, releases: &[CanaryRelease], heads: bool) -> Result<(), Failure> {
    match args.output {
        None | Some(Output::Wide) => {
            let text = list(releases, columns(args), now());
            let skip = usize::from(!heads);
            out::answer(&text.lines().skip(skip).map(|l| format!("{l}\n")).collect::<String>())
        }
        Some(Output::Name) => {
            out::answer(&releases.iter().map(|r| format!("canaryrelease.serin.dev/{}\n", r.name_any())).collect::<String>())
        }
        Some(Output::Json) => print(Format::Json, &whole(args, releases)),
        Some(Output::Yaml) => print(Format::Yaml, &whole(args, releases)),
    }
}

/// One object where one was asked for by name, else a list, as kubectl does.
fn whole(args: &GetArgs, releases: &[CanaryRelease]) -> Value {
    let objects: Vec<Value> = releases.iter().map(object).collect();
    match (objects.as_slice(), &args.name) {
        ([one], Some(_)) => one.clone(),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    }
}

/// An object of a list carries no kind; printed alone it must.
fn object(release: &CanaryRelease) -> Value {
    let mut value = serde_json::to_value(release).unwrap_or_default();
    value["apiVersion"] = CanaryRelease::api_version(&()).into();
    value["kind"] = CanaryRelease::kind(&()).into();
    value
}

async fn follow(args: &GetArgs, api: Api<CanaryRelease>, shown: &[CanaryRelease]) -> Result<(), Failure> {
    let mut config = watcher::Config::default();
    if let Some(labels) = &args.selector {
        config = config.labels(labels);
    }
    if let Some(name) = &args.name {
        config = config.fields(&format!("metadata.name={name}"));
    }
    let mut known: std::collections::HashMap<String, Option<String>> = shown.iter().map(|r| (key(r), r.resource_version())).collect();
    let changes = watcher(api, config).default_backoff().applied_objects();
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        // The watcher comes back by itself; a person is told why nothing moves meanwhile.
        match change {
            Ok(release) => {
                if known.insert(key(&release), release.resource_version()) != Some(release.resource_version()) {
                    show(args, &[release], false)?;
                }
            }
            Err(e) => out::talk(&format!("serin: watching again: {}", crate::cluster::chain(&e))),
        }
    }
    Ok(())
}

fn key(release: &CanaryRelease) -> String {
    format!("{}/{}", release.namespace().unwrap_or_default(), release.name_any())
}

/// The changes of one release, beginning with how it stands.
pub(crate) fn changes_of(api: Api<CanaryRelease>, name: &str) -> impl futures::Stream<Item = Result<CanaryRelease, watcher::Error>> {
    watcher::watch_object(api, name).try_filter_map(|release| futures::future::ready(Ok(release)))
}
