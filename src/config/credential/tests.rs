//! Credentials as they stand in the configuration: what is read, and what of a wrong one is told.

use super::*;
use crate::config::tests::load_with;
use crate::config::{Config, Flags};
use crate::task::limits::{
    CREDENTIAL_ALSO_MAX, CREDENTIAL_HOSTS_MAX, CREDENTIAL_SCOPES_MAX, CREDENTIAL_SECRETS_MAX, CREDENTIAL_TEXT_LEN_MAX,
    CREDENTIALS_MAX,
};

fn read(credential: &str) -> Result<CredentialConfig, Vec<String>> {
    let text = format!("credentials: {{billing: {credential}}}");
    match load_with(&text, &[], Flags::default()) {
        Ok(loaded) => Ok(loaded.config.credentials.into_values().next().unwrap()),
        Err(told) => {
            Err(told.lines().filter_map(|line| line.strip_prefix("  config.yaml:1: ")).map(str::to_owned).collect())
        }
    }
}

#[test]
fn every_kind_is_read_with_its_keys() {
    let bearer = read("{kind: bearer, token: \"env:TOKEN\", hosts: [api.example.com]}").unwrap();
    assert_eq!(bearer.kind, CredentialKind::Bearer { token: SecretRef::Env("TOKEN".to_owned()) });
    assert_eq!((bearer.hosts[0].to_string(), bearer.allow_plain_http), ("api.example.com".to_owned(), false));
    let basic = read("{kind: basic, username: me, password: \"file:secrets/p\", allow_plain_http: true}").unwrap();
    assert!(basic.hosts.is_empty() && basic.allow_plain_http, "with no hosts it may go nowhere");
    assert_eq!(basic.kind.secrets(), [("password", &SecretRef::File("secrets/p".into()))]);
    let header = read("{kind: header, name: X-Api-Key, value: \"env:KEY\"}").unwrap();
    assert!(matches!(header.kind.plain()[..], [("name", Plain::Text("x-api-key"))]));
}

#[test]
fn what_is_missing_foreign_or_wrong_is_told_with_its_place() {
    let faults = |credential: &str| read(credential).unwrap_err();
    assert_eq!(
        faults("{}"),
        ["credentials.billing.kind: is required: one of bearer, basic, header, oauth2_client_credentials, \
          service_account, mtls, standard_webhooks"]
    );
    assert_eq!(
        faults("{kind: beaer}"),
        ["credentials.billing.kind: got `beaer`, expected bearer or basic or header or \
          oauth2_client_credentials or service_account or mtls or standard_webhooks; did you mean `bearer`?"]
    );
    assert_eq!(
        faults("{kind: bearer, username: me}"),
        [
            "credentials.billing.username: is no key of the kind bearer, which has token",
            "credentials.billing.token: is required for this kind",
        ]
    );
    assert_eq!(faults("{kind: basic, username: \"a:b\", password: \"env:P\"}").len(), 1);
    for name in ["Host", "sendoff-x", "webhook-id", "a b"] {
        assert_eq!(faults(&format!("{{kind: header, name: \"{name}\", value: \"env:P\"}}")).len(), 1, "{name}");
    }
    let hosts = faults("{kind: bearer, token: \"env:T\", hosts: [\"https://a\"]}");
    assert!(hosts[0].starts_with("credentials.billing.hosts[0]: got the text \"https://a\", expected a host"));
}

#[test]
fn a_client_shows_who_it_is_in_one_of_three_ways() {
    let read = |more: &str| {
        let all = "kind: oauth2_client_credentials, token_url: \"https://issuer.example/token\", client_id: me";
        read(&format!("{{{all}{more}}}"))
    };
    let auth = |more| {
        let CredentialKind::ClientCredentials(client) = read(more).unwrap().kind else { panic!("another kind") };
        client.auth
    };
    let secret = || SecretRef::Env("S".to_owned());
    assert_eq!(auth(", client_secret: \"env:S\""), ClientAuth::SecretBasic(secret()));
    let post = ", client_auth: client_secret_post, client_secret: \"env:S\", scopes: [a, b], audience: \"https://x\"";
    assert_eq!(auth(post), ClientAuth::SecretPost(secret()));
    let jwt = ", client_auth: private_key_jwt, private_key: \"env:S\", key_id: k1";
    assert_eq!(auth(jwt), ClientAuth::PrivateKeyJwt { key: secret(), key_id: Some("k1".to_owned()) });
    let faults = |more: &str| read(more).unwrap_err();
    assert_eq!(faults(""), ["credentials.billing.client_secret: is required for this kind"]);
    let told = faults(", client_auth: private_key_jwt, private_key: \"env:S\", client_secret: \"env:S\"");
    assert_eq!(told, ["credentials.billing.client_secret: is no key of client_auth: private_key_jwt"]);
    assert_eq!(faults(", client_secret: \"env:S\", scopes: [\"a b\"]").len(), 1);
    let scopes = |count: usize| read(&format!(", client_secret: \"env:S\", scopes: [{}]", "a, ".repeat(count)));
    assert!(scopes(CREDENTIAL_SCOPES_MAX).is_ok() && scopes(CREDENTIAL_SCOPES_MAX + 1).is_err());
}

#[test]
fn a_clients_secret_goes_over_https_or_stays_here() {
    let good = ["https://a.example/token", "http://127.0.0.1:9/t", "http://[::1]/", "http://localhost/"];
    assert!(good.iter().all(|url| token_url(url, false).is_ok()));
    for url in
        ["http://a.example/", "https://u:p@a.example/", "https://a.example/#x", "ftp://a.example/", "a", "https://a b/"]
    {
        assert!(token_url(url, false).is_err(), "{url}");
    }
    assert!(token_url("http://a.example/", true).is_ok() && token_url("ftp://a.example/", true).is_err());
}

#[test]
fn a_service_account_asks_for_access_tokens_or_for_id_tokens() {
    let wanted = |more: &str| {
        let read = read(&format!("{{kind: service_account, key: \"file:key.json\"{more}}}"));
        read.map(|read| {
            let CredentialKind::ServiceAccount { wanted, .. } = read.kind else { panic!("another kind") };
            wanted
        })
    };
    assert_eq!(wanted(", scopes: [a]"), Ok(Wanted::Scopes(vec!["a".to_owned()])));
    assert_eq!(wanted(", audience: \"https://x\""), Ok(Wanted::Audience(Some("https://x".to_owned()))));
    assert_eq!(wanted(""), Ok(Wanted::Audience(None)));
    assert_eq!(wanted(", scopes: [a], audience: x").unwrap_err().len(), 1);
}

#[test]
fn a_certificate_and_secrets_that_sign_are_named_by_where_they_are() {
    let mtls = read("{kind: mtls, certificate: \"file:c.pem\", private_key: \"env:K\"}").unwrap();
    let at = [("certificate", &SecretRef::File("c.pem".into())), ("private_key", &SecretRef::Env("K".to_owned()))];
    assert_eq!(mtls.kind.secrets(), at);
    let secrets = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("\"env:S{n}\"")).collect();
        read(&format!("{{kind: standard_webhooks, secrets: [{}]}}", list.join(", ")))
    };
    assert_eq!(secrets(1).unwrap().kind.secrets().len(), 1);
    assert_eq!(secrets(CREDENTIAL_SECRETS_MAX).unwrap().kind.secrets().len(), CREDENTIAL_SECRETS_MAX);
    assert!(secrets(CREDENTIAL_SECRETS_MAX + 1).is_err());
    assert_eq!(secrets(0).unwrap_err(), ["credentials.billing.secrets: is required for this kind"]);
    let told = read("{kind: standard_webhooks, secrets: [\"env:A\", hunter2]}").unwrap_err().join("\n");
    assert!(
        told.starts_with("credentials.billing.secrets[1]: got something else") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn who_goes_along_is_there_takes_nobody_along_and_sets_something_else() {
    let others = "token: {kind: bearer, token: \"env:T\"}, signed: {kind: standard_webhooks, secrets: [\"env:S\"]}, \
                  two: {kind: header, name: x-two, value: \"env:V\", also: [signed]}, bad: {kind: bearer}";
    let faults = |also: &str| {
        let one = format!("one: {{kind: basic, username: me, password: \"env:P\", also: [{also}]}}");
        let text = format!("credentials: {{{one}, {others}}}");
        let told = load_with(&text, &[], Flags::default()).unwrap_err();
        let of_also = |line: &str| line.split_once("credentials.one.also: ").map(|(_, detail)| detail.to_owned());
        told.lines().filter_map(of_also).collect::<Vec<_>>()
    };
    assert_eq!(faults("signed"), Vec::<String>::new());
    assert_eq!(faults("bad"), Vec::<String>::new(), "what is wrong with it itself is told once");
    assert_eq!(faults("other"), ["there is no credential `other`"]);
    assert_eq!(faults("token"), ["`token` sets authorization, and that is set already"]);
    assert_eq!(faults("signed, signed"), ["`signed` sets the webhook signature, and that is set already"]);
    assert_eq!(faults("two"), ["`two` takes others along itself; name them here instead"]);
    let own = faults("one");
    assert!(own.contains(&"`one` takes others along itself; name them here instead".to_owned()), "{own:?}");
    let count = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("h{n}")).collect();
        let all: Vec<String> =
            names.iter().map(|name| format!("{name}: {{kind: header, name: x-{name}, value: \"env:V\"}}")).collect();
        let (names, all) = (names.join(", "), all.join(", "));
        let text = format!("credentials: {{one: {{kind: bearer, token: \"env:T\", also: [{names}]}}, {all}}}");
        load_with(&text, &[], Flags::default()).is_ok()
    };
    assert!(count(CREDENTIAL_ALSO_MAX) && !count(CREDENTIAL_ALSO_MAX + 1));
}

#[test]
fn a_secret_written_where_its_place_belongs_is_not_repeated() {
    for credential in [
        "{kind: bearer, token: hunter2}",
        "{kind: bearer, token: \"env:hunter2 x\"}",
        "{kind: basic, username: me, password: [hunter2]}",
        "{kind: header, name: x-key, value: \"hunter2:x\"}",
        "hunter2",
    ] {
        let told = read(credential).unwrap_err().join("\n");
        assert!(!told.is_empty() && !told.contains("hunter2"), "{credential}: {told}");
    }
    let given = ("SENDOFF_CREDENTIALS__BILLING__TOKEN", "hunter2");
    let faults = load_with("credentials: {billing: {kind: bearer}}", &[given], Flags::default()).unwrap_err();
    assert!(!faults.contains("hunter2") && faults.contains("env:NAME or file:PATH"), "{faults}");
}

#[test]
fn texts_and_hosts_one_below_and_one_above() {
    let user = |len: usize| read(&format!("{{kind: basic, username: {}, password: \"env:P\"}}", "u".repeat(len)));
    assert!(user(CREDENTIAL_TEXT_LEN_MAX).is_ok() && user(CREDENTIAL_TEXT_LEN_MAX + 1).is_err());
    let hosts = |count: usize| read(&format!("{{kind: bearer, token: \"env:T\", hosts: [{}]}}", "a, ".repeat(count)));
    assert!(hosts(CREDENTIAL_HOSTS_MAX).is_ok() && hosts(CREDENTIAL_HOSTS_MAX + 1).is_err());
    let many = |count: usize| {
        let one = |n| format!("c{n}: {{kind: bearer, token: \"env:T\"}}");
        let all: Vec<String> = (0..count).map(one).collect();
        load_with(&format!("credentials: {{{}}}", all.join(", ")), &[], Flags::default()).is_ok()
    };
    assert!(many(CREDENTIALS_MAX) && !many(CREDENTIALS_MAX + 1));
}

#[test]
fn references_read_back() {
    for text in ["env:A_1", "file:a/b c", "file:/x"] {
        assert_eq!(SecretRef::parse(text).map(|found| found.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "env:", "env:1A", "env:A-B", "file:", "A", "ENV:A", "vault:x"] {
        assert!(SecretRef::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_queue_names_a_credential_that_is_there() {
    let with = |queue: &str| {
        let text = format!("credentials: {{billing: {{kind: bearer, token: \"env:T\"}}}}\n{queue}");
        load_with(&text, &[], Flags::default()).map(|loaded| loaded.config)
    };
    let auth = |config: &Config, queue: &str| {
        let found = config.queues.iter().find(|(name, _)| name.as_str() == queue).unwrap().1;
        found.auth.as_ref().map(ToString::to_string)
    };
    let config = with("queue_defaults: {auth: billing}\nqueues: {mail: {}, open: {auth: null}}").unwrap();
    assert_eq!((auth(&config, "mail"), auth(&config, "open")), (Some("billing".to_owned()), None));
    let told = with("queues: {mail: {auth: biling}}").unwrap_err();
    assert!(told.contains("queues.mail.auth: there is no credential `biling`; did you mean `billing`?"), "{told}");
    let told = with("queue_defaults: {auth: other}\nqueues: {mail: {}}").unwrap_err();
    assert_eq!(told.matches("there is no credential").count(), 1, "told once, where it was written: {told}");
}
