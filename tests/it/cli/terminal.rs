//! On a pseudo-terminal: tables, their width, colours, questions, redrawing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::support::process::Process;
use crate::support::server::{Home, TestServer};
use crate::support::target::Target;

use super::here::Here;

/// A terminal with a command on it.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    /// As it came: a character may be cut in two where one read ends.
    bytes: Vec<u8>,
    seen: String,
}

impl Terminal {
    /// Runs `sendoff` with these words on a terminal of this width.
    pub(crate) fn start(here: &Here, words: &[&str], columns: u16) -> Self {
        Self::of_size(here, words, (24, columns))
    }

    /// The same with this many rows and columns; 0: the terminal does not say.
    fn of_size(here: &Here, words: &[&str], (rows, columns): (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("text");
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        let end = || Stdio::from(slave.try_clone().expect("a handle"));
        let mut command = here.command(words);
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("it starts");
        Self { master: File::from(master), child, bytes: Vec::new(), seen: String::new() }
    }

    /// Reads on until this text has been seen.
    pub(crate) fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read(), "`{text}` never came: {}", self.seen);
        }
    }

    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // The end of the last handle on the other side is an error here (EIO).
        let Ok(len) = self.master.read(&mut buffer) else { return false };
        self.bytes.extend_from_slice(&buffer[..len]);
        self.seen = String::from_utf8_lossy(&self.bytes).into_owned();
        len > 0
    }

    /// Types this.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("it is there");
    }

    /// Everything it printed, and its exit code.
    pub(crate) fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        let status = self.child.wait().expect("it ends");
        (self.seen.replace("\r\n", "\n"), status.code())
    }

    /// Ends it as Ctrl-C would.
    fn interrupt(mut self) -> String {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.seen
    }
}

/// Runs a command on a terminal to its end, beside the server in this process.
pub(crate) async fn on_terminal(here: &Here, words: &[&str], columns: u16) -> (String, Option<i32>) {
    let terminal = Terminal::start(here, words, columns);
    tokio::task::spawn_blocking(move || terminal.end()).await.expect("it ends")
}

async fn populated(target: &Target) -> TestServer {
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let long = target.url(&format!("/{}", "long/".repeat(40)));
    server.create(&long, &json!({"task_id": "later:1", "queue": "mail", "delay": "1h"})).await;
    server.create("http://127.0.0.1:9/", &json!({"task_id": "dead:1", "retry": {"max_attempts": 1}})).await;
    server.until("dead:1", "dead").await;
    server
}

fn plain(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        kept.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    kept + rest
}

#[tokio::test]
async fn a_terminal_gets_tables_in_colour_cut_to_its_width() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    for (words, heads) in [
        (["task", "list"].as_slice(), "TASK ID  STATUS"),
        (&["dlq", "list"], "TASK ID  QUEUE"),
        (&["queue", "list"], "QUEUE    STATE"),
        (&["task", "get", "dead:1"], "Task       dead:1"),
        (&["queue", "get", "mail"], "Queue"),
        (&["limits"], "NAME"),
    ] {
        for columns in [60, 100, 200] {
            let (shown, code) = on_terminal(&here, words, columns).await;
            assert_eq!(code, Some(0), "{words:?}: {shown}");
            assert!(shown.contains("\x1b["), "{words:?} has no colour: {shown}");
            let plain = plain(&shown);
            assert!(plain.starts_with(heads), "{words:?}: {plain}");
            let widest = plain.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns.into()), "{words:?} at {columns}: {plain}");
        }
    }
    let (wide, _) = on_terminal(&here, &["task", "list"], 200).await;
    assert!(wide.contains('…') && wide.contains(" ago"), "a long target is cut, times are relative: {wide}");
    assert!(wide.contains("\x1b[1m\x1b[31mdead\x1b[0m"), "what is dead is red: {wide:?}");
}

#[tokio::test]
async fn a_terminal_that_says_only_half_of_its_size_gets_tables_cut_all_the_same() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    for (size, room) in [((0, 60), 60), ((24, 0), 80), ((0, 0), 80)] {
        let terminal = Terminal::of_size(&here, &["task", "list"], size);
        let (shown, code) = tokio::task::spawn_blocking(move || terminal.end()).await.expect("it ends");
        assert_eq!(code, Some(0), "{size:?}: {shown}");
        let shown = plain(&shown);
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert!(shown.contains("later:1") && widest <= Some(room), "{size:?}: {shown}");
    }
}

#[tokio::test]
async fn what_is_watched_outlives_a_restart_of_the_server() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Process::start(home.path(), &[]);
    let url = server.client.url().to_owned();
    let task = crate::support::server::task("http://127.0.0.1:9/", &json!({"task_id": "later:1", "delay": "1h"}));
    assert_eq!(server.client.post("/tasks", &task).await.status, 201);
    let here = Here::at(&url, &home.path().join("data/admin.key"), &home.path().join("certs/ca.pem"));
    let watch = |words: &[&str]| Terminal::start(&here, &[words, &["--watch", "--interval", "100ms"]].concat(), 200);
    let mut watched = [
        (watch(&["queue", "list"]), "open", "paused"),
        (watch(&["task", "list"]), "scheduled", "cancelled"),
        (watch(&["task", "get", "later:1"]), "scheduled", "cancelled"),
    ];
    for (terminal, before, _) in &mut watched {
        terminal.until(before);
    }
    server.kill();
    for (terminal, ..) in &mut watched {
        terminal.until("Still trying, for 30s");
    }
    let address = url.strip_prefix("https://").expect("https");
    let server = Process::start_at(home.path(), address);
    assert_eq!(server.client.post("/queues/default/pause", &json!({})).await.status, 200);
    assert_eq!(server.client.delete("/tasks/later:1").await.status, 200);
    for (mut terminal, _, after) in watched {
        terminal.until(after);
        let seen = terminal.interrupt();
        assert_eq!(seen.matches("Still trying").count(), 1, "told once: {seen:?}");
    }
}

#[tokio::test]
async fn colours_can_be_refused_and_wanted() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let (never, _) = on_terminal(&here, &["task", "list", "--color", "never"], 100).await;
    assert!(!never.contains('\x1b') && never.contains("dead"), "{never:?}");
    let piped = here.run(&["task", "list", "-o", "table"]).await.ok();
    assert!(!piped.contains('\x1b'), "{piped:?}");
    let always = here.run(&["task", "list", "-o", "table", "--color", "always"]).await.ok();
    assert!(always.contains("\x1b[31m"), "{always:?}");
    let here = here.with("NO_COLOR", "1");
    let (refused, _) = on_terminal(&here, &["task", "list"], 100).await;
    assert!(!refused.contains('\x1b') && refused.contains("dead"), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_undone_is_asked_first() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let ask = |words: &'static [&'static str], answer: &'static str| {
        let mut terminal = Terminal::start(&here, words, 100);
        tokio::task::spawn_blocking(move || {
            terminal.until("[y/N] ");
            terminal.type_in(answer);
            terminal.end()
        })
    };
    let (said, code) = ask(&["task", "cancel", "later:1"], "\n").await.unwrap();
    assert!(said.contains("About to cancel task later:1. Go on?") && said.contains("Nothing was done"), "{said}");
    assert_eq!((code, &server.task("later:1").await["status"]), (Some(1), &json!("scheduled")));
    let (said, code) = ask(&["task", "cancel", "later:1"], "y\n").await.unwrap();
    assert_eq!((code, &server.task("later:1").await["status"]), (Some(0), &json!("cancelled")), "{said}");
    let (said, code) = ask(&["dlq", "purge", "dead:1"], "yes\n").await.unwrap();
    assert_eq!((code, server.client.get("/tasks/dead:1").await.status.as_u16()), (Some(0), 404), "{said}");
}

#[tokio::test]
async fn a_watched_list_is_drawn_anew_on_a_terminal() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let mut terminal = Terminal::start(&here, &["queue", "list", "--watch", "--interval", "100ms"], 100);
    let mut terminal = tokio::task::spawn_blocking(move || {
        terminal.until("mail");
        terminal
    })
    .await
    .unwrap();
    assert_eq!(server.client.post("/queues/mail/pause", &json!({})).await.status, 200);
    let seen = tokio::task::spawn_blocking(move || {
        terminal.until("paused");
        terminal.interrupt()
    });
    let seen = seen.await.unwrap();
    assert!(seen.starts_with("\x1b[H") && seen.matches("\x1b[H").count() > 1, "{seen:?}");
}

/// A command whose lines are read as they come.
struct Lines {
    child: Child,
    lines: Option<BufReader<std::process::ChildStdout>>,
}

impl Lines {
    fn start(here: &Here, words: &[&str]) -> Self {
        let mut child = here.command(words).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    /// The next lines, beside the server in this process.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut reader = self.lines.take().expect("it is read by nobody else");
        let (reader, lines) = tokio::task::spawn_blocking(move || {
            let lines = reader.by_ref().lines().take(count).map_while(Result::ok).collect();
            (reader, lines)
        })
        .await
        .expect("lines");
        self.lines = Some(reader);
        lines
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It has no end of its own; an error here says that it has ended all the same.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn what_is_watched_and_nobody_looks_at_is_told_when_it_changes() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let mut queues = Lines::start(&here, &["queue", "list", "--watch", "--interval", "100ms"]);
    let first = queues.next(3).await;
    assert!(first[0].starts_with("queue\tstate\t") && first[2].starts_with("mail\topen\t"), "{first:?}");
    assert_eq!(server.client.post("/queues/mail/pause", &json!({})).await.status, 200);
    let next = queues.next(1).await;
    assert!(next[0].starts_with("mail\tpaused\t"), "only what has changed: {next:?}");

    let mut task = Lines::start(&here, &["task", "get", "later:1", "--watch", "--interval", "100ms", "-o", "jsonl"]);
    assert!(task.next(1).await[0].contains(r#""status":"scheduled""#));
    assert_eq!(server.client.delete("/tasks/later:1").await.status, 200);
    assert!(task.next(1).await[0].contains(r#""status":"cancelled""#));
}

#[test]
fn the_story_of_dev_is_coloured_unless_no_colour_is_wanted() {
    for (no_colour, expected) in
        [("", "\u{1b}[1m\u{1b}[32msucceeded after 1 attempt"), ("1", "  demo      succeeded after 1 attempt")]
    {
        let here = Here::alone();
        let place = here.path().display().to_string();
        // It is killed before it can remove its temporary directory.
        let here = here.with("TMPDIR", &place).with("NO_COLOR", no_colour);
        let mut dev = Terminal::start(&here, &["dev"], 80);
        dev.until(expected);
        let seen = dev.interrupt();
        assert_eq!(seen.contains('\u{1b}'), no_colour.is_empty(), "{seen}");
        let mut key = std::fs::read_dir(&place).expect("a directory").filter_map(Result::ok);
        let key = key.find_map(|entry| std::fs::read_to_string(entry.path().join("data/admin.key")).ok());
        let secret = key.expect("a key").trim().rsplit('_').next().expect("a secret").to_owned();
        assert!(!seen.contains(&secret), "not even to people: nobody needs it");
    }
}
