//! The lab's API server alone: prints the kubeconfig that it wrote and serves until Ctrl-C.
//!
//! `cargo run -p serin-lab --example api -- /tmp/kubeconfig`

use std::path::PathBuf;
use std::sync::Arc;

use serin_lab::api::Api;
use serin_lab::store::Store;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "kubeconfig".into()));
    let api = Api::new(Store::new(Arc::new(jiff::Timestamp::now)));
    let stop = CancellationToken::new();
    let serving = api.serve(0, stop.clone()).await?;
    serving.write_kubeconfig("serin-lab", &path)?;
    #[expect(clippy::print_stdout, reason = "an example talks to its user")]
    {
        println!("export KUBECONFIG={}", path.display());
    }
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    serving.task.await?;
    Ok(())
}
