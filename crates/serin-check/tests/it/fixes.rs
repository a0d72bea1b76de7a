//! Mending generated manifests: what was found is gone, only the intended lines differ, a second run changes nothing.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serin_check::{Certainty, Options, fix};

use super::inputs;

/// How a manifest is written.
#[derive(Debug, Clone)]
struct Layout {
    crlf: bool,
    comments: bool,
    flow: bool,
    indented_lists: bool,
    final_newline: bool,
    quoted_gateway: bool,
}

fn layout() -> impl Strategy<Value = Layout> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(crlf, comments, flow, indented_lists, final_newline, quoted_gateway)| Layout {
            crlf,
            comments,
            flow,
            indented_lists,
            final_newline,
            quoted_gateway,
        },
    )
}

/// Mistakes that can be mended, each on or off.
#[derive(Debug, Clone)]
struct Mistakes {
    no_mesh: bool,
    lone_weight: bool,
    bare_number: bool,
    misspelt_field: bool,
    misspelt_subset: bool,
    half_host: bool,
    old_version: bool,
    glued: bool,
}

fn mistakes() -> impl Strategy<Value = Mistakes> {
    prop::array::uniform8(any::<bool>()).prop_map(|b| Mistakes {
        no_mesh: b[0],
        lone_weight: b[1],
        bare_number: b[2],
        misspelt_field: b[3],
        misspelt_subset: b[4],
        half_host: b[5],
        old_version: b[6],
        glued: b[7],
    })
}

fn write(l: &Layout, m: &Mistakes) -> String {
    let note = |text: &str| if l.comments { format!(" # {text}") } else { String::new() };
    let dash = if l.indented_lists { "    - " } else { "  - " };
    let deep = if l.indented_lists { "      " } else { "    " };
    let gateway = if l.quoted_gateway { "\"public\"" } else { "public" };
    let mesh = if m.no_mesh { "" } else { "mesh" };
    let gateways = match (l.flow, mesh) {
        (true, "") => format!("  gateways: [{gateway}]{}\n", note("outside")),
        (true, mesh) => format!("  gateways: [{gateway}, {mesh}]\n"),
        (false, "") => format!("  gateways:{}\n{dash}{gateway}{}\n", note("who"), note("outside")),
        (false, mesh) => format!("  gateways:\n{dash}{gateway}\n{dash}{mesh}\n"),
    };
    let host = if m.half_host { "cart.shop" } else { "cart.shop.svc.cluster.local" };
    let subset = if m.misspelt_subset { "canery" } else { "canary" };
    let weight = if m.lone_weight { format!("{deep}  weight: 10{}\n", note("a tenth")) } else { String::new() };
    let version = if m.bare_number { "1.0" } else { "\"1.0\"" };
    let timeout = if m.misspelt_field { "timout" } else { "timeout" };
    let budget = if m.old_version { "policy/v1beta1" } else { "policy/v1" };
    let parts = [
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: cart{}\n  namespace: shop\nspec:\n  hosts: [cart]\n{gateways}  http:\n{dash}match:\n{deep}- headers: {{x-beta: {{exact: \"true\"}}}}\n{deep}{timeout}: 5s\n{deep}route:\n{deep}- destination:\n{deep}    host: {host}{}\n{deep}    subset: {subset}\n{weight}{dash}route:\n{deep}- destination: {{host: cart, subset: stable}}\n",
            note("routes"),
            note("the service"),
        ),
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  host: cart\n  subsets:\n{dash}name: stable\n{deep}labels: {{version: {version}}}{}\n{dash}name: canary\n{deep}labels: {{version: v2}}\n",
            note("quoted?"),
        ),
        format!(
            "apiVersion: {budget}\nkind: PodDisruptionBudget\nmetadata: {{name: cart, namespace: shop}}\nspec: {{minAvailable: 1, selector: {{matchLabels: {{app: cart}}}}}}\n"
        ),
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec:\n  ports: [{name: http, port: 80}]\n".to_owned(),
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: shop}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]".to_owned(),
    ];
    let glue = if m.glued { "" } else { "---\n" };
    let mut text = parts.join(glue);
    if l.final_newline {
        text.push('\n');
    }
    if l.crlf { text.replace('\n', "\r\n") } else { text }
}

#[test]
fn generated_mistakes_are_mended_and_nothing_else_changes() {
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(layout(), mistakes()), |(l, m)| {
        let text = write(&l, &m);
        let good = write(
            &l,
            &Mistakes {
                no_mesh: false,
                lone_weight: false,
                bare_number: false,
                misspelt_field: false,
                misspelt_subset: false,
                half_host: false,
                old_version: false,
                glued: false,
            },
        );
        let silent = fix::apply(&inputs(&[("x.yaml", &good)]), &Options::default());
        prop_assert!(silent.report.findings.is_empty(), "{:?}\n{good}", silent.report.findings);

        let fixed = fix::apply(&inputs(&[("x.yaml", &text)]), &Options::default());
        let new = String::from_utf8_lossy(&fixed.inputs[0].bytes).into_owned();
        let left: Vec<_> =
            fixed.report.findings.iter().filter(|f| f.certainty == Certainty::Certain).map(|f| (f.code, &f.primary.text)).collect();
        prop_assert!(left.is_empty(), "{left:?}\n{new}");

        // Comments stay, and so does every line but those that were to change.
        let comments = |t: &str| t.matches(" # ").count();
        let lost = usize::from(m.lone_weight && l.comments);
        prop_assert_eq!(comments(&new) + lost, comments(&text), "{}", new);
        let wrong = [m.no_mesh, m.lone_weight, m.bare_number, m.misspelt_field, m.misspelt_subset, m.half_host, m.old_version];
        let n = wrong.iter().filter(|w| **w).count() + if m.glued { 4 } else { 0 };
        let mistakes = wrong.iter().filter(|w| **w).count() + usize::from(m.glued);
        prop_assert!(fixed.applied.len() >= mistakes, "{mistakes} mistakes, {:?}", fixed.applied);
        let old: Vec<&str> = text.split_inclusive('\n').collect();
        let changed = new.split_inclusive('\n').filter(|line| !old.contains(line)).count();
        prop_assert!(changed <= n, "{changed} lines changed for {n} mistakes\n{}", fix::diff("x", &text, &new));
        prop_assert_eq!(new.contains("\r\n"), l.crlf);
        prop_assert_eq!(new.replace("\r\n", "").contains('\r'), false);
        if l.crlf {
            prop_assert!(!new.replace("\r\n", "").contains('\n'), "mixed line breaks");
        }

        let again = fix::apply(&fixed.inputs, &Options::default());
        prop_assert!(again.changed.is_empty());
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

#[test]
fn what_an_alias_shares_is_not_edited() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  gateways: &g [public]\n  http: [{route: [{destination: {host: a, subset: v1}}]}]\n---\nx: &labels {version: 1.0}\napiVersion: v1\nkind: Service\nmetadata: {name: a, labels: *labels, annotations: *labels}\nspec: {ports: [{port: 80}]}\n";
    let fixed = fix::apply(&inputs(&[("x.yaml", text)]), &Options::default());
    let new = String::from_utf8_lossy(&fixed.inputs[0].bytes).into_owned();
    assert!(new.contains("{version: 1.0}"), "{new}");
}
