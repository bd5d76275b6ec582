#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stoker::fuzzing::google_listing(bytes));
