//! Who may call us, how they know it is us, and what we may call: types and checks, nothing that is kept.

mod address;
pub mod api_key;
pub mod egress;
pub mod http_client;
mod local_ca;
mod private_file;
pub mod server_tls;
