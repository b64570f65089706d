//! What a token says, once its signature is known to be its issuer's: whether it is for us and in time, and what it
//! allows.
//!
//! Times are checked by our own clock, which is why the library is not asked to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::TokenFault;
use crate::config::{ClaimGrant, IssuerConfig};
use crate::task::limits::{JWT_LEEWAY, JWT_SUBJECT_LEN_MAX};
use crate::task::scope::Scopes;
use crate::task::{CallerName, WallMs};

/// The claims of a token, as they are.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Checks issuer, audience and times at `now`; gives the subject.
    pub(super) fn check(&self, config: &IssuerConfig, now: WallMs) -> Result<&str, TokenFault> {
        let issuer = self.0.get("iss").and_then(Value::as_str);
        if issuer != Some(config.issuer.as_str()) {
            return Err(TokenFault::Issuer);
        }
        let audience = self.0.get("aud").map(texts).filter(|all| !all.is_empty()).ok_or(TokenFault::Claims)?;
        if !audience.iter().any(|one| config.audience.iter().any(|ours| ours == one)) {
            return Err(TokenFault::Audience);
        }
        self.check_times(now)?;
        let subject = self.0.get("sub").and_then(Value::as_str).ok_or(TokenFault::Claims)?;
        let length = subject.chars().count();
        let fits = (1..=JWT_SUBJECT_LEN_MAX).contains(&length) && !subject.contains(char::is_control);
        if fits { Ok(subject) } else { Err(TokenFault::Claims) }
    }

    /// `exp` is the first moment at which the token is no longer good, `nbf` the first at which it is (RFC 7519 sections
    /// 4.1.4 and 4.1.5).
    fn check_times(&self, now: WallMs) -> Result<(), TokenFault> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        let now = now.get() as f64 / 1_000.0;
        let leeway = JWT_LEEWAY.to_duration().as_secs_f64();
        let seconds = |value: &Value| value.as_f64().ok_or(TokenFault::Claims);
        let expires = self.0.get("exp").ok_or(TokenFault::Claims).and_then(seconds)?;
        if now >= expires + leeway {
            return Err(TokenFault::Expired);
        }
        let begins = self.0.get("nbf").map(seconds).transpose()?;
        if begins.is_some_and(|begins| now + leeway < begins) {
            return Err(TokenFault::Premature);
        }
        Ok(())
    }

    /// What the grants that fit allow together.
    pub(super) fn scopes(&self, grants: &BTreeMap<CallerName, ClaimGrant>) -> Scopes {
        Scopes::union(grants.values().filter(|grant| self.fit(grant)).map(|grant| &grant.scopes))
    }

    fn fit(&self, grant: &ClaimGrant) -> bool {
        let Some(value) = self.find(&grant.claim) else { return false };
        // Lists of words in one text (RFC 8693 section 4.2, and what Microsoft calls it).
        let is_words = matches!(grant.claim.as_str(), "scope" | "scp");
        texts(value).into_iter().any(|text| {
            if is_words {
                text.split(' ').any(|word| !word.is_empty() && grant.value.admits(word))
            } else {
                grant.value.admits(text)
            }
        })
    }

    /// By name, or by JSON pointer. A name may itself begin with a `/`.
    fn find(&self, claim: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(claim) {
            return Some(value);
        }
        let (name, rest) = claim.strip_prefix('/').map(|path| path.split_once('/').unwrap_or((path, "")))?;
        let inner = self.0.get(&name.replace("~1", "/").replace("~0", "~"))?;
        if rest.is_empty() { Some(inner) } else { inner.pointer(&format!("/{rest}")) }
    }
}

/// The text that a claim is, or those that are in its list.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Glob;
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn config() -> IssuerConfig {
        IssuerConfig {
            issuer: "https://a.example".to_owned(),
            audience: vec!["sendoff".to_owned(), "queue".to_owned()],
            jwks_url: None,
            algorithms: vec![Algorithm::ES256],
            grants: BTreeMap::new(),
        }
    }

    /// Good claims with some of them changed; null takes one out.
    fn check(changes: &Value) -> Result<String, TokenFault> {
        let mut claims = json!({"iss": "https://a.example", "aud": "sendoff", "exp": NOW + 60, "sub": "me"});
        let claims = claims.as_object_mut().unwrap();
        claims.extend(changes.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let claims = Claims(claims.clone());
        claims.check(&config(), WallMs::new(NOW * 1_000)).map(str::to_owned)
    }

    #[test]
    fn what_has_to_be_there_is_and_is_of_its_type() {
        assert_eq!(check(&json!({})), Ok("me".to_owned()));
        assert_eq!(check(&json!({"aud": ["other", "queue"]})), Ok("me".to_owned()));
        for (changes, fault) in [
            (json!({"exp": null}), TokenFault::Claims),
            (json!({"exp": "9999999999"}), TokenFault::Claims),
            (json!({"nbf": "soon"}), TokenFault::Claims),
            (json!({"aud": null}), TokenFault::Claims),
            (json!({"aud": []}), TokenFault::Claims),
            (json!({"aud": {"sendoff": 1}}), TokenFault::Claims),
            (json!({"aud": "sendoff2"}), TokenFault::Audience),
            (json!({"aud": "Sendoff"}), TokenFault::Audience),
            (json!({"aud": ["other"]}), TokenFault::Audience),
            (json!({"iss": null}), TokenFault::Issuer),
            (json!({"iss": ["https://a.example"]}), TokenFault::Issuer),
            (json!({"iss": "https://a.example/"}), TokenFault::Issuer),
            (json!({"sub": null}), TokenFault::Claims),
            (json!({"sub": ""}), TokenFault::Claims),
            (json!({"sub": 7}), TokenFault::Claims),
            (json!({"sub": "a\nb"}), TokenFault::Claims),
        ] {
            assert_eq!(check(&changes), Err(fault), "{changes}");
        }
        assert!(check(&json!({"sub": "é".repeat(JWT_SUBJECT_LEN_MAX)})).is_ok());
        assert!(check(&json!({"sub": "é".repeat(JWT_SUBJECT_LEN_MAX + 1)})).is_err());
    }

    #[test]
    fn times_hold_to_the_second_with_the_leeway() {
        let leeway = i64::try_from(JWT_LEEWAY.as_millis() / 1_000).unwrap();
        for (changes, result) in [
            (json!({"exp": NOW - leeway}), Err(TokenFault::Expired)),
            (json!({"exp": NOW - leeway + 1}), Ok("me".to_owned())),
            (json!({"exp": 0}), Err(TokenFault::Expired)),
            (json!({"exp": -1e300}), Err(TokenFault::Expired)),
            (json!({"nbf": NOW + leeway}), Ok("me".to_owned())),
            (json!({"nbf": NOW + leeway + 1}), Err(TokenFault::Premature)),
        ] {
            assert_eq!(check(&changes), result, "{changes}");
        }
    }

    #[test]
    fn grants_that_fit_add_up_and_those_that_do_not_give_nothing() {
        let grant = |claim: &str, value: &str, scope: &str| {
            let name = CallerName::parse(scope.split(':').next().unwrap()).unwrap();
            let scopes = Scopes::parse([scope]).unwrap();
            (name, ClaimGrant { claim: claim.to_owned(), value: Glob::parse(value).unwrap(), scopes })
        };
        let grants: BTreeMap<_, _> = [
            grant("groups", "ops-*", "manage:mail"),
            grant("/realm/roles", "reader", "read"),
            grant("scope", "tasks.write", "enqueue"),
            grant("https://a.example/admin", "yes", "admin"),
            grant("sub", "robot-*", "metrics"),
        ]
        .into();
        let allowed = |claims: Value| {
            let claims: Claims = serde_json::from_value(claims).unwrap();
            claims.scopes(&grants).texts().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(allowed(json!({"groups": ["dev", "ops-eu"], "sub": "robot-7"})), "manage:mail metrics");
        assert_eq!(allowed(json!({"groups": "ops-eu"})), "manage:mail");
        assert_eq!(allowed(json!({"realm": {"roles": ["reader"]}})), "read");
        assert_eq!(allowed(json!({"scope": "a tasks.write"})), "enqueue");
        assert_eq!(allowed(json!({"https://a.example/admin": "yes"})), "admin");
        for nothing in [
            json!({}),
            json!({"groups": "dev ops-eu"}),
            json!({"groups": {"ops-eu": true}}),
            json!({"groups": [["ops-eu"], 7, null]}),
            json!({"realm": "reader", "/realm": {"roles": "reader"}}),
            json!({"scope": "tasks.writer"}),
            json!({"https://a.example/admin": true}),
        ] {
            assert_eq!(allowed(nothing.clone()), "", "{nothing}");
        }
    }
}
