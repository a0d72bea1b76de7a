//! `serin status`: one release on one screen, live with `-w`.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt, pin_mut};
use jiff::tz::TimeZone;
use serin_api::{CanaryRelease, plan_of, state_of};

use super::{Format, print};
use crate::clock::now;
use crate::cluster::ClusterArgs;
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::view::status::{View, text, view};

/// What a release does now, measured, and what comes next
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done; 2 no answer.\n\nExamples:\n  serin status my-app\n  serin status my-app -w\n  serin status my-app -o json"
)]
pub(crate) struct StatusArgs {
    /// The release
    name: String,
    /// Go on showing each change; on a terminal the screen is drawn anew
    #[arg(short, long)]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// The view of a release as it stands.
pub(crate) fn view_of(release: &CanaryRelease) -> View {
    let plan = plan_of(&release.spec).ok();
    let state = state_of(release.status.as_ref()).ok();
    view(release, plan.as_ref(), state.as_ref(), now(), &TimeZone::system())
}

/// Shows the screen.
pub(crate) async fn run(args: StatusArgs, cluster: &ClusterArgs, colour: bool) -> Outcome {
    let cluster = cluster.connect().await?;
    let release = cluster.release(&args.name).await?;
    if !args.watch {
        show(&args, &release, colour)?;
        return Ok(Exit::Done);
    }
    let changes = super::get::changes_of(cluster.releases(), &args.name);
    pin_mut!(changes);
    let redraw = out::on_terminal() && args.output.is_none();
    let mut last = release;
    draw(&args, &last, colour, redraw)?;
    loop {
        // Ages and times left go on while nothing changes.
        let change = tokio::select! {
            change = changes.next() => change,
            () = tokio::time::sleep(Duration::from_secs(1)), if redraw => { draw(&args, &last, colour, redraw)?; continue; }
        };
        match change {
            Some(Ok(release)) => {
                let same = release.metadata.resource_version == last.metadata.resource_version;
                last = release;
                if !same {
                    draw(&args, &last, colour, redraw)?;
                }
            }
            Some(Err(e)) => out::talk(&format!("serin: watching again: {}", crate::cluster::chain(&e))),
            None => return Ok(Exit::Done),
        }
    }
}

fn draw(args: &StatusArgs, release: &CanaryRelease, colour: bool, redraw: bool) -> Result<(), crate::exit::Failure> {
    if redraw {
        // Home, and clear what is below: no flicker, and the scroll-back stays.
        out::answer("\x1b[H\x1b[J")?;
    }
    show(args, release, colour)
}

fn show(args: &StatusArgs, release: &CanaryRelease, colour: bool) -> Result<(), crate::exit::Failure> {
    let view = view_of(release);
    match args.output {
        Some(format) => print(format, &view),
        None => out::answer(&text(&view, colour, &TimeZone::system())),
    }
}
