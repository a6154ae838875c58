#!/bin/sh
# Build the adapters: fetch the crates, and let two of them trust the corpus's root. Needs cargo and jq.
set -eu
cd "$(dirname "$0")"
rm -rf patched fetched
mkdir -p patched fetched/src
touch fetched/src/lib.rs
sed '/^# These/,$d' Cargo.toml > fetched/Cargo.toml
(cd fetched && cargo vendor vendor > /dev/null)
cp -R fetched/vendor/attestation-doc-validation fetched/vendor/nitro_attest patched
jq -r .root ../../attestation-documents.json > patched/root.pem
cp patched/root.pem patched/attestation-doc-validation/src/nitro.pem
# The time of the case in place of the system's clock.
sed -i 's/^    Ok(std::time::SystemTime::now.*/    Ok(Duration::from_secs(std::env::var("CORPUS_TIME").unwrap().parse().unwrap()))/' \
    patched/attestation-doc-validation/src/time.rs
# The SHA-256 of the root, which the crate takes from AWS's ZIP archive when it is built.
sed -i 's/pem::parse_x509_pem(&data)/pem::parse_x509_pem(include_bytes!("..\/root.pem"))/' \
    patched/nitro_attest/build.rs
cargo build --release
