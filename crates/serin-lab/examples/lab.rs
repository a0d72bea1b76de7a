//! A whole lab: prints where its kubeconfig is and runs until Ctrl-C.
//!
//! `cargo run -p serin-lab --example lab`

use std::process::ExitCode;

use serin_lab::lab::{Lab, LabConfig};

fn main() -> ExitCode {
    if let Some(code) = serin_lab::workloads::dispatch() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "an example talks to its user")]
            {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = LabConfig::new(std::env::current_exe()?, std::sync::Arc::new(jiff::Timestamp::now));
    config.root = std::env::args().nth(1).map(Into::into);
    for file in std::env::args().skip(2) {
        config.manifests.push(std::fs::read_to_string(file)?);
    }
    let lab = Lab::start(config).await?;
    #[expect(clippy::print_stdout, reason = "an example talks to its user")]
    {
        println!("export KUBECONFIG={}", lab.kubeconfig().display());
    }
    tokio::signal::ctrl_c().await?;
    lab.stop().await;
    Ok(())
}
