//! The rules that no compiler checks: floors, lengths, words, absences.
//!
//! Each rule is a pure function from one source file to its faults. Below the rules one test per
//! rule walks the tree, and one per rule plants a sin and sees it caught. Words that must not
//! occur are written in two halves here, or this file would be its own first finding.

use crate::source::{Source, finds, is_word, parts, words};

/// The floor of every top-level module. A module may use itself and what is strictly below.
const FLOORS: [(&str, u8); 12] = [
    ("cli", 8),
    ("app", 7),
    ("api", 6),
    ("worker", 5),
    ("queue", 4),
    ("scheduler", 3),
    ("security", 3),
    ("config", 2),
    ("logging", 2),
    ("clock", 1),
    ("task", 0),
    ("sabotage", 0),
];

/// Lines in a file, its closing test modules not counted.
const LINES_MAX: usize = 500;

/// Where futures may be spawned, because the order of shutdown is kept there.
const SPAWNERS: [&str; 3] = ["src/app", "src/api/server", "src/worker/pool"];

/// What pure modules must not name: serialisation, async, I/O.
const IMPURE: [&str; 9] =
    ["serde", "serde_json", "serde_yaml", "tokio", "async", "await", "axum", "reqwest", "rusqlite"];

/// Words that the vocabulary replaces, wherever they stand: task, queue, lease, dead letter.
const WORDS_BANNED: [&str; 6] = [
    concat!("jo", "b"),
    concat!("jo", "bs"),
    concat!("bro", "ker"),
    concat!("bro", "kers"),
    concat!("mor", "gue"),
    concat!("mor", "gues"),
];

/// Words that are banned in names; in a sentence they can be right.
const NAMES_BANNED: [&str; 4] =
    [concat!("arch", "ive"), concat!("arch", "ived"), concat!("man", "ager"), concat!("man", "agers")];

/// Module names that say nothing.
const MODULES_BANNED: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "archive"];

/// Notes to oneself.
const NOTES_BANNED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 5] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tm", "p/"), concat!("/Us", "ers/")];

/// A line and what is wrong there.
type Fault = (usize, String);

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// A module uses itself and what is strictly below it.
fn floors(source: &Source) -> Vec<Fault> {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    let own = inside.split('/').next().unwrap_or_default();
    if own == "lib" || own == "main" {
        return Vec::new();
    }
    let Some(own_floor) = floor(own) else {
        return vec![source.fault(0, format!("module `{own}` has no floor"))];
    };
    let depth = inside.trim_end_matches("/mod").split('/').count();
    let code = source.production();
    let mut found = Vec::new();
    for (at, used) in crate_mentions(&code, depth) {
        match floor(used) {
            None => found.push(source.fault(at, format!("`crate::{used}` is not a module with a floor"))),
            Some(below) if used != own && below >= own_floor => {
                found.push(source.fault(at, format!("`{own}` (floor {own_floor}) uses `{used}` (floor {below})")));
            }
            Some(_) => {}
        }
    }
    found
}

/// The first name of every path from the crate's root: `crate::a`, `crate::{a::b, c}`, and as
/// many `super::` as lead out of a file that lies `depth` modules deep.
fn crate_mentions(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth);
    let by_super = finds(code, &up)
        .map(|at| (at, up.len()))
        .filter(|(at, _)| !code[..*at].ends_with("::"))
        .flat_map(|(at, len)| heads(code, at + len))
        .filter(|(_, name)| floor(name).is_some());
    let by_crate = finds(code, "crate::").flat_map(|at| heads(code, at + "crate::".len()));
    by_crate.chain(by_super).collect()
}

/// The name at `at`, or the first name of each branch of the `{…}` there.
fn heads(code: &str, at: usize) -> Vec<(usize, &str)> {
    let at = at + code[at..].len() - code[at..].trim_start().len();
    if !code[at..].starts_with('{') {
        let len = code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at).max(1);
        return vec![(at, &code[at..at + len])];
    }
    let (mut depth, mut found) = (0, Vec::new());
    for (offset, byte) in code[at..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        let begins = depth == 1 && matches!(byte, b'{' | b',');
        let next = code[at + offset + 1..].trim_start();
        if begins && !next.starts_with('}') {
            found.extend(heads(code, code.len() - next.len()));
        }
    }
    found
}

/// Files stay short enough to read.
fn length(source: &Source) -> Vec<Fault> {
    let mut end = source.text.len();
    for span in source.tests.iter().rev() {
        if source.code[span.end..end.max(span.end)].trim().is_empty() {
            end = span.start;
        }
    }
    let lines = source.text[..end].lines().count();
    let too_long = lines > LINES_MAX && !source.path.ends_with("tests.rs");
    too_long.then(|| (lines, format!("{lines} lines, at most {LINES_MAX}"))).into_iter().collect()
}

/// Every file says why it exists.
fn opening(source: &Source) -> Vec<Fault> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|reason| !reason.trim().is_empty());
    if says { Vec::new() } else { vec![source.fault(0, "does not open with `//!` and a reason")] }
}

/// The vocabulary holds.
fn vocabulary(source: &Source) -> Vec<Fault> {
    let spoken = words(&source.text).filter(|(_, word)| banned(word, &WORDS_BANNED));
    let named = words(&source.code).filter(|(_, word)| banned(word, &NAMES_BANNED));
    let mut found: Vec<_> = spoken.chain(named).map(|(at, word)| source.fault(at, format!("says `{word}`"))).collect();
    let lower = source.text.to_ascii_lowercase();
    for phrase in [concat!("visibility", " timeout"), concat!("visibility", "_timeout")] {
        found.extend(lower.match_indices(phrase).map(|(at, _)| source.fault(at, format!("says `{phrase}`"))));
    }
    found
}

fn banned(word: &str, list: &[&str]) -> bool {
    parts(word).iter().any(|part| list.contains(&part.as_str()))
}

/// A module's name says what is in it.
fn module_names(source: &Source) -> Vec<Fault> {
    let by_path = source.path.trim_end_matches(".rs").split('/').map(|name| (0, name));
    let by_mod = finds(&source.code, "mod ").flat_map(|at| heads(&source.code, at + "mod ".len()));
    by_path
        .chain(by_mod)
        .filter(|(_, name)| MODULES_BANNED.contains(name))
        .map(|(at, name)| source.fault(at, format!("a module named `{name}` says nothing")))
        .collect()
}

/// What is begun is finished before it is committed.
fn unfinished(source: &Source) -> Vec<Fault> {
    let notes = words(&source.text).filter(|(_, word)| NOTES_BANNED.contains(word));
    let mut found: Vec<_> = notes.map(|(at, word)| source.fault(at, format!("a note: {word}"))).collect();
    for stub in ["todo!", "unimplemented!"] {
        found.extend(finds(&source.code, stub).map(|at| source.fault(at, format!("calls `{stub}`"))));
    }
    found
}

/// Tests all run, and wait for events, not for time.
fn honest_tests(source: &Source) -> Vec<Fault> {
    let code = source.test_code();
    let ignored = code.match_indices("#[ignore").map(|(at, _)| source.fault(at, "an ignored test"));
    // `clock.sleep(…)` waits on a clock that the test moves.
    let asleep = finds(&code, "sleep(")
        .filter(|at| !code[..*at].ends_with('.') && !code[..*at].ends_with("fn "))
        .map(|at| source.fault(at, "sleeps"));
    ignored.chain(asleep).collect()
}

/// Nothing depends on one machine's directories.
fn machine_paths(source: &Source) -> Vec<Fault> {
    let inside_a_path = |c: char| is_word(c) || "./-}~".contains(c);
    MACHINE_PATHS
        .iter()
        .flat_map(|path| source.text.match_indices(path))
        .filter(|(at, _)| !source.text[..*at].ends_with(inside_a_path))
        .map(|(at, path)| source.fault(at, format!("names a path of one machine, `{path}`")))
        .collect()
}

/// Everything between two tasks has room for a stated number.
fn bounded_channels(source: &Source) -> Vec<Fault> {
    let mut found = Vec::new();
    for name in [concat!("unbounded", "_channel"), concat!("Unbounded", "Sender")] {
        found.extend(finds(&source.code, name).map(|at| source.fault(at, "a channel without a bound")));
    }
    let code = source.production();
    for (at, call) in code.match_indices("mpsc::channel") {
        let after = &code[at + call.len()..];
        let arguments =
            if after.starts_with("::<") { after.find(">(").map(|at| &after[at + 1..]) } else { Some(after) };
        if arguments.is_some_and(|arguments| arguments.starts_with("()")) {
            found.push(source.fault(at, "std's `mpsc::channel()` has no bound"));
        }
    }
    found
}

/// Futures are spawned where shutdown waits for them. Threads and processes are not meant, nor
/// `spawn_blocking`, whose caller awaits it.
fn spawning(source: &Source) -> Vec<Fault> {
    let allowed = SPAWNERS
        .iter()
        .any(|place| source.path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs"));
    if allowed {
        return Vec::new();
    }
    let code = source.production();
    finds(&code, "spawn(")
        .chain(finds(&code, "spawn_local("))
        .filter(|at| {
            let before = &code[..*at];
            let argument = code[*at..].split_once('(').unwrap_or_default().1.trim_start();
            let closure = ["|", "move |", ")"].iter().any(|start| argument.starts_with(start));
            let on_a_builder = before.trim_end().ends_with('.') && closure;
            !(before.ends_with("thread::") || before.ends_with("fn ") || on_a_builder)
        })
        .map(|at| source.fault(at, "spawns a future outside app, api::server and worker::pool"))
        .collect()
}

/// `task` and `scheduler` are words and arithmetic.
fn purity(source: &Source) -> Vec<Fault> {
    if !["src/task", "src/scheduler"].iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = source.production();
    let impure = words(&code).filter(|(_, word)| IMPURE.contains(word));
    let mut found: Vec<_> =
        impure.map(|(at, word)| source.fault(at, format!("a pure module names `{word}`"))).collect();
    found.extend(finds(&code, "std::fs").map(|at| source.fault(at, "a pure module names `std::fs`")));
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    type Rule = fn(&Source) -> Vec<Fault>;

    /// What a rule finds in a planted text, a line each.
    fn finds_in(rule: Rule, path: &str, text: &str) -> Vec<String> {
        let mut found = rule(&Source::new(path, text));
        found.sort();
        found.into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    /// Asserts that a rule holds in every file with one of `endings` below `places`.
    fn holds(rule: Rule, places: &[&str], endings: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for place in places {
            collect(root, place, &mut files);
        }
        files.retain(|file| endings.iter().any(|ending| file.ends_with(ending)));
        assert!(!files.is_empty(), "no file found below {places:?}");
        let mut found = Vec::new();
        for file in files {
            let text = fs::read_to_string(root.join(&file)).unwrap();
            found.extend(finds_in(rule, &file, &text).into_iter().map(|fault| format!("{file}:{fault}")));
        }
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }

    /// The files at or below `place`, in order.
    fn collect(root: &Path, place: &str, files: &mut Vec<String>) {
        let path = root.join(place);
        if path.is_file() {
            files.push(place.to_owned());
        }
        if path.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for name in names {
                collect(root, &format!("{place}/{}", name.to_str().unwrap()), files);
            }
        }
    }

    const RUST: [&str; 3] = ["src", "tests", "benches"];

    #[test]
    fn modules_use_only_lower_floors() {
        holds(floors, &["src"], &[".rs"]);
    }

    #[test]
    fn a_use_of_a_higher_floor_is_caught() {
        let up = "use crate::queue::Queues;";
        assert_eq!(finds_in(floors, "src/api/tasks.rs", up), [""; 0]);
        assert_eq!(finds_in(floors, "src/queue/lease.rs", up), [""; 0]);
        assert_eq!(finds_in(floors, "src/task/name.rs", up), ["1: `task` (floor 0) uses `queue` (floor 4)"]);
        assert_eq!(
            finds_in(floors, "src/scheduler/mod.rs", "fn f() { crate::security::x() }"),
            ["1: `scheduler` (floor 3) uses `security` (floor 3)"]
        );
    }

    #[test]
    fn no_spelling_hides_a_use() {
        let of = |path, text| finds_in(floors, path, text);
        let fault = |line, used, floor| [format!("{line}: `config` (floor 2) uses `{used}` (floor {floor})")];
        assert_eq!(of("src/config/mod.rs", "use crate::{\n task::{self, app},\n api::Error,\n};"), fault(3, "api", 6));
        assert_eq!(of("src/config/raw.rs", "use super::super::worker;"), fault(1, "worker", 5));
        assert_eq!(of("src/config/mod.rs", "use super::worker;"), fault(1, "worker", 5));
        assert_eq!(of("src/config/raw.rs", "use super::secret;"), [""; 0]);
        assert_eq!(of("src/config/mod.rs", "use crate::*;"), ["1: `crate::*` is not a module with a floor"]);
        assert_eq!(of("src/extra.rs", ""), ["1: module `extra` has no floor"]);
    }

    #[test]
    fn comments_strings_and_tests_may_name_higher_floors() {
        let text =
            "/// See [`crate::api`].\nconst A: &str = \"crate::api\";\n#[cfg(test)]\nmod tests { use crate::app; }";
        assert_eq!(finds_in(floors, "src/task/name.rs", text), [""; 0]);
    }

    #[test]
    fn files_are_short() {
        holds(length, &RUST, &[".rs"]);
    }

    #[test]
    fn a_long_file_is_caught_one_line_above_the_limit() {
        let lines = |n: usize| "fn a() {}\n".repeat(n);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(LINES_MAX));
        assert_eq!(finds_in(length, "src/x.rs", &(lines(LINES_MAX) + &tests)), [""; 0]);
        assert_eq!(finds_in(length, "src/x.rs", &(lines(LINES_MAX + 1) + &tests)), ["501: 501 lines, at most 500"]);
        assert_eq!(finds_in(length, "src/x.rs", &(tests + &lines(1))).len(), 1);
    }

    #[test]
    fn files_say_why_they_exist() {
        holds(opening, &RUST, &[".rs"]);
    }

    #[test]
    fn a_file_without_a_reason_is_caught() {
        assert_eq!(finds_in(opening, "src/x.rs", "//! Why.\n"), [""; 0]);
        assert_eq!(finds_in(opening, "src/x.rs", "// Why.\n").len(), 1);
        assert_eq!(finds_in(opening, "src/x.rs", "//!\n").len(), 1);
        assert_eq!(finds_in(opening, "src/x.rs", "").len(), 1);
    }

    #[test]
    fn the_vocabulary_holds() {
        holds(vocabulary, &RUST, &[".rs"]);
        holds(module_names, &RUST, &[".rs"]);
    }

    #[test]
    fn a_banned_word_is_caught() {
        let [work, man] = [concat!("Jo", "b"), concat!("Man", "ager")];
        assert_eq!(
            finds_in(vocabulary, "src/x.rs", &format!("struct {work}Id; // jobless")),
            [format!("1: says `{work}Id`")]
        );
        assert_eq!(finds_in(vocabulary, "src/x.rs", &format!("\n// one {work}")), [format!("2: says `{work}`")]);
        assert_eq!(finds_in(vocabulary, "src/x.rs", &format!("fn f(_: Task{man}) {{}} // a {man}")).len(), 1);
        assert_eq!(finds_in(vocabulary, "src/x.rs", concat!("// the Visibility", " timeout")).len(), 1);
    }

    #[test]
    fn a_module_name_that_says_nothing_is_caught() {
        assert_eq!(finds_in(module_names, "src/api/util.rs", ""), ["1: a module named `util` says nothing"]);
        assert_eq!(finds_in(module_names, "tests/common/mod.rs", "").len(), 1);
        assert_eq!(finds_in(module_names, "src/x.rs", "\nmod helpers;").len(), 1);
        assert_eq!(finds_in(module_names, "src/x.rs", "use tokio_util::x; mod utility;"), [""; 0]);
    }

    #[test]
    fn nothing_is_left_unfinished() {
        holds(unfinished, &RUST, &[".rs"]);
    }

    #[test]
    fn unfinished_work_is_caught() {
        for note in NOTES_BANNED {
            assert_eq!(finds_in(unfinished, "src/x.rs", &format!("// {note}: later")).len(), 1, "{note}");
        }
        assert_eq!(finds_in(unfinished, "src/x.rs", "fn a() { todo!() }").len(), 1);
        assert_eq!(finds_in(unfinished, "src/x.rs", "fn a() { unimplemented!() }").len(), 1);
    }

    #[test]
    fn tests_run_and_do_not_sleep() {
        holds(honest_tests, &["src", "tests"], &[".rs"]);
    }

    #[test]
    fn an_ignored_or_sleeping_test_is_caught() {
        let test = |body: &str| format!("#[cfg(test)]\nmod tests {{\n{body}\n}}");
        assert_eq!(finds_in(honest_tests, "src/x.rs", &test("#[ignore = \"slow\"]")), ["3: an ignored test"]);
        assert_eq!(finds_in(honest_tests, "src/x.rs", &test("std::thread::sleep(one)")), ["3: sleeps"]);
        assert_eq!(finds_in(honest_tests, "tests/it/x.rs", "tokio::time::sleep(one).await"), ["1: sleeps"]);
        assert_eq!(finds_in(honest_tests, "tests/it/x.rs", "clock.sleep(one).await"), [""; 0]);
        assert_eq!(finds_in(honest_tests, "src/x.rs", "time::sleep(one).await"), [""; 0]);
    }

    #[test]
    fn no_path_of_one_machine_is_named() {
        let places =
            [&RUST[..], &["docs", ".ci", "README.md", "CHANGELOG.md", "Cargo.toml", "deny.toml", "config.yaml"]];
        holds(machine_paths, &places.concat(), &["rs", "md", "toml", "yaml", "py", "run", "coverage", "openapi"]);
    }

    #[test]
    fn a_path_of_one_machine_is_caught() {
        for path in MACHINE_PATHS {
            assert_eq!(finds_in(machine_paths, "src/x.rs", &format!("\nlet a = \"{path}a\";")).len(), 1, "{path}");
            assert_eq!(finds_in(machine_paths, "src/x.rs", &format!("// https://example.com{path}")), [""; 0]);
        }
    }

    #[test]
    fn channels_have_bounds() {
        holds(bounded_channels, &RUST, &[".rs"]);
    }

    #[test]
    fn a_channel_without_a_bound_is_caught() {
        let open = concat!("mpsc::unbounded", "_channel()");
        assert_eq!(finds_in(bounded_channels, "src/x.rs", open), ["1: a channel without a bound"]);
        assert_eq!(finds_in(bounded_channels, "src/x.rs", "mpsc::channel(); mpsc::channel::<Vec<u8>>()").len(), 2);
        assert_eq!(finds_in(bounded_channels, "src/x.rs", "mpsc::channel(8); mpsc::channel::<Vec<u8>>(8)"), [""; 0]);
    }

    #[test]
    fn futures_are_spawned_in_three_places() {
        holds(spawning, &["src"], &[".rs"]);
    }

    #[test]
    fn a_future_spawned_elsewhere_is_caught() {
        for call in [
            "tokio::spawn(f)",
            "tokio::task::spawn(f)",
            "tracker.spawn(async {})",
            "set\n  .spawn(f())",
            "spawn_local(f)",
        ] {
            assert_eq!(finds_in(spawning, "src/queue/engine.rs", call).len(), 1, "{call}");
            assert_eq!(finds_in(spawning, "src/worker/pool.rs", call), [""; 0], "{call}");
            assert_eq!(finds_in(spawning, "src/worker/pools.rs", call).len(), 1, "{call}");
        }
        for call in ["thread::spawn(f)", "builder.spawn(move || f())", "command.spawn()?", "fn spawn(f: F) {}"] {
            assert_eq!(finds_in(spawning, "src/queue/engine.rs", call), [""; 0], "{call}");
        }
    }

    #[test]
    fn pure_modules_are_pure() {
        holds(purity, &["src"], &[".rs"]);
    }

    #[test]
    fn impurity_is_caught() {
        for text in ["use serde::Serialize;", "async fn f() {}", "use tokio::time::Instant;", "std::fs::read(x)"] {
            assert_eq!(finds_in(purity, "src/task/mod.rs", text).len(), 1, "{text}");
            assert_eq!(finds_in(purity, "src/scheduler/turn.rs", text).len(), 1, "{text}");
            assert_eq!(finds_in(purity, "src/api/wire.rs", text), [""; 0], "{text}");
        }
    }
}
