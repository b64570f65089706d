//! The HTTP interface.

mod connection;
pub mod server;
