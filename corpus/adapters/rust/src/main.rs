//! Verifiers from crates.io as commands: `corpus-adapters VERIFIER DOCUMENT ROOT TIME PCRS NONCE`.

use attestation_doc_validation::{
    validate_and_parse_attestation_doc, validate_expected_nonce, validate_expected_pcrs, PCRProvider,
};
use base64::{engine::general_purpose::STANDARD, Engine};
use nitro_attest::UnparsedAttestationDoc;
use remote_attestation_verifier::{parse_document, parse_payload, verify};
use std::{collections::BTreeMap, env, fs};
use time::{format_description::well_known::Rfc3339, OffsetDateTime};

type Expected = BTreeMap<usize, String>;

struct Pcrs(Expected);

impl PCRProvider for Pcrs {
    fn pcr_0(&self) -> Option<&str> {
        self.0.get(&0).map(String::as_str)
    }
    fn pcr_1(&self) -> Option<&str> {
        self.0.get(&1).map(String::as_str)
    }
    fn pcr_2(&self) -> Option<&str> {
        self.0.get(&2).map(String::as_str)
    }
    fn pcr_8(&self) -> Option<&str> {
        self.0.get(&8).map(String::as_str)
    }
}

/// The root is built in, and so is the clock: see build. Compares PCR0, 1, 2 and 8.
fn attestation_doc_validation(doc: &[u8], time: i64, pcrs: Expected, nonce: Option<Vec<u8>>) -> bool {
    env::set_var("CORPUS_TIME", time.to_string());
    let Ok(doc) = validate_and_parse_attestation_doc(doc) else { return false };
    (pcrs.is_empty() || validate_expected_pcrs(&doc, &Pcrs(pcrs)).is_ok())
        && nonce.is_none_or(|nonce| validate_expected_nonce(&doc, &STANDARD.encode(nonce)).is_ok())
}

/// The root is built in. Leaves PCRs and nonce to its caller.
fn nitro_attest(doc: &[u8], time: OffsetDateTime) -> bool {
    UnparsedAttestationDoc::from(doc).parse_and_verify(time).is_ok()
}

/// A PCR of zeros expects nothing. The nonce is mandatory: without one, it is the document's own.
fn remote_attestation_verifier(
    doc: Vec<u8>, root: &[u8], time: i64, pcrs: Expected, nonce: Option<Vec<u8>>,
) -> bool {
    let body: String = String::from_utf8_lossy(root).lines().filter(|l| !l.starts_with('-')).collect();
    let root = STANDARD.decode(body).unwrap();
    let mut list = vec![vec![0; 48]; pcrs.keys().max().map_or(0, |last| last + 1)];
    for (index, pcr) in pcrs {
        list[index] = hex::decode(pcr).unwrap();
    }
    let Ok(message) = parse_document(&doc) else { return false };
    let Ok(payload) = parse_payload(&message.payload) else { return false };
    let nonce = nonce.unwrap_or_else(|| payload.nonce.clone());
    verify(message, payload, nonce, list, Some(root), time as u64).is_ok()
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let doc = fs::read(&args[2]).unwrap();
    let root = fs::read(&args[3]).unwrap();
    let time = OffsetDateTime::parse(&args[4], &Rfc3339).unwrap();
    let pairs = args[5].split(',').filter_map(|pair| pair.split_once('='));
    let pcrs = pairs.map(|(index, pcr)| (index.parse().unwrap(), pcr.to_string())).collect();
    let nonce = (args[6] != "-").then(|| hex::decode(&args[6]).unwrap());
    let seconds = time.unix_timestamp();
    let accepted = match args[1].as_str() {
        "attestation-doc-validation" => attestation_doc_validation(&doc, seconds, pcrs, nonce),
        "nitro_attest" => nitro_attest(&doc, time),
        "remote-attestation-verifier" => remote_attestation_verifier(doc, &root, seconds, pcrs, nonce),
        other => panic!("no verifier {other}"),
    };
    println!("{}", if accepted { "accept" } else { "reject" });
}
