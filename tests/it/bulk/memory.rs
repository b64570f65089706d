//! However large the file, the client holds a few chunks of it.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli::here::Here;

/// Bytes of one line.
const LINE: usize = 64 * 1024;
/// Several times what may be held at one time: a client that kept its input would hold all of it.
const FILE_MIB: usize = 200;

/// What is seen of the client by a server that takes everything and keeps nothing.
#[derive(Default)]
struct Seen {
    client: AtomicU32,
    peak_kib: AtomicU64,
    tasks: AtomicU64,
}

impl Seen {
    /// The most that the client has ever held, in KiB.
    fn look(&self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.client.load(Ordering::SeqCst)));
        let status = status.unwrap_or_default();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        self.peak_kib.fetch_max(peak.unwrap_or_default(), Ordering::SeqCst);
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    loop {
        let mut length = 0_usize;
        loop {
            let mut head = String::new();
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
            if let Some(given) = head.to_ascii_lowercase().strip_prefix("content-length:") {
                length = given.trim().parse().expect("a number");
            }
            if head == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let count = body.split(|byte| *byte == b'\n').count() - 1;
        seen.tasks.fetch_add(count as u64, Ordering::SeqCst);
        seen.look();
        let ids: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let answer = json!({"task_ids": ids}).to_string();
        let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await?;
    }
}

/// Peak of a client that sends a file of so many MiB, in KiB.
async fn peak(mib: usize) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Seen::default());
    let seen_too = Arc::clone(&seen);
    let mut work = JoinSet::new();
    work.spawn(async move {
        let mut streams = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen_too);
            streams.spawn(async move { drop(serve(stream, seen).await) });
        }
    });
    let here = Here::alone().with("SENDOFF_URL", &url).with("SENDOFF_KEY", "so_a_b");
    let line = format!("{{\"payload\":\"{}\"}}\n", "x".repeat(LINE - 15));
    let count = mib * 1024 * 1024 / LINE;
    let mut command = here.command(&["task", "create", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    seen.client.store(child.id(), Ordering::SeqCst);
    let mut stdin = child.stdin.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        for _ in 0..count {
            stdin.write_all(line.as_bytes()).unwrap();
        }
        drop(stdin);
        child.wait().unwrap()
    });
    assert!(ended.await.unwrap().success());
    assert_eq!(seen.tasks.load(Ordering::SeqCst), count as u64);
    seen.peak_kib.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_never_held_whole() {
    if !std::path::Path::new("/proc/self/status").exists() {
        println!("SKIPPED: the peak of a process's memory is read from /proc, which is not here");
        return;
    }
    let (little, whole) = (peak(1).await, peak(FILE_MIB).await);
    assert!(little > 0, "the peak was read");
    let taken_mib = whole.saturating_sub(little) / 1024;
    // Four chunks of 4 MiB in flight, the next one being cut, and what the transport and the allocator keep of each.
    assert!(taken_mib < FILE_MIB as u64 / 2, "{taken_mib} MiB more for a file of {FILE_MIB} MiB than for one of 1 MiB");
}
