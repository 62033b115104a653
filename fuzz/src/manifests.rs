//! Checks on the reader of manifests: it never panics, names the place of everything that is wrong, and what is broken costs only
//! itself.

use metallb_core::plan::{PlanOptions, plan};
use metallb_operator::source::manifests::Manifests;

/// A file of manifests.
pub fn manifests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut read = Manifests::default();
    read.parse(&text, "a file");
    let (world, problems) = read.world();
    for problem in &problems {
        // The name of a file that cannot be split into objects is that of the object of the problem.
        let is_of_file = problem.object.kind == "File" && *problem.object.name == *"a file";
        let place = if is_of_file { "document " } else { "a file: document " };
        assert!(problem.message.starts_with(place), "{problem}");
    }
    let planned = plan(&world.resources, &world.cluster, &world.order, &PlanOptions::default());
    assert_eq!(planned.services.len(), world.order.len());

    // JSON documents in a row end where one is broken; YAML goes on behind the next marker.
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        let mut more = Manifests::default();
        more.parse(&format!("{text}\n---\n{LAST}"), "a file");
        let (world, _) = more.world();
        assert!(world.resources.pools.iter().any(|pool| pool.meta.name == "last"), "{text:?}");
    }
}

const LAST: &str =
    "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: last}\nspec: {addresses: [10.99.0.0/24]}\n";
