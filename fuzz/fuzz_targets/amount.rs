#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| purse_fuzz::amount(bytes));
