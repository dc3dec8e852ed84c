//! A manifest as an object store returns it: read, written and read again it is the same, and its memory is bounded.

#![no_main]

use dalp_fuzz::bounded;
use dalp_partitions::Manifest;
use dalp_partitions::archive::{RowHash, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let read = bounded(json.len(), || serde_json::from_slice::<Manifest>(json));
    let Ok(manifest) = read else { return };
    // As an object of a store...
    let written = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    assert_eq!(serde_json::from_slice::<Manifest>(&written).expect("what was written is read"), manifest);
    // ...and as a value of the registry.
    let value = serde_json::to_value(&manifest).expect("a manifest is JSON");
    assert_eq!(serde_json::from_value::<Manifest>(value).expect("what was written is read"), manifest);

    let hash = manifest.counted.hash.to_string();
    assert_eq!((hash.len(), hash.parse::<RowHash>()), (32, Ok(manifest.counted.hash)));
    assert!(manifest.is_of(&manifest.counted));
    match bounded(json.len(), || fuzzing::is_usable(&manifest)) {
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
