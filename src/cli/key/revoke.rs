//! `sendoff key revoke`.

use clap::Args;
use reqwest::Method;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::{confirm, several};

use super::seen::KeySeen;

/// Which keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff key create temporary --scope read -o name | xargs sendoff key revoke --yes")]
pub(in crate::cli) struct Revoke {
    /// Ids of keys, as `sendoff key list` shows them.
    #[arg(required = true, value_name = "ID", value_parser = key_id)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// An id, and not by mistake a whole key, which would end up in the logs of proxies.
fn key_id(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err("no key has this id: of `so_<id>_<secret>` it is the part in the middle".to_owned())
}

pub(super) async fn run(revoke: Revoke, context: &Context) -> Result<Exit, Failed> {
    let what = match revoke.ids.as_slice() {
        [id] => format!("revoke key {id} for good"),
        ids => format!("revoke {} keys for good", ids.len()),
    };
    confirm::destructive(context, revoke.yes, &what)?;
    several::each::<KeySeen>(context, &revoke.ids, async |id| {
        context.client.request(Method::DELETE, &["keys", id]).send().await?;
        context.printer.note(&format!("{id}: revoked"));
        Ok(None)
    })
    .await
}
