#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metallb_fuzz::l2::l2_operations(data));
