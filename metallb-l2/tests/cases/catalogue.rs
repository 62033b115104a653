//! Every case of the reliability catalogue (§4.3, §4.4) is usable twice: where decisions are made without a link, and on a real link
//! between two cards. Where one of the two has nothing to say it is written down why.

use std::collections::BTreeSet;

use crate::{Case, table};

/// Cases about more than one frame, and the tests of decisions that prove them.
const DECIDED: &[(&str, &str)] = &[
    ("ARP-22", "an_address_that_is_gone_falls_silent_at_once"),
    ("ARP-26", "only_devices_that_run_resolve_and_stand_for_themselves_are_used"),
    ("ARP-27", "each_kind_of_event_changes_what_is_used_and_repeating_it_does_not"),
    ("ARP-27", "changed_hardware_address_is_announced_anew_and_used_in_replies"),
    ("ARP-30", "flood_is_limited_and_counted_while_another_sender_is_answered"),
    ("ARP-31", "flood_of_a_million_senders_is_held_to_the_total_in_constant_memory"),
    ("ARP-32", "addresses_of_hosts_gateways_and_everybody_are_refused_with_the_reason"),
    ("ARP-32", "reserved_address_is_neither_answered_for_nor_announced_until_nothing_speaks_against_it"),
    ("ARP-33", "burst_cancelled_by_loss_of_the_address_sends_nothing_more"),
    ("ARP-34", "new_addresses_are_announced_five_times_within_five_seconds_and_repeating_them_adds_nothing"),
    ("ARP-35", "ten_thousand_addresses_are_announced_in_one_round"),
    ("ARP-36", "kernel_keeps_addresses_of_other_interfaces_to_itself_as_the_stronger_setting_says"),
    ("ARP-36", "addresses_are_ruled_out_while_a_device_that_resolves_has_them_and_else_are_for_inner_use"),
    ("NDP-31", "groups_are_joined_on_interfaces_that_appear_later_and_left_with_the_last_address"),
    ("NDP-32", "groups_are_joined_on_interfaces_that_appear_later_and_left_with_the_last_address"),
    ("NDP-33", "link_local_address_counts_once_it_is_proven_and_as_long_as_it_is_there"),
    ("NDP-34", "interface_without_link_local_address_answers_arp_and_gets_no_groups"),
    ("NDP-35", "link_local_address_counts_once_it_is_proven_and_as_long_as_it_is_there"),
    ("NDP-37", "flood_is_limited_and_counted_while_another_sender_is_answered"),
    ("NDP-38", "no_answer_for_any_target_that_is_not_ours"),
];

/// Cases that no decision is about.
const NOT_DECIDED: &[(&str, &str)] = &[
    ("ARP-28", "what happens to a socket that can't be read is up to the driver"),
    ("ARP-29", "what happens to a frame that can't be sent is up to the driver"),
    ("NDP-39", "the caches are the neighbour's"),
];

/// The tests on a link that prove cases about more than one frame.
const ON_A_LINK: &[(&str, &str)] = &[
    ("ARP-22", "lab_nothing_is_said_about_an_address_once_its_end_is_acknowledged"),
    ("ARP-26", "lab_port_of_a_bridge_is_given_up_for_the_bridge_and_taken_back_when_it_is_free_again"),
    ("ARP-27", "lab_interface_that_goes_down_and_up_is_given_up_and_announced_on_again"),
    ("ARP-27", "lab_renamed_interface_is_matched_by_its_new_name"),
    ("ARP-27", "lab_changed_hardware_address_and_returning_link_are_announced_by_themselves"),
    ("ARP-27", "lab_device_that_takes_the_number_of_another_gets_a_socket_of_its_own"),
    ("ARP-28", "lab_interface_that_disappears_does_not_disturb_the_others"),
    ("ARP-29", "lab_interface_whose_queue_is_full_does_not_keep_the_others_from_being_announced_on"),
    ("ARP-30", "lab_flood_of_questions_is_limited_while_another_host_is_answered"),
    ("ARP-32", "lab_address_of_the_host_its_router_another_node_or_everybody_is_not_announced_while_it_is_that"),
    ("ARP-32", "lab_route_that_the_kernel_drops_with_a_device_speaks_against_nothing_any_more"),
    ("ARP-33", "lab_nothing_is_said_about_an_address_once_its_end_is_acknowledged"),
    ("ARP-34", "lab_neighbour_that_misses_the_first_announcements_follows_a_later_one"),
    ("ARP-35", "lab_burst_for_thousands_of_addresses_arrives_whole"),
    ("ARP-36", "lab_kernel_that_answers_beside_us_is_found_out_until_it_keeps_to_its_interfaces"),
    ("NDP-31", "lab_group_of_two_addresses_is_left_with_the_last_of_them"),
    ("NDP-32", "lab_group_is_joined_while_an_address_needs_it"),
    ("NDP-33", "lab_address_that_is_found_to_be_a_duplicate_is_no_source_and_ipv4_does_not_care"),
    ("NDP-34", "lab_interface_without_ipv6_answers_arp"),
    ("NDP-35", "lab_interface_that_goes_down_and_up_is_given_up_and_announced_on_again"),
    ("NDP-37", "lab_flood_of_questions_is_limited_while_another_host_is_answered"),
    ("NDP-38", "lab_no_answer_for_any_of_many_targets_that_are_not_ours"),
    ("NDP-39", "lab_neighbour_in_any_state_follows_the_first_announcement"),
];

/// Cases that no frame on a link shows.
const NOT_ON_A_LINK: &[(&str, &str)] = &[("ARP-31", "how much is remembered of whom shows in memory")];

/// Rows of the table that no sender can put on a link, and what stands for them there.
const NOT_SENT: &[(&str, &str)] = &[
    ("ARP-05", "shorter than the header of a frame: longer ones of the same case are sent"),
    ("ARP-25", "shorter than the header of a frame: longer ones of the same case are sent"),
    ("NDP-08", "lab_question_whose_checksum_is_left_to_the_card_is_answered"),
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
fn every_case_of_the_catalogue_is_decided_and_shown_on_a_link_or_says_why_not() {
    let table = table();
    let rows: BTreeSet<&str> = table.iter().map(|case| case.id).collect();
    let sent: BTreeSet<&str> = table.iter().filter(|case| case.can_be_sent()).map(|case| case.id).collect();
    let numbered = |family: &'static str, last: u8| (1..=last).map(move |number| format!("{family}-{number:02}"));
    let all: BTreeSet<String> = numbered("ARP", 36).chain(numbered("NDP", 40)).collect();
    assert_eq!(all.len(), 76);
    for (way, rows, tests, reasons) in
        [("by a decision", &rows, DECIDED, NOT_DECIDED), ("on a link", &sent, ON_A_LINK, NOT_ON_A_LINK)]
    {
        let (tests, reasons) = (ids(tests), ids(reasons));
        for id in &all {
            let (usable, excused) = (rows.contains(&**id) || tests.contains(&**id), reasons.contains(&**id));
            assert!(usable || excused, "{id} is not usable {way}");
            assert!(!(usable && excused), "{id} is usable {way} after all");
        }
        let known = |id: &&&str| !all.contains(**id);
        assert_eq!(rows.iter().chain(&tests).chain(&reasons).find(known), None, "not in the catalogue");
    }
    let kept_back: BTreeSet<&str> = table.iter().filter(|case| !case.can_be_sent()).map(|case| case.id).collect();
    assert_eq!(kept_back, ids(NOT_SENT), "each row is sent, or it is said why not");
    let named = |name: &&str| name.contains('_') && !name.contains(' ');
    let tests = DECIDED.iter().chain(ON_A_LINK).chain(NOT_SENT).map(|(_, test)| *test).filter(named);
    for test in tests {
        let definition = format!("fn {test}()");
        assert!(SOURCES.iter().any(|source| source.contains(&definition)), "there is no test {test}");
    }
}

impl Case {
    /// Whether it can be put on a link: a frame must have a header, and a checksum is not left to hardware between packet sockets.
    pub(crate) fn can_be_sent(&self) -> bool {
        self.frame.len() >= 14 && self.checksum == metallb_l2::wire::ndp::Checksum::Present
    }
}
