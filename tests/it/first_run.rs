//! The first start and the ones after it, on the real binary: it works from anywhere, keeps its secrets, and is loud
//! where somebody should think.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use crate::support::spoken::{Spoken, bare, errors, pasted, told};

/// Started, with its welcome read.
fn started(dir: &Path, words: &[&str]) -> Spoken {
    let mut server = Spoken::start(dir, words);
    server.until("  sed ");
    server
}

fn end(server: Spoken, dir: &Path) -> String {
    server.signal(Signal::TERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}{}", errors(dir));
    said
}

fn secret(dir: &Path) -> String {
    let key = fs::read_to_string(dir.join("data/admin.key")).unwrap();
    key.trim().rsplit('_').next().unwrap().to_owned()
}

const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn it_works_without_a_file_from_an_empty_directory_and_prints_commands_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = started(dir.path(), &ANY_PORT);
    let create = server.said.iter().find(|line| line.contains(" task create ")).expect("a command");
    let output = pasted(dir.path(), create);
    assert_eq!(output.status.code(), Some(0), "{create}: {:?}", told(&output));
    let made = server.said.iter().position(|line| line.contains(" task create ")).unwrap();
    let curl = server.said.iter().position(|line| line.starts_with("  sed ")).unwrap();
    assert!(made < curl, "the curl line is the last: {:?}", server.said);
    end(server, dir.path());
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["certs", "data", "errors"], "its home is empty but for what it is there for");
}

#[test]
fn the_printed_command_leads_to_a_server_with_other_directories() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my config.yaml"), "certs_dir: keys\n").unwrap();
    let words = ["--config", "my config.yaml", "serve", "--data-dir", "my data", "--listen", "127.0.0.1:0"];
    let server = started(dir.path(), &words);
    let create = server.said.iter().find(|line| line.contains(" task create ")).expect("a command");
    let output = pasted(dir.path(), create);
    assert_eq!(output.status.code(), Some(0), "{create}: {:?}", told(&output));
    end(server, dir.path());
}

#[test]
fn where_it_may_not_write_it_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    // Permissions do not bind root; the kernel's own directory does.
    let closed = if rustix::process::geteuid().is_root() {
        Path::new("/sys")
    } else {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        dir.path()
    };
    if fs::create_dir(closed.join("sendoff-probe")).is_ok() {
        fs::remove_dir(closed.join("sendoff-probe")).unwrap();
        println!("SKIPPED: there is no directory here that this user may not write to");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    for words in [[].as_slice(), &["--data-dir", data.to_str().unwrap()]] {
        let output = bare(closed, &[&ANY_PORT, words].concat()).output().unwrap();
        let (said, complained) = told(&output);
        assert_eq!(output.status.code(), Some(78), "{words:?}: {complained}");
        assert_eq!(said, "");
        for part in ["--data-dir DIR", "SENDOFF_DATA_DIR", "it may not write there"] {
            assert!(complained.contains(part), "{words:?}: {complained}");
        }
        let refused = ["ermission denied", "not permitted", "ead-only"].iter().any(|why| complained.contains(why));
        assert!(refused, "what the system said: {complained}");
    }
}

#[test]
fn the_key_is_in_its_file_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    for _start in ["first", "second"] {
        let server = started(dir.path(), &ANY_PORT);
        let secret = secret(dir.path());
        for file in ["cmdline", "environ"] {
            match fs::read(format!("/proc/{}/{file}", server.pid())) {
                Ok(seen) => assert!(!String::from_utf8_lossy(&seen).contains(&secret), "{file}"),
                Err(_) => println!("SKIPPED: there is no /proc here, so {file} was not looked at"),
            }
        }
        let said = end(server, dir.path());
        assert!(!said.contains(&secret) && !errors(dir.path()).contains(&secret), "{said}");
    }
}

#[test]
fn a_start_for_other_machines_is_possible_and_loud() {
    let dir = tempfile::tempdir().unwrap();
    let server = started(dir.path(), &["--listen", "0.0.0.0:0"]);
    let welcome = server.said.join("\n");
    for part in [
        "WARNING: other machines can reach this server",
        "on every network interface",
        "data/admin.key",
        "egress: { allow: [\"127.0.0.0/8\", \"::1/128\"] }",
        "Its certificate is for 127.0.0.1, ::1, localhost.",
        "public_url",
    ] {
        assert!(welcome.contains(part), "it does not say {part}: {welcome}");
    }
    assert!(server.said.last().unwrap().contains("https://127.0.0.1:"), "curl can call that: {welcome}");
    let create = server.said.iter().find(|line| line.contains(" task create ")).expect("a command");
    let local = format!("{} task create http://127.0.0.1:9/", create.split(" task create").next().unwrap());
    let refused = told(&pasted(dir.path(), &local)).1;
    assert!(refused.contains("egress rule `loopback`"), "{refused}");
    end(server, dir.path());
    let log = errors(dir.path());
    let line = log.lines().find(|line| line.contains("\"event\":\"exposed\"")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("\"WARN\"") && line.contains("\"loopback_refused\":true"), "{line}");
}

#[test]
fn half_a_first_start_is_told() {
    let dir = tempfile::tempdir().unwrap();
    end(started(dir.path(), &ANY_PORT), dir.path());
    for (missing, note, what) in
        [("certs", "a new CA was made", "\"what\":\"ca\""), ("data", "a new key was made", "\"what\":\"admin_key\"")]
    {
        fs::remove_dir_all(dir.path().join(missing)).unwrap();
        let said = end(started(dir.path(), &ANY_PORT), dir.path());
        assert!(said.contains(note), "{missing}: {said}");
        let log = errors(dir.path());
        assert!(log.contains("\"event\":\"identity_changed\"") && log.contains(what), "{missing}: {log}");
        let said = end(started(dir.path(), &ANY_PORT), dir.path());
        assert!(!said.contains("NOTE"), "once: {said}");
    }
}

#[test]
fn a_port_that_another_sendoff_has_is_told_as_that() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for plain in ["false", "true"] {
        let mut first = Spoken::start_with(dirs[0].path(), &ANY_PORT, &[("SENDOFF_SERVER__PLAIN_HTTP", plain)]);
        first.until("  sed ");
        let address = first.said[0].split("://").nth(1).unwrap().split(' ').next().unwrap();
        let output = bare(dirs[1].path(), &["--listen", address]).output().unwrap();
        let complained = told(&output).1;
        assert_eq!(output.status.code(), Some(1), "{complained}");
        assert!(complained.contains("a sendoff is listening there already"), "{complained}");
        assert_eq!(fs::read_dir(dirs[1].path()).unwrap().count(), 0, "nothing was made");
        end(first, dirs[0].path());
    }
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = bare(dirs[1].path(), &["--listen", &other.local_addr().unwrap().to_string()]).output().unwrap();
    assert!(!told(&output).1.contains("a sendoff is listening"), "{}", told(&output).1);
}

#[test]
fn the_schema_is_printed_without_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.yaml"), "broken: [\n").unwrap();
    let output = bare(dir.path(), &["config", "schema"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output).1);
    let schema: serde_json::Value = serde_json::from_str(&told(&output).0).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}
