//! `task create -f`: content, repeats, faults, limits.

use serde_json::json;

use super::{counts, line, lines, numbers, read, write};
use crate::cli::here::Here;
use crate::support::server::{Home, TestServer};

/// Tasks in one request: `BULK_CHUNK_TASKS`.
const CHUNK: usize = 5_000;

#[tokio::test]
async fn a_file_becomes_tasks_in_order_and_a_repeat_becomes_none() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    write(&here, "t.ndjson", lines(0..CHUNK + 2));
    let ids = here.run(&["task", "create", "-f", "t.ndjson", "-o", "name"]).await.ok();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), CHUNK + 2);
    for n in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1] {
        assert!(server.task(ids[n]).await["payload"]["url"].as_str().unwrap().ends_with(&format!("/{n}")));
    }
    let again = here.run(&["task", "create", "--file", "t.ndjson"]).await;
    assert_eq!(again.out, "no new task, 5,002 already there\n");
    assert_eq!(again.err, "the same input was sent within 24 h; --salt TEXT creates its tasks once more\n");
    let again = here.run(&["task", "create", "-f", "t.ndjson", "-o", "name"]).await.ok();
    assert_eq!(again.lines().collect::<Vec<_>>(), ids, "the same ids");
    // The content counts, not the name, nor how it is read.
    let piped = here.sh("cat t.ndjson | sendoff task create -f - -o json").await.ok();
    assert_eq!(counts(&piped), [0, 5_002, 0]);
    assert_eq!(numbers(&server.client).await.len(), CHUNK + 2);
    let salted = here.run(&["task", "create", "-f", "t.ndjson", "--salt", "2026-11-25", "-o", "json"]).await.ok();
    assert_eq!(counts(&salted), [5_002, 0, 0], "once more, on purpose");
    let salted = here.run(&["task", "create", "-f", "t.ndjson", "--salt", "2026-11-25", "-o", "json"]).await.ok();
    assert_eq!(counts(&salted), [0, 5_002, 0]);
}

#[tokio::test]
async fn a_changed_file_is_not_taken_for_the_same() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    write(&here, "t.ndjson", lines(0..CHUNK + 2));
    assert_eq!(counts(&here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await.ok()), [5_002, 0, 0]);
    write(&here, "t.ndjson", lines(0..CHUNK + 1) + &line(9_999));
    let changed = here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await.ok();
    assert_eq!(counts(&changed), [2, CHUNK as u64, 0], "all that comes with the change is new");
    write(&here, "t.ndjson", "\n".to_owned() + &lines(0..CHUNK + 2));
    let moved = here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await.ok();
    assert_eq!(counts(&moved), [5_002, 0, 0]);
}

#[tokio::test]
async fn tasks_with_ids_of_their_own_are_known_without_a_key() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    let named = |n: usize| line(n).replace("\"delay\"", &format!("\"task_id\":\"n{n}\",\"delay\""));
    let all: String = (0..10).map(named).collect();
    write(&here, "t.ndjson", &all);
    assert_eq!(here.run(&["task", "create", "-f", "t.ndjson"]).await.ok(), "10 tasks created\n");
    // Another salt stands for another day: the server no longer knows the keys.
    let later = here.run(&["task", "create", "-f", "t.ndjson", "--salt", "later"]).await;
    assert_eq!((later.out.as_str(), later.err.as_str()), ("no new task, 10 already there\n", ""), "salt is no help");
    write(&here, "t.ndjson", all.replace("/7\"", "/77\"") + &named(10));
    let err = here.run(&["task", "create", "-f", "t.ndjson"]).await.failed(5);
    assert!(
        err.starts_with("sendoff: t.ndjson:8: /task_id: task_id `n7` is taken by a task with other content"),
        "{err}"
    );
    assert_eq!(numbers(&server.client).await, (0..10).collect());
    let said = here.run(&["task", "create", "-f", "t.ndjson", "--skip-invalid", "rejects"]).await;
    assert_eq!(said.code, 7, "{said:?}");
    assert_eq!(read(&here, "rejects"), named(7).replace("/7\"", "/77\""));
    assert_eq!(numbers(&server.client).await, (0..11).collect());
}

#[tokio::test]
async fn arrays_and_single_tasks_are_told_by_content() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    write(
        &here,
        "one",
        "\n{\"task_type\":\n \"http_request\", \"delay\": \"1h\",\n \"payload\": {\"url\": \"http://a/0\"}}\n",
    );
    let id = here.run(&["task", "create", "-f", "one", "-o", "name"]).await.ok();
    assert_eq!(server.task(id.trim()).await["payload"]["url"], "http://a/0");
    write(&here, "array.ndjson", format!("[\n{},\n {}\n]\n", line(1), line(2)));
    let said = here.run(&["task", "create", "-f", "array.ndjson"]).await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "2 tasks created\n", ""));
    assert_eq!(numbers(&server.client).await.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    write(&here, "array", format!("[{},\n{{\"a\":1}}]", line(3)));
    let err = here.run(&["task", "create", "-f", "array"]).await.failed(2);
    assert!(
        err.starts_with("sendoff: array: element 2: /a: there is no such field\n  Nothing was accepted\n"),
        "{err}"
    );
    assert_eq!(here.sh("sendoff task create -f - </dev/null").await.ok(), "0 tasks created\n");
    for (name, content, expected) in [
        ("broken", "[1,\n", "sendoff: broken: this begins like a JSON array, and is none: "),
        ("text", "hello\n", "sendoff: text:1: column 1: expected value\n"),
    ] {
        write(&here, name, content);
        let err = here.run(&["task", "create", "-f", name]).await.failed(2);
        assert!(err.starts_with(expected), "{err}");
    }
    let err = here.run(&["task", "create", "-f", "missing"]).await.failed(2);
    assert!(err.starts_with("sendoff: missing: failed to read it: "), "{err}");
    let err = here.run(&["task", "create", "-f", "."]).await.failed(2);
    assert!(err.starts_with("sendoff: .: this is a directory"), "{err}");
}

/// More than a chunk, with faults of both kinds: those seen at the door and those seen by the engine.
fn faulty() -> String {
    let mut all: Vec<String> = (0..CHUNK + 100).map(line).collect();
    all[7] = "{\"task_type\":\n".to_owned();
    all[CHUNK + 8] = line(CHUNK + 8).replace("\"delay\"", "\"queue\":\"mial\",\"delay\"");
    all[CHUNK + 9] = line(CHUNK + 9).replace("\"delay\"", "\"queue\":\"mial\",\"delay\"");
    all[CHUNK + 50] = line(CHUNK + 50).replace("24h", "24 hours");
    all.concat()
}

#[tokio::test]
async fn faults_name_line_and_place_and_stop_the_run() {
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let here = Here::of(&server);
    let second: Vec<_> = faulty().lines().skip(CHUNK).map(str::to_owned).collect();
    write(&here, "t.ndjson", lines(0..CHUNK) + &second.join("\n"));
    let said = here.run(&["task", "create", "-f", "t.ndjson", "-o", "json"]).await;
    let err = said.err.clone();
    assert_eq!((said.code, counts(&said.out)), (2, [5_000, 0, 0]), "{err}");
    let expected = format!("sendoff: t.ndjson:{}: /delay: ", CHUNK + 51);
    assert!(err.starts_with(&expected), "{err}");
    assert!(err.contains("Accepted: 5,000 tasks (lines 1 to 5000)\n") && err.contains("--skip-invalid"), "{err}");
    assert_eq!(numbers(&server.client).await.len(), CHUNK, "nothing of the faulty chunk");
}

#[tokio::test]
async fn refused_lines_are_left_out_kept_and_can_be_mended() {
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let here = Here::of(&server);
    write(&here, "t.ndjson", faulty());
    let run = ["task", "create", "-f", "t.ndjson", "--skip-invalid", "rejects"];
    let said = here.run(&run).await;
    assert_eq!((said.code, said.out.as_str()), (7, "5,096 tasks created, 4 refused (see rejects)\n"), "{}", said.err);
    let all = faulty();
    let refused: String = [8, CHUNK + 9, CHUNK + 10, CHUNK + 51]
        .map(|number| all.lines().nth(number - 1).unwrap().to_owned() + "\n")
        .concat();
    assert_eq!(read(&here, "rejects"), refused);
    assert_eq!(numbers(&server.client).await.len(), CHUNK + 96);

    let said = here.run(&run).await;
    let expected = "no new task, 5,096 already there, 4 refused (see rejects)\n";
    assert_eq!((said.code, said.out.as_str()), (7, expected), "a repeat knows what was left out: {}", said.err);
    assert_eq!(read(&here, "rejects"), refused, "and writes no line twice");

    let without = here.run(&["task", "create", "-f", "t.ndjson"]).await;
    assert!(without.failed(2).starts_with("sendoff: t.ndjson:8: column "), "what is at the door is told as ever");
    let itself = here.run(&["task", "create", "-f", "t.ndjson", "--skip-invalid", "t.ndjson"]).await;
    assert!(itself.failed(2).contains("this is the input itself"));

    let mended = refused.replace("mial", "mail").replace("24 hours", "24h").replace("{\"task_type\":\n", &line(7));
    write(&here, "mended", mended);
    assert_eq!(here.run(&["task", "create", "-f", "mended"]).await.ok(), "4 tasks created\n");
    assert_eq!(numbers(&server.client).await.len(), CHUNK + 100);
}

#[tokio::test]
async fn refused_lines_that_cannot_be_kept_stop_the_run_which_says_what_was_accepted() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    let all = lines(0..CHUNK - 1) + "{}\n" + &lines(CHUNK..CHUNK + 100);
    write(&here, "t.ndjson", &all);
    let run = "sendoff task create -f t.ndjson --skip-invalid rejects -o json";
    // No file may grow, as on a full disk.
    let said = here.sh(&format!("trap '' XFSZ; ulimit -f 0; {run}")).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.starts_with("sendoff: --skip-invalid rejects: failed to write it: "), "{}", said.err);
    assert!(said.err.contains("\n  Accepted: ") && said.err.contains("\n  Run the same command again"), "{}", said.err);
    let [created, 0, 1] = counts(&said.out) else { panic!("{said:?}") };
    assert_eq!(numbers(&server.client).await.len() as u64, created);
    assert_eq!(read(&here, "rejects"), "");

    let said = here.sh(run).await;
    assert_eq!((said.code, counts(&said.out)), (7, [CHUNK as u64 + 99 - created, created, 1]), "{}", said.err);
    assert_eq!(read(&here, "rejects"), "{}\n");
}

#[tokio::test]
async fn a_line_is_as_long_as_the_server_says_and_never_longer_than_any_would() {
    const MOST: usize = 1024 * 1024 + 64 * 1024;
    const EVER: usize = 10 * 1024 * 1024 + 64 * 1024;
    let server = TestServer::start().await;
    let here = Here::of(&server);
    let padded = |bytes: usize| format!("{}{}\n", line(1).trim_end(), " ".repeat(bytes - line(1).len() + 1));
    write(&here, "fits", line(0) + &padded(MOST));
    assert_eq!(here.run(&["task", "create", "-f", "fits"]).await.ok(), "2 tasks created\n");
    write(&here, "over", line(2) + &padded(MOST + 1) + &line(3));
    let err = here.run(&["task", "create", "-f", "over"]).await.failed(2);
    assert!(err.starts_with("sendoff: over:2: a line may have at most 1114112 bytes"), "{err}");
    let said = here.run(&["task", "create", "-f", "over", "--skip-invalid", "rejects"]).await;
    assert_eq!((said.code, said.out.as_str()), (7, "2 tasks created, 1 refused (see rejects)\n"));
    assert_eq!(read(&here, "rejects"), padded(MOST + 1));
    for (bytes, expected) in
        [(EVER, "a line may have at most 1114112 bytes"), (EVER + 1, "the line has more than 10551296 bytes")]
    {
        write(&here, "huge", line(4) + &padded(bytes));
        let err = here.run(&["task", "create", "-f", "huge"]).await.failed(2);
        assert!(err.starts_with(&format!("sendoff: huge:2: {expected}")), "{err}");
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for_as_long_as_was_said() {
    let server = Home::new().with_queue("small", |queue| queue.max_tasks = Some(2)).start().await;
    assert_eq!(server.client.post("/queues/small/pause", &json!({})).await.status, 200);
    let here = Here::of(&server);
    let three: String = (0..3).map(|n| line(n).replace("\"delay\"", "\"queue\":\"small\",\"delay\"")).collect();
    write(&here, "t.ndjson", three);
    let said = here.run(&["task", "create", "-f", "t.ndjson", "--retry-for", "0s"]).await;
    let err = said.failed(1);
    assert!(err.starts_with("sendoff: gave up trying: queue `small` is full: max_tasks is 2"), "{err}");
    assert!(
        err.contains("\n  Nothing was accepted\n  Run the same command again within 24 h: it goes on at line 1 "),
        "{err}"
    );
}
