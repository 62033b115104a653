//! ARP and NDP
