//! A run that is broken off in its middle, by whatever: the same command again, and each line is one task.
//!
//! The first half of the input is written into a pipe, and it is waited for until the server holds tasks of it: what is
//! killed then is killed in the middle, on any machine.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{counts, lines, numbers, read, write};
use crate::cli::here::Here;
use crate::support::client::Client;
use crate::support::process::Process;

/// Tasks in one request: `BULK_CHUNK_TASKS`.
const CHUNK: usize = 5_000;
/// Lines of the input.
const ALL: usize = 4 * CHUNK;
/// Lines that are there when it breaks: two requests and a half.
const HALF: usize = 2 * CHUNK + CHUNK / 2;

/// A command that reads the first half of the input from a pipe that stays open.
fn halfway(here: &Here, words: &[&str]) -> (Child, ChildStdin) {
    reading(here, words, &lines(0..HALF))
}

/// A command that reads this from a pipe that stays open.
fn reading(here: &Here, words: &[&str], input: &str) -> (Child, ChildStdin) {
    let mut command = here.command(&[&["task", "create", "-f", "-"], words].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it is read");
    (child, stdin)
}

/// Waits until the server holds so many tasks. Each look is a request.
async fn until_there_are(client: &Client, count: u64) {
    let look = async { while client.get("/queues/default").await.body["tasks"]["scheduled"].as_u64() < Some(count) {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), look).await.expect("the tasks come");
}

fn here(process: &Process, home: &std::path::Path) -> Here {
    Here::at(process.client.url(), &home.join("data/admin.key"), &home.join("certs/ca.pem"))
}

#[tokio::test]
async fn a_killed_client_goes_on_and_creates_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &[]);
    let here = here(&process, home.path());
    let (mut child, stdin) = halfway(&here, &[]);
    until_there_are(&process.client, 2 * CHUNK as u64).await;
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    write(&here, "t.ndjson", lines(0..ALL));
    let said = here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await.ok();
    assert_eq!(counts(&said), [(ALL - 2 * CHUNK) as u64, 2 * CHUNK as u64, 0]);
    assert_eq!(numbers(&process.client).await, (0..ALL).collect());
}

#[tokio::test]
async fn what_a_killed_client_refused_is_kept_in_whole_lines() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &[]);
    let here = here(&process, home.path());
    write(&here, "rejects", "");
    // Longer than what is written at once by default.
    let refused = format!("{{\"nothing\":\"{}\"}}\n", "x".repeat(9 * 1024));
    let first = refused.clone() + &lines(0..CHUNK - 1);
    let (mut child, stdin) = reading(&here, &["--skip-invalid", "rejects"], &first);
    let look = async {
        while read(&here, "rejects").is_empty() {
            until_there_are(&process.client, 0).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), look).await.expect("it is written");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    write(&here, "t.ndjson", first + "{\"other\":1}\n");
    let said = here.run(&["task", "create", "-f", "t.ndjson", "--skip-invalid", "rejects", "-o", "json"]).await;
    assert_eq!((said.code, counts(&said.out)), (7, [0, CHUNK as u64 - 1, 2]), "{}", said.err);
    assert_eq!(read(&here, "rejects"), refused + "{\"other\":1}\n");
}

#[tokio::test]
async fn an_interrupted_client_says_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &[]);
    let here = here(&process, home.path());
    let (child, stdin) = halfway(&here, &[]);
    until_there_are(&process.client, 2 * CHUNK as u64).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    drop(stdin);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"10,000 tasks created\n"[..]), "{err}");
    assert!(err.contains("interrupted\n  Accepted: 10,000 tasks (lines 1 to 10000)\n"), "{err}");
    assert!(err.contains("Run the same command again within 24 h: it goes on at line 10001 "), "{err}");
}

#[tokio::test]
async fn a_killed_server_is_waited_for_and_nothing_is_created_twice() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &[]);
    let relay = Relay::to(&process).await;
    let here = Here::at(&relay.url(), &home.path().join("data/admin.key"), &home.path().join("certs/ca.pem"));
    let (child, mut stdin) = halfway(&here, &["-o", "json"]);
    until_there_are(&process.client, CHUNK as u64).await;
    process.kill();
    let rest = lines(HALF..ALL);
    let written = tokio::task::spawn_blocking(move || {
        stdin.write_all(rest.as_bytes()).expect("it is read");
    });
    let process = Process::start(home.path(), &[]);
    relay.turn_to(&process);
    written.await.unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let [created, already, refused] = counts(&String::from_utf8(output.stdout).unwrap());
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), created + already, refused), (Some(0), ALL as u64, 0), "{err}");
    assert_eq!(numbers(&process.client).await, (0..ALL).collect());
}

#[tokio::test]
async fn a_server_that_stays_away_ends_the_run_and_the_next_one_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &[]);
    let (child, mut stdin) = halfway(&here(&process, home.path()), &["--retry-for", "0s"]);
    until_there_are(&process.client, 2 * CHUNK as u64).await;
    process.kill();
    // It may have given up before it has read everything.
    drop(stdin.write_all(lines(HALF..ALL).as_bytes()));
    drop(stdin);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{err}");
    // An answer may have been lost with the server, although its tasks are there.
    let may_be = [1, CHUNK + 1, 2 * CHUNK + 1].map(|line| format!("within 24 h: it goes on at line {line} "));
    assert!(may_be.iter().any(|text| err.contains(text)), "{err}");
    let process = Process::start(home.path(), &[]);
    let here = here(&process, home.path());
    write(&here, "t.ndjson", lines(0..ALL));
    let said = here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await.ok();
    assert_eq!(counts(&said)[..2].iter().sum::<u64>(), ALL as u64);
    assert_eq!(numbers(&process.client).await, (0..ALL).collect());
}

/// An address that stays while the server behind it changes.
struct Relay {
    addr: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    // Ends it when dropped.
    _work: JoinSet<()>,
}

async fn accept(listener: TcpListener, to: Arc<Mutex<SocketAddr>>) {
    let mut pairs = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let server = *to.lock().unwrap();
        pairs.spawn(pass(client, server));
    }
}

/// Either side may end it, or never be there.
async fn pass(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    }
}

fn address(process: &Process) -> SocketAddr {
    process.client.url().trim_start_matches("https://").parse().expect("an address")
}

impl Relay {
    async fn to(process: &Process) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(address(process)));
        let mut work = JoinSet::new();
        work.spawn(accept(listener, Arc::clone(&to)));
        Self { addr, to, _work: work }
    }

    fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    fn turn_to(&self, process: &Process) {
        *self.to.lock().unwrap() = address(process);
    }
}
