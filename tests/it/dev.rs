//! `sendoff dev`, on the real binary: what it prints works as printed, what happens is told, and nothing stays behind.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::spoken::{Spoken, bare, errors, pasted, told};

/// What lies in `dir` besides what the test itself put there.
fn left_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name != "errors").collect()
}

/// Started, with its guide read.
fn started(dir: &Path, words: &[&str]) -> Spoken {
    let mut dev = Spoken::start(dir, &[&["dev"], words].concat());
    dev.until("Ctrl-C ends it");
    dev
}

/// The lines of the guide that are commands.
fn commands(dev: &Spoken) -> Vec<String> {
    let is_command =
        |line: &&String| line.contains(" task create ") || line.contains(" dlq ") || line.contains("curl ");
    dev.said.iter().filter(is_command).cloned().collect()
}

/// The directory that the guide names.
fn directory(dev: &Spoken) -> PathBuf {
    let line = dev.said.iter().find(|line| line.starts_with("  data ")).expect("a line");
    PathBuf::from(line.split_whitespace().nth(1).expect("a directory"))
}

#[test]
fn the_printed_commands_work_as_printed_and_every_life_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut dev = started(dir.path(), &[]);
    let [flaky, slow, dead, curl] = &commands(&dev)[..] else { panic!("four commands: {:?}", dev.said) };
    let key = fs::read_to_string(directory(&dev).join("data/admin.key")).unwrap();

    let (said, complained) = told(&pasted(elsewhere.path(), flaky));
    let id = dev.until("  default   created").split_whitespace().nth(1).unwrap().to_owned();
    let row = said.lines().find(|row| row.contains(&id));
    assert!(row.is_some_and(|row| row.contains("/flaky")), "{flaky}: {said}{complained}");
    dev.until(&format!("{id}  default   succeeded after 3 attempts"));

    let watched = pasted(elsewhere.path(), slow);
    assert_eq!(watched.status.code(), Some(0), "{slow}: {:?}", told(&watched));
    assert!(told(&watched).0.contains("succeeded") || told(&watched).1.contains("succeeded"), "{:?}", told(&watched));

    let id = match dev.said.iter().find(|line| line.contains("dead: ")) {
        Some(line) => line.clone(),
        None => dev.until("dead: "),
    };
    let id = id.split_whitespace().nth(1).unwrap().to_owned();
    let redriven = pasted(elsewhere.path(), dead);
    assert_eq!(redriven.status.code(), Some(0), "{dead}: {:?}", told(&redriven));
    dev.until(&format!("{id}  demo      redriven: series 2 begins"));
    dev.until(&format!("{id}  demo      dead: max attempts after 3 attempts"));

    if Command::new("curl").arg("--version").output().is_err() {
        println!("SKIPPED: there is no `curl` on PATH, so the line that dev prints was not run");
    } else {
        let output = pasted(elsewhere.path(), &format!("{curl} -sS -w '%{{http_code}}'"));
        assert!(told(&output).0.ends_with("201"), "{curl}: {:?}", told(&output));
    }

    let life: Vec<String> = dev
        .said
        .iter()
        .filter_map(|line| line.split_once(&id))
        .map(|(_, words)| words.replace("  demo      ", ""))
        .collect();
    let told: Vec<&str> = life.iter().map(|words| words.split(" after ").next().unwrap()).collect();
    let series = ["attempt 1 started", "500", "retry in 1s: attempt 2 of 3", "attempt 2 started", "500"];
    let rest = ["retry in 2s: attempt 3 of 3", "attempt 3 started", "500", "dead: max attempts"];
    let (first, second) = (["created"].as_slice(), ["redriven: series 2 begins"].as_slice());
    assert_eq!(told, [first, &series, &rest, second, &series, &rest].concat(), "{life:#?}");

    dev.signal(Signal::INT);
    let (code, said) = dev.end();
    assert_eq!(code, Some(0), "{said}{}", errors(dir.path()));
    assert!(said.ends_with("and everything in it") && said.contains("\nremoved "), "{said}");
    assert_eq!(left_in(dir.path()), [""; 0]);
    assert_eq!(errors(dir.path()), "");
    assert!(!said.contains(key.trim().rsplit('_').next().unwrap()), "the key is printed");
}

#[test]
fn a_quiet_one_tells_no_lives_and_ends_on_sigterm_and_when_its_window_closes() {
    for signal in [Signal::TERM, Signal::HUP] {
        let dir = tempfile::tempdir().unwrap();
        let dev = started(dir.path(), &["--quiet"]);
        dev.signal(signal);
        let (code, said) = dev.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("created\n"), "{said}");
        assert_eq!(left_in(dir.path()), [""; 0]);
    }
}

#[test]
fn our_own_api_is_no_target() {
    let dir = tempfile::tempdir().unwrap();
    let dev = started(dir.path(), &[]);
    let url = dev.said[0].split_whitespace().find(|word| word.starts_with("https://")).unwrap();
    let create = &commands(&dev)[0];
    let own = format!("{}task create {url}/", create.split("task create").next().unwrap());
    let (said, complained) = told(&pasted(dir.path(), &own));
    assert!(complained.contains("own_listener"), "{own}: {said}{complained}");
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--listen", &taken], 1, "failed to listen on"),
        (&["--target-listen", &taken], 1, "--target-listen takes another address"),
        (&["--listen", "0.0.0.0:0"], 2, "expected a loopback address"),
        (&["--target-listen", "localhost:80"], 2, "expected a loopback address"),
        (&["--keep", "errors/x"], 78, "--keep takes another"),
        (&["--keep", "errors"], 78, "--keep takes another"),
        (&["--loud"], 2, "--loud"),
    ];
    for (words, code, why) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("errors"), "").unwrap();
        let output = bare(dir.path(), &[&["dev"], words].concat()).output().unwrap();
        let (said, complained) = told(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}{complained}");
        assert!(complained.contains(why), "{words:?}: {complained}");
        assert_eq!(left_in(dir.path()), [""; 0], "{words:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = bare(dir.path(), &["dev"]).env("TMPDIR", dir.path().join("none")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(told(&output).1.contains("set TMPDIR"), "{}", told(&output).1);
    let output = bare(dir.path(), &["--data-dir", "x", "dev"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).1.contains("sendoff dev --keep DIR"), "{}", told(&output).1);
}

#[test]
fn what_is_kept_goes_on_and_serves_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = started(dir.path(), &["--keep", "play ground"]);
    first.until("succeeded");
    let list = commands(&first)[2].split(" && ").next().unwrap().replace(" dlq list", " task list -o name");
    let file = dir.path().join("play ground/config.yaml");
    let written = fs::read_to_string(&file).unwrap();

    let second = bare(dir.path(), &["dev", "--keep", "play ground"]).output().unwrap();
    assert_eq!(second.status.code(), Some(74), "{:?}", told(&second));
    assert!(told(&second).1.contains("in use by process"), "{:?}", told(&second));
    assert_eq!(fs::read_to_string(&file).unwrap(), written, "the first one can still be found");
    assert_eq!(told(&pasted(dir.path(), &list)).0.lines().count(), 6, "{list}");

    first.signal(Signal::INT);
    let (code, said) = first.end();
    assert!(code == Some(0) && said.contains("\nkept "), "{said}");
    assert_eq!(left_in(dir.path()), ["play ground"]);

    let again = started(dir.path(), &["--keep", "play ground"]);
    assert_eq!(told(&pasted(dir.path(), &list)).0.lines().count(), 12, "the tasks are still there, and six are new");
    again.signal(Signal::TERM);
    assert_eq!(again.end().0, Some(0));
}

#[test]
fn killed_it_leaves_its_directory_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let dev = started(dir.path(), &[]);
    let own = directory(&dev);
    dev.signal(Signal::KILL);
    assert_eq!(dev.end().0, None);
    assert_eq!(left_in(dir.path()), [own.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn variables_that_lead_commands_elsewhere_are_named_without_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev =
        Spoken::start_with(dir.path(), &["dev"], &[("SENDOFF_KEY", "so_hidden"), ("SENDOFF_DATA_DIR", "mine")]);
    dev.until("Ctrl-C ends it");
    let said = dev.said.join("\n");
    assert!(said.contains("SENDOFF_DATA_DIR, SENDOFF_KEY: not used here"), "{said}");
    assert!(!said.contains("so_hidden") && !dir.path().join("mine").exists(), "{said}");
}
