//! `serin explain`: what a rule of `serin check` finds, whom it hurts, wrong and right.

use clap::Args;

use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Explain a rule of check, with a wrong and a right example; without a code: list them
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done; 2 no such rule.\n\nExamples:\n  serin explain SRN301\n  serin explain            all rules, a line for each\n  serin explain IST0101    the rules that find what istioctl finds by that code"
)]
pub(crate) struct ExplainArgs {
    /// The rule's code, or one of istioctl's
    code: Option<String>,
}

/// Prints the page, or the list.
pub(crate) fn run(args: &ExplainArgs) -> Outcome {
    let Some(code) = &args.code else {
        let lines: String = serin_check::all().iter().map(line).collect();
        out::answer(&lines)?;
        return Ok(Exit::Done);
    };
    if let Some(rule) = serin_check::find(code) {
        out::answer(rule.text())?;
        return Ok(Exit::Done);
    }
    let same: Vec<_> = serin_check::all().iter().filter(|r| r.page().istio.iter().any(|i| i.eq_ignore_ascii_case(code))).collect();
    if same.is_empty() {
        return Err(Failure::new(format!("no rule is called {code}")).hint("serin explain"));
    }
    out::answer(&same.into_iter().map(line).collect::<String>())?;
    Ok(Exit::Done)
}

fn line(rule: &serin_check::Rule) -> String {
    let page = rule.page();
    let fix = if page.fixable { "fix" } else { "" };
    let istio = page.istio.join(" ");
    format!(
        "{}  {:<7}  {:<3}  {}{}\n",
        page.code,
        page.severity.word(),
        fix,
        page.title,
        if istio.is_empty() { String::new() } else { format!(" ({istio})") }
    )
}
