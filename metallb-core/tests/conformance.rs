//! Recorded cases of upstream's behaviour: objects, and the expected part of the plan.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]

#[path = "cases/support"]
mod support {
    pub(crate) mod objects;
}

use std::collections::BTreeSet;

use metallb_core::config::Severity;
use metallb_core::plan::{PlanOptions, plan};
use serde_json::Value;

use crate::support::objects::World;

#[test]
fn allocation_cases_match_the_records() {
    run(include_str!("data/conformance/allocation.jsonl"));
}

#[test]
fn configuration_cases_match_the_records() {
    run(include_str!("data/conformance/config.jsonl"));
}

#[test]
fn election_cases_match_the_records() {
    run(include_str!("data/conformance/l2.jsonl"));
}

#[test]
fn route_cases_match_the_records() {
    run(include_str!("data/conformance/bgp.jsonl"));
}

fn run(cases: &str) {
    let mut failures = Vec::new();
    let mut count = 0;
    for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        count += 1;
        let differences = differences(&case);
        if !differences.is_empty() {
            failures.push(format!("{} {}: {}", case["id"], case["note"], differences.join("; ")));
        }
    }
    assert!(count > 0, "no case was read");
    assert!(failures.is_empty(), "{} of {count} cases differ:\n{}", failures.len(), failures.join("\n"));
}

fn differences(case: &Value) -> Vec<String> {
    let world = World::read(case["objects"].as_array().unwrap());
    let plan = plan(&world.resources, &world.cluster, &world.order, &PlanOptions::default());
    let errors: Vec<String> =
        plan.problems.iter().filter(|problem| problem.severity == Severity::Error).map(ToString::to_string).collect();
    let expect = &case["expect"];
    let mut differences = Vec::new();
    if let Some(invalid) = expect["invalid"].as_bool()
        && invalid == errors.is_empty()
    {
        differences.push(format!("invalid should be {invalid}, errors are {errors:?}"));
    }
    if let Some(blamed) = expect["blames"].as_str()
        && !errors.iter().any(|error| error.starts_with(&format!("{blamed} ")))
    {
        differences.push(format!("{blamed} should be blamed, errors are {errors:?}"));
    }
    let actual = serde_json::to_value(&plan).unwrap();
    for wanted in expect["services"].as_array().into_iter().flatten() {
        let found = |service: &&Value| service["namespace"] == wanted["namespace"] && service["name"] == wanted["name"];
        match actual["services"].as_array().unwrap().iter().find(found) {
            Some(service) => compare_service(wanted, service, &mut differences),
            None => differences.push(format!("{wanted} is missing")),
        }
    }
    for wanted in expect["pools"].as_array().into_iter().flatten() {
        let found = actual["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == wanted["name"]);
        if found.is_none_or(|pool| !contains(pool, wanted)) {
            differences.push(format!("pool should be {wanted}, is {found:?}"));
        }
    }
    differences
}

fn compare_service(wanted: &Value, actual: &Value, differences: &mut Vec<String>) {
    for (key, value) in wanted.as_object().unwrap() {
        let (wanted_set, actual_set) = match key.as_str() {
            "l2" => (answers(value), answers(&actual[key])),
            "bgp" => (routes(value), routes(&actual[key])),
            _ if actual[key] == *value => continue,
            _ => (BTreeSet::from([value.to_string()]), BTreeSet::from([actual[key].to_string()])),
        };
        if wanted_set != actual_set {
            differences.push(format!("{} {key}: wanted {wanted_set:?}, got {actual_set:?}", wanted["name"]));
        }
    }
}

/// Address, node and interfaces of each announcement. Addresses that no node announces are left out.
fn answers(list: &Value) -> BTreeSet<String> {
    let answered = list.as_array().into_iter().flatten().filter(|answer| answer["node"].is_string());
    answered.map(|answer| format!("{} {} {:?}", answer["ip"], answer["node"], set(&answer["interfaces"]))).collect()
}

fn routes(list: &Value) -> BTreeSet<String> {
    let describe = |route: &Value| {
        format!(
            "{} {} {} {} {:?} {:?}",
            route["node"],
            route["peer"],
            route["prefix"],
            route["localPref"],
            set(&route["communities"]),
            set(&route["largeCommunities"])
        )
    };
    list.as_array().into_iter().flatten().map(describe).collect()
}

fn set(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(ToString::to_string).collect()
}

fn contains(actual: &Value, wanted: &Value) -> bool {
    wanted.as_object().unwrap().iter().all(|(key, value)| actual[key] == *value)
}
