//! The same for several ids or names: each is tried, each failure is told, and the exit code says whether all were done.

use super::call::CallError;
use super::context::Context;
use super::exit::{Exit, Failed};
use super::output::{Item, Shown, text};

/// Does `act` for each of `names`, and prints what became of it.
///
/// Without a key or a server the rest is not tried. Exit code: 0 when all were done, 7 when some were; when none was,
/// that of the first failure.
pub(super) async fn each<T: Shown>(
    context: &Context,
    names: &[String],
    mut act: impl AsyncFnMut(&str) -> Result<Option<Item<T>>, CallError>,
) -> Result<Exit, Failed> {
    let printer = &context.printer;
    let (mut done, mut first_failure) = (0_usize, None);
    let mut listing = printer.listing();
    for name in names {
        match act(name).await {
            Ok(Some(item)) if names.len() == 1 => {
                printer.one(&item)?;
                return Ok(Exit::Ok);
            }
            Ok(item) => {
                done += 1;
                if let Some(item) = item {
                    listing.add(&[item])?;
                }
            }
            Err(error) if names.len() == 1 => return Err(error.into()),
            Err(error) => {
                let exit = error.exit();
                printer.warn(&format!("sendoff: {}: {error}", text::visible(name)));
                first_failure.get_or_insert(exit);
                if matches!(exit, Exit::Auth | Exit::Unreachable) {
                    break;
                }
            }
        }
    }
    listing.finish()?;
    let Some(exit) = first_failure else { return Ok(Exit::Ok) };
    printer.warn(&format!("sendoff: {done} of {} done", names.len()));
    Ok(if done > 0 { Exit::Partly } else { exit })
}
