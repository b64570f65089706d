//! `sendoff cert show`.

use clap::Args;
use serde_json::{Value, json};

use crate::security::certificate::{CertificateFacts, OnDisk};

use super::super::args::ServerOptions;
use super::super::exit::{Exit, Failed};
use super::super::say;
use super::{configured, days_left, served};

/// How to show it.
#[derive(Debug, Args)]
pub(in super::super) struct Show {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: ServerOptions,
}

pub(super) fn run(asked: Show, before: ServerOptions) -> Result<Exit, Failed> {
    let OnDisk { server, ca } = served(&configured(asked.options, before)?)?;
    if asked.json {
        say(&json!({"certificate": document(&server), "ca": ca.as_ref().map(document)}).to_string());
        return Ok(Exit::Ok);
    }
    say(&text("certificate", &server));
    match &ca {
        Some(ca) => say(&text("local CA", ca)),
        None => say("from server.tls.certificate: renewed by whoever puts it there"),
    }
    Ok(Exit::Ok)
}

pub(super) fn text(what: &str, facts: &CertificateFacts) -> String {
    let CertificateFacts { path, subject, issuer, names, begins, expires, fingerprint_sha256 } = facts;
    let left = match days_left(*expires) {
        days @ ..0 => format!("ended {} days ago", -days),
        days => format!("{days} days left"),
    };
    let names = if names.is_empty() { String::new() } else { format!("  names    {}\n", names.join(", ")) };
    format!(
        "{what} {}\n{names}  subject  {subject}\n  issuer   {issuer}\n  from     {begins}\n  \
         until    {expires} ({left})\n  SHA-256  {fingerprint_sha256}",
        path.display()
    )
}

fn document(facts: &CertificateFacts) -> Value {
    json!({
        "path": facts.path.display().to_string(),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "names": facts.names,
        "not_before": facts.begins.to_string(),
        "not_after": facts.expires.to_string(),
        "days_left": days_left(facts.expires),
        "sha256": facts.fingerprint_sha256,
    })
}
