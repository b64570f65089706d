//! `sendoff cert renew`.

use crate::clock::Clock;
use crate::security::certificate::renew;

use super::super::args::ServerOptions;
use super::super::exit::{Exit, Failed};
use super::super::{complain, say};
use super::{configured, failed, served, show};

pub(super) fn run(options: ServerOptions, before: ServerOptions) -> Result<Exit, Failed> {
    let config = configured(options, before)?;
    // Where there is none yet, the server's first start makes one; where none is served, none is renewed.
    served(&config)?;
    let now = Clock::system().now().wall;
    let Some(renewed) = renew(&config.server, &config.certs_dir, now).map_err(|error| failed(&error))? else {
        let text = "the certificate comes from server.tls.certificate: renew it where it comes from and put it and its \
                    key in place of the old files; a running server serves them within 10 seconds";
        return Err(Failed::told(Exit::Conflict, text));
    };
    say(&show::text("certificate", &renewed.server));
    complain("a server that runs serves it within 10 seconds; clients notice nothing: the CA is the same");
    Ok(Exit::Ok)
}
