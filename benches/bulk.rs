//! How fast a file becomes tasks by `sendoff task create -f`, beside the same lines sent by a client that does nothing else.

use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};

use sendoff::clock::Clock;
use sendoff::task::limits::{BULK_CHUNK_TASKS, BULK_IN_FLIGHT};

use crate::support::backlog::{FAR, Stock};
use crate::support::child::{Home, Server};
use crate::support::fleet::Fleet;
use crate::support::table::{Table, figure};
use crate::support::{Outcome, Scale, task};

pub(crate) fn run<'a>(scale: &'a Scale, _stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(bulk(scale))
}

async fn bulk(scale: &Scale) -> Outcome {
    let (home, clock) = (Home::new()?, Clock::system());
    let server = home.start()?;
    let line = task("http://127.0.0.1:9/far", FAR) + "\n";
    let count = scale.drained * 5;
    let file = home.path().join("tasks.ndjson");
    std::fs::File::create(&file)?.write_all(line.repeat(count).as_bytes())?;
    let request = server.dialer.post_lines("/tasks/batch", &line.repeat(BULK_CHUNK_TASKS));
    let mut bare = Fleet::dial(&server.dialer, BULK_IN_FLIGHT, &clock).await?;

    let mut rates = Vec::new();
    for round in 0..scale.rounds {
        let began = clock.now().mono;
        create(&server, home.path(), round)?;
        let took = clock.now().mono.saturating_sub(began);
        let ours = figure(count as u64) / took.as_secs_f64();
        let bare_round = bare.run(&request, scale.round, None).await?;
        rates.push((ours, bare_round.rate() * figure(BULK_CHUNK_TASKS as u64)));
    }

    let title = "bulk: task create -f, from the start of the command to its end";
    let mut table = Table::new(title, ["sendoff", "POST of the lines"]);
    table.rate("tasks/s", &rates, "");
    table.note(format!("{count} lines of {} B; the client hashes and cuts them, and makes its keys", line.len()));
    Ok(table.print()?)
}

/// Creates the tasks of the file once more.
fn create(server: &Server, home: &Path, round: usize) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENDOFF_")) {
        command.env_remove(name);
    }
    let url = format!("https://{}", server.dialer.address());
    command.current_dir(home).args(["task", "create", "-f", "tasks.ndjson", "--quiet", "--url", &url]);
    let status = command.args(["--salt", &round.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("task create -f: {status}").into()) }
}
