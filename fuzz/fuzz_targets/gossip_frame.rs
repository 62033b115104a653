#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metallb_fuzz::gossip::gossip_frame(data));
