//! Subset names: legal, stable, without collision.

use alloc::collections::BTreeMap;
use alloc::format;

use proptest::prelude::*;

use super::super::slug::{is_dns_label, slug};

#[test]
fn names_are_fixed_for_all_time() {
    // A change here renames subsets of running releases. The hashes were computed apart, in Python.
    let table = [("v2", "v2"), ("2-0-0", "2-0-0"), ("2.0.0", "2-0-0-xc402547fad"), ("v1.0", "v1-0-x000109e05f"), ("V2", "v2-x07b5c5b52f")];
    for (version, name) in table {
        assert_eq!(slug(version), name, "{version}");
    }
}

#[test]
fn versions_that_look_alike_differ() {
    let versions = [
        "v1.0", "v1-0", "v1_0", "V1.0", "V1-0", "v1..0", "v10", "2.0.0", "2-0-0", "2.0-0", "2-0.0", "", ".", "-", "_", "v1.0-", "v1.0.",
        "é",
    ];
    let mut seen = BTreeMap::new();
    for version in versions {
        if let Some(other) = seen.insert(slug(version), version) {
            panic!("{version:?} and {other:?} are both {}", slug(version));
        }
    }
    // The name of one version, used as the label of another.
    assert_ne!(slug(&slug("2.0.0")), slug("2.0.0"));
}

proptest! {
    #[test]
    fn every_label_value_has_a_legal_name(version in "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?") {
        let name = slug(&version);
        prop_assert!(is_dns_label(&name), "{}", name);
        prop_assert_eq!(slug(&version), name.clone());
        if is_dns_label(&version) && name != version {
            prop_assert!(version.contains('x') && version.len() >= 11);
        }
    }

    #[test]
    fn any_text_has_one(version in any::<alloc::string::String>()) {
        prop_assert!(is_dns_label(&slug(&version)));
    }

    #[test]
    fn two_versions_have_two_names(a in "[a-zA-Z0-9._-]{1,8}", b in "[a-zA-Z0-9._-]{1,8}") {
        prop_assert_eq!(a == b, slug(&a) == slug(&b));
        prop_assert_ne!(slug(&format!("{a}.")), slug(&format!("{a}-")));
    }
}
