//! Who may call us, how they know it is us, and what we may call: types and checks, nothing that is kept.

pub mod api_key;
mod local_ca;
mod private_file;
pub mod server_tls;
