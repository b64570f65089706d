//! A target whose answer does not end, or is very long: what the process keeps of it in memory is bounded.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::process::Process;

const MIB: usize = 1024 * 1024;
/// What the process may grow by, for everything it does meanwhile.
const GROWTH_MAX_KIB: u64 = 48 * 1024;

/// Peak memory of a process, in KiB.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Answers one request with `head` and then so many MiB, and says how many were taken off its hands.
async fn pour(listener: TcpListener, head: &'static str, mib: usize) -> usize {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    let piece = vec![b'x'; MIB];
    if stream.write_all(head.as_bytes()).await.is_err() {
        return 0;
    }
    for poured in 0..mib {
        if stream.write_all(&piece).await.is_err() {
            return poured;
        }
    }
    mib
}

async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "a whole request");
    }
}

/// What one greedy answer did: MiB taken, growth of the peak in KiB, the task in the end.
async fn answer(environment: &[(&str, &str)], head: &'static str, mib: usize) -> (usize, u64, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), environment);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut pouring = JoinSet::new();
    pouring.spawn(pour(listener, head, mib));
    let before = peak(&process);
    let task = json!({"task_type": "http_request", "payload": {"url": url}, "retry": {"max_attempts": 1}});
    let accepted = process.client.post("/tasks", &task).await;
    let id = accepted.body["task_id"].as_str().unwrap().to_owned();
    let taken = pouring.join_next().await.unwrap().unwrap();
    let ended = process.client.get(&format!("/tasks/{id}?wait=60s")).await.body;
    (taken, peak(&process) - before, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_gibibyte_is_cut_off_and_recorded() {
    let heads = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", "succeeded"),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1073741824\r\n\r\n", "succeeded"),
        // A header that does not end.
        ("HTTP/1.1 200 OK\r\nx: ", "dead"),
    ];
    for (head, status) in heads {
        let (taken, grew, task) = answer(&[], head, 1024).await;
        println!("FIGURES crash: {taken} MiB of 1024 taken off an answer's hands, peak memory grew by {grew} KiB");
        assert!(taken < 64, "the connection is dropped: {taken} MiB");
        assert!(grew < GROWTH_MAX_KIB, "{grew} KiB");
        assert_eq!(task["status"], status, "{task}");
        assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "the attempt is recorded: {task}");
    }
}

/// The negative control: a worker that keeps all of an answer is seen by the very same measure.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_cap_is_caught() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 134217728\r\n\r\n";
    let (taken, grew, _) = answer(&[("SENDOFF_SABOTAGE", "no-body-cap")], head, 128).await;
    println!("sabotaged: {taken} MiB taken, peak memory grew by {grew} KiB");
    assert!(taken >= 64 && grew >= GROWTH_MAX_KIB, "{taken} MiB taken, {grew} KiB");
}
