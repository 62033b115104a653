//! The list of all cases ARP-01 to ARP-36 and NDP-01 to NDP-42. Each is tested in the engine and on a real link, or has
//! a reason why one of the two does not apply.

use std::collections::BTreeSet;

use crate::{Case, table};

/// Cases with more than one frame, and their tests in the engine.
const DECIDED: &[(&str, &str)] = &[
    ("ARP-22", "removed_address_is_silent_at_once"),
    ("ARP-26", "only_running_devices_with_arp_and_without_bridge_or_bond_are_used"),
    ("ARP-27", "each_kind_of_change_affects_usable_interfaces_once"),
    ("ARP-27", "changed_hardware_address_is_announced_and_used_in_replies"),
    ("ARP-30", "flood_is_limited_and_counted_while_another_sender_is_served"),
    ("ARP-31", "flood_by_a_million_senders_is_limited_in_constant_memory"),
    ("ARP-32", "addresses_of_hosts_gateways_and_broadcast_are_refused_with_the_reason"),
    ("ARP-32", "foreign_address_is_neither_answered_nor_announced_until_it_is_free"),
    ("ARP-33", "burst_of_a_removed_address_sends_no_more_frames"),
    ("ARP-34", "new_address_is_announced_five_times_and_repeating_it_adds_nothing"),
    ("ARP-35", "ten_thousand_addresses_are_announced_in_one_round"),
    ("ARP-36", "larger_of_the_two_values_decides_whether_the_kernel_answers_for_other_interfaces"),
    ("ARP-36", "addresses_of_devices_with_arp_are_foreign_and_others_are_internal"),
    ("NDP-31", "group_is_joined_on_later_interfaces_and_left_with_the_last_address"),
    ("NDP-32", "group_is_joined_on_later_interfaces_and_left_with_the_last_address"),
    ("NDP-33", "link_local_address_is_used_while_it_exists_and_is_usable"),
    ("NDP-34", "interface_without_link_local_address_answers_arp_and_gets_no_groups"),
    ("NDP-35", "link_local_address_is_used_while_it_exists_and_is_usable"),
    ("NDP-37", "flood_is_limited_and_counted_while_another_sender_is_served"),
    ("NDP-38", "solicitation_for_a_similar_address_is_not_answered"),
];

/// Cases that do not involve the engine.
const NOT_DECIDED: &[(&str, &str)] = &[
    ("ARP-28", "the driver handles sockets that cannot be read"),
    ("ARP-29", "the driver handles frames that cannot be sent"),
    ("NDP-39", "the cache belongs to the neighbour"),
];

/// Cases with more than one frame, and their tests on a real link.
const ON_A_LINK: &[(&str, &str)] = &[
    ("ARP-22", "lab_removed_address_is_silent_once_the_command_is_applied"),
    ("ARP-26", "lab_bridge_replaces_its_port_until_the_port_is_released"),
    ("ARP-27", "lab_interface_that_returns_is_announced_on_again"),
    ("ARP-27", "lab_renamed_interface_is_matched_by_its_new_name"),
    ("ARP-27", "lab_changed_hardware_address_and_returning_link_are_announced"),
    ("ARP-27", "lab_device_with_a_reused_index_gets_a_new_socket"),
    ("ARP-28", "lab_interface_that_disappears_does_not_disturb_the_others"),
    ("ARP-29", "lab_full_queue_of_one_interface_does_not_delay_other_interfaces"),
    ("ARP-30", "lab_flood_of_requests_is_limited_while_another_host_is_answered"),
    ("ARP-32", "lab_foreign_address_is_not_announced_while_it_is_in_use"),
    ("ARP-32", "lab_gateway_of_a_removed_route_is_no_longer_foreign"),
    ("ARP-33", "lab_removed_address_is_silent_once_the_command_is_applied"),
    ("ARP-34", "lab_neighbour_that_misses_the_first_rounds_follows_a_later_one"),
    ("ARP-35", "lab_burst_for_ten_thousand_addresses_arrives_completely"),
    ("ARP-36", "lab_answers_by_the_kernel_are_detected_until_arp_ignore_stops_them"),
    ("NDP-31", "lab_group_of_two_addresses_is_left_with_the_last_one"),
    ("NDP-32", "lab_group_is_joined_while_an_address_is_announced"),
    ("NDP-33", "lab_duplicate_link_local_address_is_no_source_and_arp_continues"),
    ("NDP-34", "lab_interface_without_ipv6_answers_arp"),
    ("NDP-35", "lab_interface_that_returns_is_announced_on_again"),
    ("NDP-37", "lab_flood_of_requests_is_limited_while_another_host_is_answered"),
    ("NDP-38", "lab_requests_for_similar_addresses_are_not_answered"),
    ("NDP-39", "lab_neighbour_in_any_state_follows_the_first_announcement"),
];

/// Cases that cannot be observed on a link.
const NOT_ON_A_LINK: &[(&str, &str)] = &[("ARP-31", "the memory per sender is not visible on a link")];

/// Rows of the table that cannot be sent on a link, and what replaces them.
const NOT_SENT: &[(&str, &str)] = &[
    ("ARP-05", "shorter than an Ethernet header; longer frames of the same case are sent"),
    ("ARP-25", "shorter than an Ethernet header; longer frames of the same case are sent"),
    ("NDP-08", "lab_solicitation_with_offloaded_checksum_is_answered"),
];

const SOURCES: &[&str] = &[
    include_str!("events.rs"),
    include_str!("flows.rs"),
    include_str!("lab.rs"),
    include_str!("neighbours.rs"),
    include_str!("foreign.rs"),
    include_str!("../../src/engine/tests.rs"),
    include_str!("../../src/io/arp_ignore.rs"),
    include_str!("../../src/limit.rs"),
    include_str!("../../src/links.rs"),
    include_str!("../../src/foreign.rs"),
];

fn ids(list: &[(&'static str, &'static str)]) -> BTreeSet<&'static str> {
    list.iter().map(|(id, _)| *id).collect()
}

#[test]
fn every_case_is_tested_in_the_engine_and_on_a_link_or_has_a_reason() {
    let table = table();
    let rows: BTreeSet<&str> = table.iter().map(|case| case.id).collect();
    let sent: BTreeSet<&str> = table.iter().filter(|case| case.can_be_sent()).map(|case| case.id).collect();
    let numbered = |family: &'static str, last: u8| (1..=last).map(move |number| format!("{family}-{number:02}"));
    let all: BTreeSet<String> = numbered("ARP", 36).chain(numbered("NDP", 42)).collect();
    assert_eq!(all.len(), 78);
    for (way, rows, tests, reasons) in
        [("in the engine", &rows, DECIDED, NOT_DECIDED), ("on a link", &sent, ON_A_LINK, NOT_ON_A_LINK)]
    {
        let (tests, reasons) = (ids(tests), ids(reasons));
        for id in &all {
            let (tested, excused) = (rows.contains(&**id) || tests.contains(&**id), reasons.contains(&**id));
            assert!(tested || excused, "{id} has no test {way}");
            assert!(!(tested && excused), "{id} has both a test and a reason {way}");
        }
        let known = |id: &&&str| !all.contains(**id);
        assert_eq!(rows.iter().chain(&tests).chain(&reasons).find(known), None, "not in the list of cases");
    }
    let kept_back: BTreeSet<&str> = table.iter().filter(|case| !case.can_be_sent()).map(|case| case.id).collect();
    assert_eq!(kept_back, ids(NOT_SENT), "each row is sent or has a reason");
    let named = |name: &&str| name.contains('_') && !name.contains(' ');
    let tests = DECIDED.iter().chain(ON_A_LINK).chain(NOT_SENT).map(|(_, test)| *test).filter(named);
    for test in tests {
        let definition = format!("fn {test}()");
        assert!(SOURCES.iter().any(|source| source.contains(&definition)), "there is no test {test}");
    }
}

impl Case {
    /// Whether it can be sent on a link: it needs an Ethernet header, and packet sockets cannot offload a checksum.
    pub(crate) fn can_be_sent(&self) -> bool {
        self.frame.len() >= 14 && self.checksum == metallb_l2::wire::ndp::Checksum::Present
    }
}
