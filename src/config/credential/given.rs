//! A credential that is given whole, with its secrets in it, as `PUT /credentials/{name}` does: the same keys with the
//! same meaning as in the configuration, read by the same readers.

use serde_json::Value;

use super::CredentialConfig;
use super::read::{Secrets, credential};
use crate::config::fault::{ConfigFaults, Origin};
use crate::config::raw::{Entry, Kind, Node, Scalar};
use crate::config::section::Section;
use crate::config::shape;
use crate::task::Fault;

/// Where it would stand in a configuration. What is wrong at such a place is told without what was given.
const PLACE: &str = "credentials.given";

/// Reads one credential; or all that is wrong with it, each fault with its JSON pointer, and without what was given where
/// a secret belongs.
pub fn credential_given(value: &Value) -> Result<CredentialConfig, Vec<Fault>> {
    let (node, mut faults) = (node(value), ConfigFaults::default());
    shape::CREDENTIAL.check(&node, PLACE, &mut faults);
    let read = credential(&Section::part(&node, PLACE), Secrets::Given, &mut faults);
    let told: Vec<Fault> = faults.iter().map(|fault| Fault::new(pointer(&fault.path), fault.detail.clone())).collect();
    match read {
        Some(credential) if told.is_empty() => Ok(credential),
        Some(_) | None => Err(told),
    }
}

/// JSON as the tree of a configuration. As everywhere in the API, `null` is nothing.
fn node(value: &Value) -> Node {
    let scalar = |text: String, plain| Kind::Scalar(Scalar { text, plain });
    let kind = match value {
        Value::String(text) => scalar(text.clone(), false),
        Value::Null | Value::Bool(_) | Value::Number(_) => scalar(value.to_string(), true),
        Value::Array(items) => Kind::List(items.iter().map(node).collect()),
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, value)| !value.is_null());
            let entry = |value: &Value| Entry { origin: Origin::Default, value: node(value) };
            Kind::Map(given.map(|(key, value)| (key.clone(), entry(value))).collect())
        }
    };
    Node { origin: Origin::Default, kind }
}

/// A path of the configuration (`credentials.given.hosts[0]`) as a JSON pointer (`/hosts/0`).
fn pointer(path: &str) -> String {
    let path = path.strip_prefix(PLACE).unwrap_or(path);
    path.trim_end_matches(']').replace(['.', '['], "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CredentialKind, SecretRef};
    use serde_json::json;

    fn faults(value: &Value) -> Vec<(String, String)> {
        let faults = credential_given(value).unwrap_err();
        faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    #[test]
    fn it_has_the_keys_of_the_configuration_and_carries_its_secrets() {
        let read = credential_given(&json!({
            "kind": "basic", "hosts": ["a.example", "*.b.example:8443"], "username": "me", "password": "env:X",
            "allow_plain_http": true, "also": null,
        }));
        let read = read.unwrap();
        assert_eq!((read.hosts.len(), read.allow_plain_http), (2, true));
        let CredentialKind::Basic { password: SecretRef::Given(password), .. } = &read.kind else { panic!("{read:?}") };
        assert_eq!(password.expose(), "env:X", "a secret, and no reference to one");
        assert!(!format!("{read:?}").contains("env:X"));
        let signed = json!({"kind": "standard_webhooks", "secrets": ["whsec_a", "whsec_b"]});
        assert_eq!(credential_given(&signed).unwrap().kind.secrets().len(), 2);
    }

    #[test]
    fn faults_have_pointers_and_hold_no_secret() {
        let told = faults(&json!({
            "kind": "bearer", "token": ["hunter2"], "hosts": ["https://a"], "also": "x", "username": "me",
        }));
        let pointers: Vec<&str> = told.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/also", "/token", "/hosts/0", "/username"], "{told:?}");
        for value in [
            json!({"kind": "bearer", "token": ""}),
            json!({"kind": "bearer", "token": {"a": "hunter2"}}),
            json!("hunter2"),
        ] {
            let told = format!("{:?}", faults(&value));
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert_eq!(faults(&json!({"kind": "bearer"})).len(), 1);
        assert_eq!(
            faults(&json!({})),
            [(
                "/kind".to_owned(),
                "is required: one of bearer, basic, header, oauth2_client_credentials, service_account, oidc, mtls, \
             standard_webhooks"
                    .to_owned(),
            )]
        );
    }
}
