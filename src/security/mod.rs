//! Who may call us, how they know it is us, and what we may call: types and checks, nothing that is kept.

mod address;
pub mod api_key;
pub mod certificate;
mod certificate_files;
pub mod client_ca;
pub mod credential;
pub mod egress;
pub mod failure_limit;
pub mod http_answer;
pub mod http_client;
pub mod jwt;
pub mod key_ring;
mod local_ca;
mod private_file;
pub mod server_tls;

pub use crate::task::scope;
