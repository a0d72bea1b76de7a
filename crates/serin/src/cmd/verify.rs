//! `serin verify`: bounded traffic, and an exact test of the measured split against the weights.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, stream};
use http::Uri;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::json;
use serin_api::convert::{defaults, version_label};
use serin_core::reason::count;
use serin_core::route::ServiceName;

use super::{Format, print};
use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::istio::Mesh;
use crate::out;
use crate::split::{Expected, because, expected, judge};
use crate::web::Web;

/// Send bounded traffic and test the measured split against the weights
#[derive(Args, Debug)]
#[command(
    after_help = "Requests go to the lab's callers' proxy, where a lab runs, else to --url. Each answer has to name its version in a header.\n\nExit codes: 0 the split is as set; 1 it is not; 2 no answer.\n\nExamples:\n  serin verify my-app\n  serin verify my-app --requests 2000 --url http://shop.example/ --version-header x-version"
)]
pub(crate) struct VerifyArgs {
    /// The release, or the Service
    name: String,
    /// How many requests
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: u32,
    /// At most this many a second
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Where to send them [default: the lab's callers' proxy]
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
    /// The Host header [default: the URL's, or the Service]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The header of the answer that names the version
    #[arg(long, value_name = "NAME", default_value = "x-version")]
    version_header: String,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Requests under way at once: enough for the rate at 20 ms each, few enough to disturb nobody.
const AT_ONCE: usize = 16;

/// Sends, counts and judges.
pub(crate) async fn run(args: VerifyArgs, cluster: &ClusterArgs) -> Outcome {
    let kubeconfig = cluster.kubeconfig.clone();
    let cluster = cluster.connect().await?;
    let (service, label) = service(&cluster, &args.name).await?;
    let mesh = Mesh::read(&cluster).await?;
    let expected = expected(&mesh, &service, &label)?;
    let (url, host) = match &args.url {
        Some(url) => (url.clone(), args.host.clone()),
        None => (crate::cmd::lab::callers_proxy(kubeconfig.as_deref())?, Some(args.host.clone().unwrap_or_else(|| service.name.clone()))),
    };
    let (counts, other) = send(&args, &url, host.as_deref()).await?;
    let verdict = judge(&expected.shares, &counts);
    let why = if verdict.agrees { None } else { because(&expected) };
    if let Some(format) = args.output {
        print(
            format,
            &json!({"name": args.name, "url": url.to_string(), "virtualService": expected.virtual_service, "weights": expected.written, "agrees": verdict.agrees,
                "requests": verdict.requests, "versions": verdict.versions, "other": other, "because": why}),
        )?;
    } else {
        let word = if verdict.agrees { "verified" } else { "measured" };
        let mut text = format!("{}  {word}: {}\n", args.name, verdict.sentence(&expected.written));
        if let Some(why) = &why {
            text += &format!("        {why}\n");
        }
        for (what, n) in &other {
            text += &format!("        {} requests had no version: {what}\n", count(*n as f64));
        }
        out::answer(&text)?;
    }
    if verdict.requests == 0 {
        return Err(no_version(&args, &expected, &url, &other));
    }
    Ok(if verdict.agrees { Exit::Done } else { Exit::No })
}

fn no_version(args: &VerifyArgs, expected: &Expected, url: &Uri, other: &BTreeMap<String, u64>) -> Failure {
    let what = other.keys().next().cloned().unwrap_or_default();
    Failure::new(format!("no answer of {url} named its version: {what}"))
        .hint(format!("kubectl get virtualservice {} -o yaml", expected.virtual_service))
        .hint(format!("serin verify {} --version-header NAME", args.name))
}

/// The Service behind a release of that name, or the Service of that name; and the label that tells versions apart.
async fn service(cluster: &Cluster, name: &str) -> Result<(ServiceName, String), Failure> {
    if let Ok(Some(release)) = cluster.releases().get_opt(name).await {
        return Ok((ServiceName::new(&release.spec.service, &cluster.namespace), version_label(&release.spec).to_string()));
    }
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match services.get_opt(name).await {
        Ok(Some(_)) => Ok((ServiceName::new(name, &cluster.namespace), defaults::LABEL.to_string())),
        Ok(None) => Err(Failure::new(format!("neither a CanaryRelease nor a Service {name} is in namespace {}", cluster.namespace))
            .hint("kubectl get services")),
        Err(e) => Err(cluster.failed(&format!("read Service {}/{name}", cluster.namespace), &e)),
    }
}

/// Answers by version; and those without one, by what became of them.
async fn send(args: &VerifyArgs, url: &Uri, host: Option<&str>) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>), Failure> {
    let web = Web::new()?;
    let begin = tokio::time::Instant::now();
    let gap = Duration::from_secs(1) / args.rate;
    let one = |i: u32| {
        let web = web.clone();
        async move {
            tokio::time::sleep_until(begin + gap * i).await;
            web.get(url, host).await
        }
    };
    let mut answers = stream::iter(0..args.requests).map(one).buffer_unordered(AT_ONCE);
    let (mut counts, mut other) = (BTreeMap::new(), BTreeMap::new());
    while let Some(answer) = answers.next().await {
        let version = match &answer {
            Ok(answer) => answer
                .headers
                .get(&args.version_header)
                .and_then(|v| v.to_str().ok())
                .map(ToString::to_string)
                .ok_or_else(|| format!("HTTP {} without header {}", answer.status.as_u16(), args.version_header)),
            Err(e) => Err(e.clone()),
        };
        match version {
            Ok(version) => *counts.entry(version).or_insert(0) += 1,
            Err(what) => *other.entry(what).or_insert(0) += 1,
        }
    }
    Ok((counts, other))
}
