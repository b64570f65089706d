//! What is printed when the server is ready: where it is, what a newcomer needs next, and what is out of the ordinary.
//!
//! The key itself is printed only where it was just made and a person looks on.

use crate::app::Facts;
use crate::config::{Config, DEFAULT_FILE, Loaded, Origin};
use crate::logging::event::{Exposed, IdentityChanged};

use super::shell::{curl, program, word};

/// Where the first task of a newcomer goes: a web server of their own, or one that anybody may call.
const FIRST_TARGET: &str = "http://127.0.0.1:8000/";
const FIRST_TARGET_ELSEWHERE: &str = "https://example.com/";

/// What a start had of the unexpected, each to be logged, too.
pub(super) struct Notices {
    /// It listens for other machines.
    pub(super) exposed: Option<Exposed>,
    /// Something that clients rely on was made anew.
    pub(super) changed: Option<IdentityChanged>,
}

impl Notices {
    /// Those of the server that `facts` are about.
    pub(super) fn of(facts: &Facts, config: &Config) -> Self {
        let tls = facts.tls.as_ref();
        let exposed = (!facts.address.ip().to_canonical().is_loopback()).then(|| Exposed {
            address: facts.address,
            names: tls.map(|tls| tls.names.join(", ")).unwrap_or_default(),
            loopback_refused: !may_call_loopback(config),
        });
        let local = tls.and_then(|tls| tls.ca.as_ref().map(|ca| (ca, tls.ca_created)));
        let changed = local.and_then(|(ca, ca_created)| match (facts.new_key.is_some(), ca_created) {
            (false, true) => Some(IdentityChanged::Ca { path: ca.path.clone() }),
            (true, false) => Some(IdentityChanged::AdminKey { path: facts.key_file.clone() }),
            (true, true) | (false, false) => None,
        });
        Self { exposed, changed }
    }

    fn lines(&self, facts: &Facts) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.changed {
            Some(IdentityChanged::Ca { path }) => lines.extend([
                format!("NOTE: {} was not there although the data was: a new CA was made.", path.display()),
                "  Clients that trust the old one refuse this server until they have the new ca.pem.".to_owned(),
            ]),
            Some(IdentityChanged::AdminKey { path }) => lines.extend([
                format!("NOTE: {} was not there although the certificates were: a new key was made.", path.display()),
                "  The old key is void. If tasks are missing, too, data_dir is not the one it was.".to_owned(),
            ]),
            None => {}
        }
        if let Some(exposed) = &self.exposed {
            lines.extend(exposed_lines(exposed, facts));
        }
        lines
    }
}

fn exposed_lines(exposed: &Exposed, facts: &Facts) -> Vec<String> {
    let address = exposed.address;
    let whole = if address.ip().is_unspecified() { ", on every network interface" } else { "" };
    let mut lines = vec![
        format!("WARNING: other machines can reach this server: it listens on {address}{whole}."),
        format!(
            "  Whoever has the admin key may do everything, and have this machine call others. It lies in {}.",
            facts.key_file.display()
        ),
    ];
    if exposed.loopback_refused {
        lines.push(
            "  From now on tasks may not call this machine (127.0.0.1, ::1, localhost). To allow it, in config.yaml:"
                .to_owned(),
        );
        lines.push("    egress: { allow: [\"127.0.0.0/8\", \"::1/128\"] }".to_owned());
    }
    if !exposed.names.is_empty() {
        lines.push(format!("  Its certificate is for {}. For clients that use another name:", exposed.names));
        lines.push(format!("    server: {{ public_url: \"https://NAME:{}\" }}", address.port()));
    }
    lines.push("  To listen on this machine only:".to_owned());
    lines.push(format!("    server: {{ listen: \"127.0.0.1:{}\" }}", address.port()));
    lines
}

fn may_call_loopback(config: &Config) -> bool {
    config.egress.loopback || config.egress.allow_nets.iter().any(|net| net.addr().is_loopback())
}

/// The text. Its last line is the `curl` line; `terminal`: a person looks on.
pub(super) fn text(facts: &Facts, loaded: &Loaded, notices: &Notices, terminal: bool) -> String {
    let scheme = if facts.tls.is_some() { "https" } else { "http" };
    let mut lines =
        vec![format!("sendoff is ready on {scheme}://{} after {} ms", facts.address, facts.took.as_millis())];
    if let Some(ca) = facts.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
        lines.push(format!("  CA certificate  {}  (SHA-256 {})", ca.path.display(), ca.fingerprint_sha256));
    }
    lines.push(format!("  admin key       in {} (mode 0600)", facts.key_file.display()));
    if let (Some(key), true) = (&facts.new_key, terminal) {
        lines.push(format!("                  {key}  (shown this once)"));
    }
    if let Some(metrics) = facts.metrics_address {
        lines.push(format!("  metrics         http://{metrics}/metrics"));
    }
    lines.extend(notices.lines(facts));
    let target = if may_call_loopback(&loaded.config) { FIRST_TARGET } else { FIRST_TARGET_ELSEWHERE };
    let url = format!("{scheme}://{}", super::connect::reachable(facts.address));
    lines.push("Create a first task:".to_owned());
    lines.push(format!("  {} task create {target} -X GET", client(facts, loaded)));
    lines.push("or without the command line (then ask for it: GET /tasks):".to_owned());
    let payload = format!("{{\"url\":\"{target}\",\"method\":\"GET\"}}");
    lines.push(format!("  {}", curl(facts, &url, &payload)));
    lines.join("\n")
}

/// The program with the flags that lead it to this server from the directory where the server was started.
fn client(facts: &Facts, loaded: &Loaded) -> String {
    let mut words = vec![program()];
    if let Some(file) = loaded.file.as_ref().filter(|file| file.as_os_str() != DEFAULT_FILE) {
        words.extend(["--config".to_owned(), word(&file.display().to_string())]);
    }
    // What a variable said here need not be said in another terminal.
    let passing = |path: &str| matches!(loaded.origins.get(path), Some(Origin::Flag(_) | Origin::Environment(_)));
    for (path, flag, dir) in
        [("data_dir", "--data-dir", &loaded.config.data_dir), ("certs_dir", "--certs-dir", &loaded.config.certs_dir)]
    {
        if passing(path) {
            words.extend([flag.to_owned(), word(&dir.display().to_string())]);
        }
    }
    if passing("server.listen") || loaded.config.server.listen.port() == 0 {
        words.extend(["--listen".to_owned(), word(&facts.address.to_string())]);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::{Flags, Sources, load};
    use crate::logging::Fact;
    use crate::security::server_tls::{Change, LocalCa, TlsFacts};
    use crate::task::WallMs;

    fn facts(address: &str, new_key: bool, new_ca: bool) -> Facts {
        let ca = LocalCa { path: PathBuf::from("certs/ca.pem"), fingerprint_sha256: "AB:CD".to_owned() };
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        Facts {
            address: address.parse().unwrap(),
            metrics_address: None,
            tls: Some(TlsFacts {
                ca: Some(ca),
                ca_created: new_ca,
                names,
                expires: WallMs::new(0),
                change: Change::Kept,
            }),
            key_file: PathBuf::from("data/admin.key"),
            new_key: new_key.then(|| "so_id_secret".to_owned()),
            took: Duration::from_millis(40),
        }
    }

    fn said(facts: &Facts, listen: &str, env: &[(&str, &str)], terminal: bool) -> String {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let flags = Flags { listen: Some(listen.to_owned()), ..Flags::default() };
        let loaded = load(&Sources::new(env, flags)).unwrap();
        text(facts, &loaded, &Notices::of(facts, &loaded.config), terminal).replace(&program(), "sendoff")
    }

    #[test]
    fn an_ordinary_start() {
        insta::assert_snapshot!(said(&facts("127.0.0.1:8443", true, true), "127.0.0.1:8443", &[], true));
    }

    #[test]
    fn the_key_is_shown_once_and_to_people_only() {
        let shown =
            |new, terminal| said(&facts("127.0.0.1:1", new, new), "127.0.0.1:1", &[], terminal).contains("secret");
        assert_eq!([shown(true, true), shown(true, false), shown(false, true)], [true, false, false]);
    }

    #[test]
    fn a_start_for_other_machines_is_loud() {
        let facts = facts("0.0.0.0:8443", false, false);
        insta::assert_snapshot!(said(&facts, "0.0.0.0:8443", &[("SENDOFF_DATA_DIR", "d")], true));
        let allowed = said(&facts, "0.0.0.0:8443", &[("SENDOFF_EGRESS__ALLOW", "[127.0.0.0/8]")], true);
        assert!(!allowed.contains("From now on") && allowed.contains("WARNING"), "{allowed}");
        assert!(!said(&facts, "0.0.0.0:8443", &[], false).contains("//0.0.0.0:8443/tasks"), "curl cannot call that");
    }

    #[test]
    fn half_a_first_start_is_told() {
        let ca = said(&facts("127.0.0.1:1", false, true), "127.0.0.1:1", &[], false);
        assert!(ca.contains("a new CA was made"), "{ca}");
        let key = said(&facts("127.0.0.1:1", true, false), "127.0.0.1:1", &[], false);
        assert!(key.contains("a new key was made"), "{key}");
        for whole in [true, false] {
            assert!(!said(&facts("127.0.0.1:1", whole, whole), "127.0.0.1:1", &[], false).contains("NOTE"));
        }
        let notices = Notices::of(&facts("0.0.0.0:1", true, false), &Config::default());
        let all =
            [notices.exposed.map(|exposed| Box::new(exposed) as Box<dyn Fact>).is_some(), notices.changed.is_some()];
        assert_eq!(all, [true, true]);
    }
}
