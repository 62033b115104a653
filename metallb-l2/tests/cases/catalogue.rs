//! Every case of the reliability catalogue (§4.3, §4.4) is proven by a row of the table or by a test of its own, or is known to be open.

use std::collections::BTreeSet;

use crate::table;

/// Cases about more than one frame, and the tests that prove them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("ARP-22", "an_address_that_is_gone_falls_silent_at_once"),
    ("ARP-26", "lab_port_of_a_bridge_is_given_up_for_the_bridge_and_taken_back_when_it_is_free_again"),
    ("ARP-27", "lab_interface_that_goes_down_and_up_is_given_up_and_announced_on_again"),
    ("ARP-27", "lab_renamed_interface_is_matched_by_its_new_name"),
    ("ARP-27", "lab_changed_hardware_address_and_returning_link_are_announced_by_themselves"),
    ("ARP-27", "lab_device_that_takes_the_number_of_another_gets_a_socket_of_its_own"),
    ("ARP-28", "lab_interface_that_disappears_does_not_disturb_the_others"),
    ("ARP-29", "lab_interface_that_disappears_does_not_disturb_the_others"),
    ("ARP-30", "flood_is_limited_and_counted_while_another_sender_is_answered"),
    ("ARP-31", "flood_of_a_million_senders_is_held_to_the_total_in_constant_memory"),
    ("ARP-33", "burst_cancelled_by_loss_of_the_address_sends_nothing_more"),
    ("ARP-34", "new_addresses_are_announced_five_times_within_five_seconds_and_repeating_them_adds_nothing"),
    ("ARP-35", "ten_thousand_addresses_are_announced_in_one_round"),
    ("ARP-35", "lab_burst_for_thousands_of_addresses_arrives_whole"),
    ("NDP-31", "groups_are_joined_on_interfaces_that_appear_later_and_left_with_the_last_address"),
    ("NDP-32", "lab_group_is_joined_while_an_address_needs_it"),
    ("NDP-33", "lab_address_that_is_found_to_be_a_duplicate_is_no_source_and_ipv4_does_not_care"),
    ("NDP-34", "lab_interface_without_ipv6_answers_arp"),
    ("NDP-35", "lab_interface_that_goes_down_and_up_is_given_up_and_announced_on_again"),
    ("NDP-37", "flood_is_limited_and_counted_while_another_sender_is_answered"),
    ("NDP-38", "no_answer_for_any_target_that_is_not_ours"),
    ("NDP-39", "lab_neighbour_in_any_state_follows_the_first_announcement"),
];

/// Cases that nothing proves yet, and why.
const OPEN: &[(&str, &str)] = &[
    ("ARP-32", "configuration does not know the addresses of nodes and gateways"),
    ("ARP-36", "an answer of the own kernel is not looked for"),
];

const SOURCES: &[&str] = &[
    include_str!("events.rs"),
    include_str!("lab.rs"),
    include_str!("neighbours.rs"),
    include_str!("../../src/engine/tests.rs"),
    include_str!("../../src/limit.rs"),
];

#[test]
fn every_case_of_the_catalogue_is_proven_or_known_to_be_open() {
    let table = table();
    let rows: BTreeSet<&str> = table.iter().map(|case| case.id).collect();
    let numbered = |family: &'static str, last: u8| (1..=last).map(move |number| format!("{family}-{number:02}"));
    let all: Vec<String> = numbered("ARP", 36).chain(numbered("NDP", 40)).collect();
    for id in &all {
        let elsewhere = ELSEWHERE.iter().any(|(case, _)| case == id);
        let open = OPEN.iter().any(|(case, _)| case == id);
        assert!(rows.contains(&**id) || elsewhere || open, "{id} is forgotten");
        assert!(!(open && (rows.contains(&**id) || elsewhere)), "{id} is open no more");
    }
    for id in rows.iter().chain(ELSEWHERE.iter().map(|(id, _)| id)) {
        assert!(all.iter().any(|known| known == id), "{id} is not in the catalogue");
    }
    for (id, test) in ELSEWHERE {
        let definition = format!("fn {test}()");
        assert!(SOURCES.iter().any(|source| source.contains(&definition)), "{id}: there is no test {test}");
    }
}
