//! The OpenAPI document as a client's author meets it: on a real server, and turned into a TypeScript client that
//! compiles and works.
//!
//! `.ci/openapi` does the rest: validators and generators of requests that are not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;

use crate::support::process::Process;
use crate::support::server::TestServer;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn a_stranger_may_read_the_document_and_its_page_and_nothing_else() {
    let server = TestServer::start().await;
    let stranger = server.client.with_key("so_nobody_nothing");
    for path in ["/openapi.json", "/v1/openapi.json"] {
        let answer = stranger.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let kept = std::fs::read(root().join("docs/openapi.json")).unwrap();
        assert_eq!(answer.body, serde_json::from_slice::<serde_json::Value>(&kept).unwrap());
    }
    let page = stranger.get("/v1/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.body.as_str().is_some_and(|page| page.contains("docs/swagger-ui-bundle.js")));
    let script = stranger.get("/v1/docs/swagger-ui-bundle.js").await;
    assert_eq!((script.status.as_u16(), &script.headers["content-encoding"]), (200, &"gzip".parse().unwrap()));
    assert_eq!(script.headers["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(stranger.get("/docs/anything").await.status, 401);
    for path in ["/openapi.json", "/docs", "/docs/start.js"] {
        let send = |method: Method| stranger.send(stranger.request(method, path));
        let head = send(Method::HEAD).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, Some("")), "{path}");
        assert_eq!(send(Method::OPTIONS).await.unwrap().status, 204, "{path}");
        let refused = send(Method::DELETE).await.unwrap();
        assert_eq!((refused.status.as_u16(), &refused.headers["allow"]), (405, &"GET,HEAD".parse().unwrap()), "{path}");
    }
}

/// npm's tools, as `.ci/openapi --tools-only` installs them. Missing tools are a reason to skip, but not in CI.
#[expect(clippy::disallowed_methods, reason = "CI is a fact of the test's surroundings, not of the program's")]
fn tools() -> Option<PathBuf> {
    let tools = root().join("target/openapi/client");
    if tools.join("node_modules/.bin/openapi-typescript").exists() {
        return Some(tools);
    }
    assert!(std::env::var_os("CI").is_none(), "`.ci/openapi --tools-only` has to run first");
    println!("SKIPPED: no TypeScript client was generated; `.ci/openapi --tools-only` installs what that needs");
    None
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

#[test]
fn a_typescript_client_made_from_the_document_compiles_and_works() {
    let Some(tools) = tools() else { return };
    let bin = tools.join("node_modules/.bin");
    // Beside node_modules, where the compiler and Node look for packages.
    let made = tempfile::Builder::new().prefix("made").tempdir_in(&tools).unwrap();
    for file in ["client.ts", "process.d.ts", "tsconfig.json"] {
        std::fs::copy(root().join("tests/openapi-client").join(file), made.path().join(file)).unwrap();
    }
    let document = root().join("docs/openapi.json");
    run(Command::new(bin.join("openapi-typescript")).arg(document).arg("-o").arg(made.path().join("schema.ts")));
    run(Command::new(bin.join("tsc")).arg("--project").arg(made.path()));
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let key = std::fs::read_to_string(dir.path().join("data/admin.key")).unwrap();
    let said = run(Command::new("node")
        .arg(made.path().join("client.js"))
        .args([server.client.url(), key.trim()])
        .env("NODE_EXTRA_CA_CERTS", dir.path().join("certs/ca.pem")));
    assert_eq!(said.trim(), "the client works");
    server.terminate(dir.path());
}
