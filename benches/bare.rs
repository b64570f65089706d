//! What sendoff is compared with, each in a process of its own: this binary, started again in a role.
//!
//! | role | is | arguments |
//! |---|---|---|
//! | `bare-server` | axum, axum-server and rustls with a handler that reads JSON and answers JSON | certificates, bytes of its answer |
//! | `bare-relay` | the same, but it calls a URL before it answers | certificates, bytes of its answer, URL |
//! | `bare-sender` | a loop over reqwest | URL, requests, how many at one time |
//! | `bare-index` | the scheduler alone, with nothing around it | tasks, `loaded` or `inserted`, `scheduled` or `ready` |

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use sendoff::clock::Clock;
use sendoff::config::Config;
use sendoff::scheduler::{Scheduler, Waiting};
use sendoff::security::server_tls::ServerTls;
use sendoff::task::header::NameId;
use sendoff::task::{Priority, TaskKey, WallMs};
use serde::de::IgnoredAny;
use tokio::task::JoinSet;

use crate::support::{Outcome, body_sent, child};

/// Plays the role that the arguments name; `None` when they name none.
pub(crate) fn play(arguments: &[String]) -> Option<Outcome> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare-server", certs, answer] => Some(serve(certs, answer, None)),
        ["bare-relay", certs, answer, url] => Some(serve(certs, answer, Some((*url).to_owned()))),
        ["bare-sender", url, count, at_once] => Some(send(url, count, at_once)),
        ["bare-index", count, how, state] => Some(index(count, *how == "loaded", *state == "scheduled")),
        _ => None,
    }
}

fn say(line: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn client() -> Outcome<reqwest::Client> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let never = reqwest::retry::never();
    Ok(reqwest::Client::builder().no_proxy().retry(never).redirect(reqwest::redirect::Policy::none()).build()?)
}

async fn call(client: &reqwest::Client, url: &str, body: Bytes) -> Outcome {
    let answer = client.post(url).header(CONTENT_TYPE, "application/json").body(body).send().await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the target answered {}", answer.status()).into());
    }
    answer.bytes().await?;
    Ok(())
}

/// What the bare server's handler knows.
struct Answering {
    answer: Bytes,
    relay: Option<(reqwest::Client, String, Bytes)>,
}

fn serve(certs: &str, answer_bytes: &str, relay_to: Option<String>) -> Outcome {
    let relay = match relay_to {
        Some(url) => Some((client()?, url, Bytes::from(body_sent()))),
        None => None,
    };
    let pad = "0".repeat(answer_bytes.parse::<usize>()?.saturating_sub(2));
    let knows = Arc::new(Answering { answer: Bytes::from(format!("\"{pad}\"")), relay });
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    drop(provider.install_default());
    let tls = ServerTls::load_or_create(&Config::default().server, Path::new(certs), Clock::system().now().wall)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        say(&listener.local_addr()?.to_string())?;
        let router = Router::new().route("/tasks", post(answer)).with_state(knows);
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls.rustls))?;
        Ok(server.serve(router.into_make_service()).await?)
    })
}

async fn answer(State(knows): State<Arc<Answering>>, body: Bytes) -> Response {
    if serde_json::from_slice::<IgnoredAny>(&body).is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if let Some((client, url, body)) = &knows.relay
        && call(client, url, body.clone()).await.is_err()
    {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], knows.answer.clone()).into_response()
}

/// Sends, then says how long it took and what it cost, in microseconds.
fn send(url: &str, count: &str, at_once: &str) -> Outcome {
    let (count, at_once) = (count.parse::<usize>()?, at_once.parse::<usize>()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = client()?;
    let (clock, used) = (Clock::system(), child::cpu("self")?);
    runtime.block_on(async {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut loops = JoinSet::new();
        for _ in 0..at_once {
            let (client, url, sent) = (client.clone(), url.to_owned(), Arc::clone(&sent));
            loops.spawn(send_until(client, url, sent, count));
        }
        while let Some(ended) = loops.join_next().await {
            ended??;
        }
        let took = clock.now().mono;
        say(&format!("{} {}", took.as_micros(), (child::cpu("self")?.saturating_sub(used)).as_micros()))
    })
}

/// Sends until `count` requests have been begun by all senders together.
async fn send_until(client: reqwest::Client, url: String, sent: Arc<AtomicUsize>, count: usize) -> Outcome {
    let body = Bytes::from(body_sent());
    while sent.fetch_add(1, Ordering::Relaxed) < count {
        call(&client, &url, body.clone()).await?;
    }
    Ok(())
}

/// Fills a scheduler, then says by how many bytes this process has grown.
fn index(count: &str, loaded: bool, scheduled: bool) -> Outcome {
    let count: u32 = count.parse()?;
    let clock = Clock::system();
    let now = clock.now();
    let config = Config::default();
    let queue = NameId(1);
    let mut filled = Scheduler::new(config.workers.max_concurrent, config.hosts.clone(), now);
    filled.set_queue(queue, &config.queue_defaults, now);
    let due = if scheduled { now.wall.plus(std::time::Duration::from_secs(1 << 20)) } else { WallMs::new(1 << 40) };
    let task = |n: u32| {
        Some(Waiting {
            key: TaskKey::from_i64(1 << 50)?.offset(n),
            queue,
            lane: NameId(2),
            priority: Priority::default(),
            due: WallMs::new(due.get() + i64::from(n) / 10),
            due_on_wall: false,
            ahead: false,
            retrying: false,
            deadline: None,
        })
    };
    let before = child::resident("self")?;
    if loaded {
        filled.load((0..count).filter_map(task).collect(), now);
    } else {
        (0..count).filter_map(task).for_each(|task| filled.insert(&task, now));
    }
    let after = child::resident("self")?;
    let counts = filled.counts(queue);
    if counts.scheduled + counts.queued != u64::from(count) {
        return Err(format!("{counts:?} instead of {count}").into());
    }
    say(&after.saturating_sub(before).to_string())
}
