//! How fast single tasks are accepted over HTTPS, beside a handler that does nothing.

use std::io::{Seek, Write};
use std::pin::Pin;

use sendoff::clock::Clock;

use crate::support::backlog::Stock;
use crate::support::child::{Home, Process, micros_each};
use crate::support::fleet::Fleet;
use crate::support::table::{Table, quantile};
use crate::support::{CONNECTIONS, Outcome, Scale, task};

pub(crate) fn run<'a>(scale: &'a Scale, _stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(enqueue(scale))
}

async fn enqueue(scale: &Scale) -> Outcome {
    let (home, clock) = (Home::new()?, Clock::system());
    let server = home.start()?;
    let mut ours = Fleet::dial(&server.dialer, CONNECTIONS, &clock).await?;
    server.set_paused(ours.first()?, true).await?;
    let request = server.dialer.post("/tasks", &task("http://127.0.0.1:9/hook", ""));
    ours.first()?.expect(&request, 201).await?;
    let (answer, whole) = (ours.first()?.body().len(), ours.first()?.answer_length());

    let certs = home.path().join("certs").display().to_string();
    let mut bare_server = Process::bare(&["bare-server", &certs, &answer.to_string()])?;
    let bare_dialer = server.dialer.to(bare_server.line()?.parse()?);
    let mut bare = Fleet::dial(&bare_dialer, CONNECTIONS, &clock).await?;

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let (used, bare_used) = (server.process.cpu()?, bare_server.cpu()?);
        let our_round = ours.run(&request, scale.round, None).await?;
        let cost = micros_each(server.process.cpu()?.saturating_sub(used), our_round.count);
        let bare_round = bare.run(&request, scale.round, None).await?;
        let bare_cost = micros_each(bare_server.cpu()?.saturating_sub(bare_used), bare_round.count);
        rates.push((our_round.rate(), bare_round.rate()));
        costs.push((cost, bare_cost));
        let (singles, bare_singles) =
            (ours.singles(&request, scale.singles).await?, bare.singles(&request, scale.singles).await?);
        let at = |part: f64| (quantile(singles.iter().copied(), part), quantile(bare_singles.iter().copied(), part));
        medians.push(at(0.5));
        tails.push(at(0.99));
    }

    let mut table =
        Table::new("enqueue: single POST /tasks over HTTPS, HTTP/1.1 kept alive", ["sendoff", "null axum+rustls"]);
    table.rate(&format!("tasks/s, {CONNECTIONS} connections"), &rates, "≥ 0.5");
    table.cost("CPU µs of the server a task", &costs, "");
    table.cost("ms from request to answer, median", &medians, "");
    table.cost("ms from request to answer, p99", &tails, "");
    let [appended, overwritten] = fsync_ms(&home, &clock, scale.singles)?;
    table.note(format!("one fdatasync alone: 4 KiB appended {appended:.2} ms, 4 KiB overwritten {overwritten:.2} ms"));
    table.note(format!("request {} B, answer {whole} B, head included", request.len()));
    Ok(table.print()?)
}

/// The medians of `count` writes of 4 KiB, each synced, where the server's data is: at the end of a file, as in a log
/// that grows, and in its midst, as in one that has begun again.
fn fsync_ms(home: &Home, clock: &Clock, count: usize) -> Outcome<[f64; 2]> {
    let mut file = std::fs::File::create(home.path().join("fsync"))?;
    let mut once = || -> Outcome<f64> {
        file.rewind()?;
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let began = clock.now().mono;
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            took.push((clock.now().mono.saturating_sub(began)).as_secs_f64() * 1e3);
        }
        Ok(quantile(took.into_iter(), 0.5))
    };
    Ok([once()?, once()?])
}
