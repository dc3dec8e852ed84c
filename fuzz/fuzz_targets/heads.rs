//! A header as a node answers it and, behind a zero byte, the receipts of its block: read as alloy reads them, hashed, and
//! proved only where they fit.

#![no_main]

use alloy::consensus::proofs::ordered_trie_root_encoded;
use alloy::consensus::{Header as FullHeader, Receipt as KnownReceipt, ReceiptWithBloom, TxReceipt};
use alloy::primitives::{B256, Log as PlainLog};
use alloy::rlp::Encodable;
use alloy::rpc::types::{Header as AlloyHeader, TransactionReceipt};
use dalp_fuzz::bounded;
use dalp_indexer::chain::logs::Logs;
use dalp_indexer::chain::block::{BlockRef, Header};
use dalp_indexer::chain::proof::{Disproof, Proved, SealedHeader};
use dalp_indexer::chain::receipts::{Outcome, Receipts};
use dalp_indexer::nodes::fuzzing;
use dalp_indexer::nodes::rpc::Answer;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else { return };
    let (header, receipts) = text.split_once('\0').unwrap_or((text, "[]"));
    let receipts = read_receipts(receipts);
    let Some((fields, names)) = read_header(header) else { return };
    let sealed = SealedHeader::new(fields.clone(), names.hash, names.transactions.clone());
    let hash = fields.hash_slow();
    match sealed {
        Ok(sealed) => {
            assert_eq!(sealed.block(), BlockRef { number: fields.number, hash: names.hash });
            proof(&sealed, receipts.clone().unwrap_or_default());
        }
        Err(Disproof::Hash { computed, claimed, .. }) => {
            assert!(computed == hash && claimed == names.hash && hash != names.hash)
        }
        Err(other) => panic!("a hash is all that is compared: {other}"),
    }
    if let Some(receipts) = receipts {
        fitting(fields, receipts);
    }
});

/// The names of a block and its transactions.
#[derive(Deserialize)]
struct Names {
    hash: B256,
    transactions: Vec<B256>,
}

/// The few fields that every header has, against all that alloy knows; then all fields, for a proof.
fn read_header(text: &str) -> Option<(FullHeader, Names)> {
    let answer = Answer::Text(text.to_owned());
    let ours = bounded(text.len(), || fuzzing::header(&answer));
    if let Ok(theirs) = serde_json::from_str::<AlloyHeader>(text) {
        let header = ours.as_ref().expect("a header that alloy reads is read");
        let Ok(time) = i64::try_from(theirs.inner.timestamp) else {
            assert_eq!(header, &None, "no time is past what an i64 holds");
            return None;
        };
        let header = header.as_ref().expect("alloy's headers have number and hash");
        is_of(header, &theirs.inner, theirs.hash);
        assert_eq!(header.time, time);
    }
    let fields = serde_json::from_str::<FullHeader>(text).ok()?;
    let names = serde_json::from_str::<Names>(text).ok()?;
    // As the source does: what it reads by both ways is one block.
    let header = ours.ok()??;
    is_of(&header, &fields, names.hash);
    Some((fields, names))
}

fn is_of(header: &Header, fields: &FullHeader, hash: B256) {
    assert_eq!((header.number, header.hash), (fields.number, hash));
    assert_eq!(header.parent, Some(fields.parent_hash));
    assert_eq!(u64::try_from(header.time), Ok(fields.timestamp));
    assert!(header.bloom.as_deref().is_none_or(|bloom| *bloom == fields.logs_bloom));
}

/// Receipts, whose root is that of alloy's where alloy reads them.
fn read_receipts(text: &str) -> Option<Receipts> {
    let ours = bounded(text.len(), || fuzzing::receipts(text)).ok()?;
    assert!(ours.all.iter().all(|receipt| receipt.logs_end <= ours.logs.len()));
    if let Ok(theirs) = serde_json::from_str::<Vec<TransactionReceipt>>(text) {
        let encoded: Vec<Vec<u8>> = theirs.iter().map(encode).collect();
        assert_eq!(ours.root(), ordered_trie_root_encoded(&encoded), "alloy's receipts have another root");
        let names = theirs.iter().map(|receipt| receipt.transaction_hash);
        assert!(names.eq(ours.all.iter().map(|receipt| receipt.tx_hash)));
    }
    Some(ours)
}

/// In the consensus encoding. The bloom is recomputed, as in our code: the node's bloom is ignored.
fn encode(receipt: &TransactionReceipt) -> Vec<u8> {
    let inner = &receipt.inner;
    let logs: Vec<PlainLog> = inner.logs().iter().map(|log| log.inner.clone()).collect();
    let status = inner.status_or_post_state();
    let known = KnownReceipt { status, cumulative_gas_used: inner.cumulative_gas_used(), logs };
    let bloom = known.bloom();
    let mut out = match inner.tx_type() as u8 {
        0 => vec![],
        tx_type => vec![tx_type],
    };
    ReceiptWithBloom::new(known, bloom).encode(&mut out);
    out
}

/// The proved header is the given one: its logs are the receipts' logs, and the receipts have its root.
fn proof(sealed: &SealedHeader, receipts: Receipts) -> bool {
    let (logs, count) = (receipts.logs.clone(), receipts.all.len());
    match Proved::new(sealed, receipts) {
        Ok(proved) => {
            assert!(proved.logs().same_rows(&logs) && count == sealed.transactions().len());
            assert_eq!(proved.header().block(), sealed.block());
            true
        }
        Err(disproof) => {
            assert!(!disproof.to_string().is_empty());
            false
        }
    }
}

/// Changes the header so that it commits to these receipts, and their logs so that they name it: from here on the proof depends
/// on the positions of the logs. Any change of the proved data must break the proof.
fn fitting(mut fields: FullHeader, receipts: Receipts) {
    fields.receipts_root = receipts.root();
    let hash = fields.hash_slow();
    let transactions: Vec<B256> = receipts.all.iter().map(|receipt| receipt.tx_hash).collect();
    let sealed = SealedHeader::new(fields, hash, transactions).expect("its own hash");
    let mut logs = Logs::default();
    for row in 0..receipts.logs.len() {
        logs.push(sealed.block(), receipts.logs.get(row));
    }
    let receipts = Receipts { logs, ..receipts };
    if !proof(&sealed, receipts.clone()) {
        return;
    }
    for at in 0..receipts.all.len().min(3) {
        let mut changed = receipts.clone();
        changed.all[at].cumulative_gas ^= 1;
        assert!(!proof(&sealed, changed), "gas is part of the root");
        let mut changed = receipts.clone();
        changed.all[at].outcome = match changed.all[at].outcome {
            Outcome::Status(success) => Outcome::Status(!success),
            Outcome::Root(root) => Outcome::Root(!root),
        };
        assert!(!proof(&sealed, changed), "the outcome is part of the root");
    }
    let mut changed = receipts;
    if changed.all.pop().is_some() {
        assert!(!proof(&sealed, changed), "every transaction has a receipt");
    }
}
