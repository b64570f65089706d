//! Types and checks that keep strangers out and calls where they belong; nothing here is persisted.

mod address;
pub mod egress;
pub mod http_client;
