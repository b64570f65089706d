//! `requests::requests` under libFuzzer: each input goes to a whole server.
#![no_main]

use std::sync::LazyLock;

use tokio::runtime::Runtime;

#[path = "../it/fuzz/requests.rs"]
mod requests;
#[expect(dead_code, reason = "what the other tests use")]
#[path = "../it/support"]
mod support {
    pub(crate) mod client;
    pub(crate) mod contract;
    pub(crate) mod server;
}

use support::server::TestServer;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static SERVER: LazyLock<TestServer> = LazyLock::new(|| RUNTIME.block_on(TestServer::start()));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let server = &*SERVER;
    RUNTIME.block_on(requests::requests(input, server));
});
