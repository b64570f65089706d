//! `callers`: who may call us besides the holders of API keys, and what each of them may do. Whoever is not granted
//! anything here may do nothing.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::Algorithm;
use url::Url;

use super::address::web_url;
use super::credential::is_this_machine;
use super::fault::{ConfigFaults, child};
use super::model::ServerConfig;
use super::raw::Scalar;
use super::section::Section;
use super::value::{nullable, word};
use crate::task::limits;
use crate::task::scope::Scopes;
use crate::task::{CallerName, Glob};

/// `callers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallersConfig {
    /// Issuers of bearer tokens.
    pub jwt: BTreeMap<CallerName, IssuerConfig>,
    /// What client certificates allow. One may do what all grants that fit it allow together.
    pub certificates: BTreeMap<CallerName, CertificateGrant>,
}

/// What a client certificate with such a name allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateGrant {
    /// One of the certificate's subject alternative names.
    pub san: SanPattern,
    /// What is allowed then.
    pub scopes: Scopes,
}

/// Of which kind a name in a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SanKind {
    /// A host's.
    Dns,
    /// A URI, such as SPIFFE's.
    Uri,
    /// An address of e-mail.
    Email,
}

impl SanKind {
    const ALL: [Self; 3] = [Self::Dns, Self::Uri, Self::Email];

    /// Its public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Uri => "uri",
            Self::Email => "email",
        }
    }

    /// In the form in which it is compared: the case of a host does not matter (RFC 5280 section 7.2).
    fn compared(self, text: &str) -> String {
        if self == Self::Dns { text.to_ascii_lowercase() } else { text.to_owned() }
    }
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SanName {
    kind: SanKind,
    name: String,
}

impl SanName {
    /// A name of this kind.
    pub fn new(kind: SanKind, name: &str) -> Self {
        Self { kind, name: kind.compared(name) }
    }
}

impl fmt::Display for SanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// A pattern for names of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanPattern {
    kind: SanKind,
    glob: Glob,
}

impl SanPattern {
    /// Parses `dns:…`, `uri:…`, `email:…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (word, glob) = text.split_once(':')?;
        let kind = SanKind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        Some(Self { kind, glob: Glob::parse(&kind.compared(glob)).ok()? })
    }

    /// Whether the pattern admits this name.
    pub fn admits(&self, name: &SanName) -> bool {
        self.kind == name.kind && self.glob.admits(&name.name)
    }
}

impl fmt::Display for SanPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.glob)
    }
}

/// One issuer of bearer tokens, and what its tokens allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// As its tokens name it in `iss`, to the letter; also where its discovery document is.
    pub issuer: String,
    /// What tokens for us have in `aud`: one of these.
    pub audience: Vec<String>,
    /// Where its keys are; `None`: where its discovery document says.
    pub jwks_url: Option<String>,
    /// How its tokens may be signed. Public keys only.
    pub algorithms: Vec<Algorithm>,
    /// What its tokens allow. A token may do what all grants that fit it allow together.
    pub grants: BTreeMap<CallerName, ClaimGrant>,
}

/// What a token with this claim allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimGrant {
    /// The claim's name, or a JSON pointer (RFC 6901) to it.
    pub claim: String,
    /// What it has to hold: as its text, as one of its texts, or as one of the words of `scope` and `scp`.
    pub value: Glob,
    /// What is allowed then.
    pub scopes: Scopes,
}

/// How tokens can be signed. Nothing with a shared secret: who can check such a token can make one.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Their words, for the schema.
pub(super) const ALGORITHM_WORDS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// What the keys of one entry mean: `config.yaml` has no entry whose comments could say it.
pub(super) const DESCRIBED: [(&str, &str); 10] = [
    ("callers.certificates.*.san", "One of the certificate's names: dns:, uri: or email:, and a pattern for it."),
    ("callers.certificates.*.scopes", "What is allowed then: scopes as API keys have them."),
    ("callers.jwt.*.issuer", "The issuer as its tokens name it in `iss`, to the letter: an https URL."),
    ("callers.jwt.*.audience", "What tokens for this server have in `aud`: at least one of these."),
    ("callers.jwt.*.jwks_url", "Where the issuer's keys are. null: where its discovery document says."),
    ("callers.jwt.*.algorithms", "How its tokens may be signed. Left out: any of these, as the key is for."),
    ("callers.jwt.*.grants", "What its tokens allow, each by a name of yours. Without a grant that fits: nothing."),
    ("callers.jwt.*.grants.*.claim", "The claim's name, or a JSON pointer to it such as /realm_access/roles."),
    ("callers.jwt.*.grants.*.value", "What the claim, or one of its texts, has to be; `*` is any run of characters."),
    ("callers.jwt.*.grants.*.scopes", "What is allowed then: scopes as API keys have them."),
];

/// Whether what is fetched from there can be believed: nobody else is on the line.
pub fn is_trustworthy(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_this_machine(url))
}

/// Reads the section.
pub(super) fn callers(root: &Section<'_>, server: &ServerConfig, faults: &mut ConfigFaults) -> CallersConfig {
    let at = root.at("callers");
    let issuers = at.at("jwt");
    let jwt = named(&issuers, limits::CALLER_ISSUERS_MAX, issuer, faults);
    for (name, issuer) in &jwt {
        let twin = jwt.iter().find(|(other, twin)| *other < name && twin.issuer == issuer.issuer);
        if let Some((twin, _)) = twin {
            let at = issuers.at(name.as_str());
            let detail = format!("{twin} has the same issuer; put the grants of both into one");
            faults.push(at.origin_of("issuer"), child(&at.path, "issuer"), detail);
        }
    }
    let certificates = at.at("certificates");
    check_client_ca(root, server, &certificates, faults);
    let certificates = named(&certificates, limits::CERTIFICATE_GRANTS_MAX, certificate_grant, faults);
    CallersConfig { jwt, certificates }
}

/// Grants that nobody could ever have are a mistake, and so is a CA for connections without TLS.
fn check_client_ca(root: &Section<'_>, server: &ServerConfig, grants: &Section<'_>, faults: &mut ConfigFaults) {
    let tls = root.at("server").at("tls");
    if server.tls.client_ca.is_none() && grants.keys().next().is_some() {
        let detail = "client certificates need server.tls.client_ca, the CAs that they are from";
        faults.push(&grants.origin, grants.path.as_str(), detail);
    }
    if server.tls.client_ca.is_some() && server.plain_http {
        let detail = "there are no client certificates over plain HTTP; take it out, or server.plain_http";
        faults.push(tls.origin_of("client_ca"), child(&tls.path, "client_ca"), detail);
    }
}

/// A map by names of the user's, each entry as `read` reads it; faulty ones are left out.
fn named<T>(
    at: &Section<'_>,
    most: usize,
    read: impl Fn(&Section<'_>, &mut ConfigFaults) -> Option<T>,
    faults: &mut ConfigFaults,
) -> BTreeMap<CallerName, T> {
    let mut all = BTreeMap::new();
    if at.keys().count() > most {
        let detail = format!("got {} entries, expected at most {most}", at.keys().count());
        faults.push(&at.origin, at.path.as_str(), detail);
        return all;
    }
    for key in at.keys() {
        let entry = at.at(key);
        match CallerName::parse(key) {
            Ok(name) => all.extend(read(&entry, faults).map(|value| (name, value))),
            Err(error) => faults.push(&entry.origin, entry.path.as_str(), format!("no name: {error}")),
        }
    }
    all
}

fn issuer(at: &Section<'_>, faults: &mut ConfigFaults) -> Option<IssuerConfig> {
    let issuer = required(at, "issuer", issuer_name, faults);
    let audience = at_least_one(at, ("audience", limits::CALLER_AUDIENCES_MAX), text, faults);
    let jwks_url = at.get("jwks_url", None, nullable(issuer_url), faults);
    let mut algorithms = at.list("algorithms", ALGORITHMS.len(), word(&ALGORITHMS), faults);
    if algorithms.is_empty() {
        algorithms = ALGORITHMS.map(|(_, algorithm)| algorithm).into();
    }
    let grants = named(&at.at("grants"), limits::CALLER_GRANTS_MAX, claim_grant, faults);
    Some(IssuerConfig { issuer: issuer?, audience: audience?, jwks_url, algorithms, grants })
}

fn claim_grant(at: &Section<'_>, faults: &mut ConfigFaults) -> Option<ClaimGrant> {
    let claim = required(at, "claim", text, faults);
    let value = required(at, "value", glob, faults);
    let scopes = scopes(at, faults);
    Some(ClaimGrant { claim: claim?, value: value?, scopes: scopes? })
}

fn certificate_grant(at: &Section<'_>, faults: &mut ConfigFaults) -> Option<CertificateGrant> {
    let san = required(at, "san", san, faults);
    let scopes = scopes(at, faults);
    Some(CertificateGrant { san: san?, scopes: scopes? })
}

fn scopes(at: &Section<'_>, faults: &mut ConfigFaults) -> Option<Scopes> {
    let scopes = at_least_one(at, ("scopes", limits::KEY_SCOPES_MAX), scope, faults);
    scopes.map(|scopes| Scopes::union(&scopes))
}

/// A value that has to be given.
fn required<T>(
    at: &Section<'_>,
    key: &str,
    read: impl Fn(&Scalar) -> Result<T, String>,
    faults: &mut ConfigFaults,
) -> Option<T> {
    let noted = faults.count();
    let value = at.get(key, None, |scalar| read(scalar).map(Some), faults);
    if value.is_none() && faults.count() == noted {
        faults.push(&at.origin, child(&at.path, key), "is missing, and is needed");
    }
    value
}

/// A list that has to have something in it.
fn at_least_one<T>(
    at: &Section<'_>,
    (key, most): (&str, usize),
    read: impl Fn(&Scalar) -> Result<T, String>,
    faults: &mut ConfigFaults,
) -> Option<Vec<T>> {
    let noted = faults.count();
    let values = at.list(key, most, read, faults);
    if values.is_empty() && faults.count() == noted {
        faults.push(at.origin_of(key), child(&at.path, key), "is missing or empty, expected a list of at least one");
    }
    Some(values).filter(|values| !values.is_empty())
}

fn issuer_name(scalar: &Scalar) -> Result<String, String> {
    let max = limits::ISSUER_LEN_MAX;
    let url = issuer_url(scalar)?;
    if url.chars().count() <= max { Ok(url) } else { Err(format!("a URL of at most {max} characters")) }
}

fn issuer_url(scalar: &Scalar) -> Result<String, String> {
    let url = web_url(&scalar.text).filter(is_trustworthy);
    let expected = "an https URL without user, query or fragment, such as https://login.example.com; http on loopback";
    url.map(|_| scalar.text.clone()).ok_or_else(|| expected.to_owned())
}

fn text(scalar: &Scalar) -> Result<String, String> {
    let max = limits::CALLER_TEXT_LEN_MAX;
    let fits = (1..=max).contains(&scalar.text.chars().count()) && !scalar.text.contains(char::is_control);
    let fits = fits && !scalar.is_null();
    fits.then(|| scalar.text.clone()).ok_or_else(|| format!("a text of 1 to {max} characters"))
}

fn glob(scalar: &Scalar) -> Result<Glob, String> {
    text(scalar).and_then(|text| Glob::parse(&text).map_err(|error| error.to_string()))
}

fn san(scalar: &Scalar) -> Result<SanPattern, String> {
    let expected =
        "a kind and a pattern: dns:*.billing.example.com, uri:spiffe://example.com/billing, email:*@example.com";
    SanPattern::parse(&scalar.text).ok_or_else(|| expected.to_owned())
}

fn scope(scalar: &Scalar) -> Result<Scopes, String> {
    let expected = |error| format!("a scope such as read, or read:mail-* for some queues ({error})");
    Scopes::parse([scalar.text.as_str()]).map_err(|(_, error)| expected(error))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags, tests::load_with};
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        load_with(text, &[], Flags::default()).map(|loaded| loaded.config)
    }

    /// One issuer with these keys besides those that are needed.
    fn one(more: &str) -> String {
        format!("callers: {{jwt: {{a: {{issuer: \"https://a.example\", audience: [sendoff]{more}}}}}}}")
    }

    fn faults(text: &str) -> Vec<String> {
        let told = load(text).unwrap_err();
        let faults = told.lines().filter_map(|line| line.split_once("config.yaml:")?.1.split_once(": "));
        faults.map(|(_, fault)| fault.to_owned()).collect()
    }

    #[test]
    fn an_issuer_says_who_it_is_and_for_whom_its_tokens_are_and_the_rest_has_defaults() {
        let config = load(&one("")).unwrap();
        let issuer = &config.callers.jwt[&CallerName::parse("a").unwrap()];
        assert_eq!(
            (issuer.issuer.as_str(), issuer.audience.as_slice()),
            ("https://a.example", &["sendoff".into()][..])
        );
        assert_eq!((issuer.algorithms.len(), issuer.jwks_url.as_ref(), issuer.grants.len()), (9, None, 0));
        let words = ALGORITHMS.map(|(word, _)| word);
        assert_eq!(words, ALGORITHM_WORDS);
        assert_eq!(words.map(str::to_owned), ALGORITHMS.map(|(_, algorithm)| format!("{algorithm:?}")));
        assert_eq!(
            faults("callers: {jwt: {a: }}"),
            [
                "callers.jwt.a.issuer: is missing, and is needed",
                "callers.jwt.a.audience: is missing or empty, expected a list of at least one"
            ]
        );
    }

    #[test]
    fn what_cannot_be_trusted_is_a_fault() {
        for wrong in ["HS256", "HS512", "none", "RS1", "\"\""] {
            let told = faults(&one(&format!(", algorithms: [ES256, {wrong}]")));
            assert!(told[0].starts_with("callers.jwt.a.algorithms[1]: got "), "{told:?}");
        }
        for (url, fits) in [
            ("https://a.example/realms/x", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080/", true),
            ("http://localhost", true),
            ("http://a.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("https://u@a.example", false),
            ("https://a.example/?x", false),
            ("https://a.example/#x", false),
            ("a.example", false),
            ("null", false),
        ] {
            let text = format!("callers: {{jwt: {{a: {{issuer: \"{url}\", audience: [sendoff]}}}}}}");
            assert_eq!(load(&text).is_ok(), fits, "{url}");
            let as_keys = one(&format!(", jwks_url: \"{url}\""));
            assert_eq!(load(&as_keys).is_ok(), fits, "{url}");
        }
    }

    #[test]
    fn grants_are_whole_and_their_faults_are_told_with_their_place() {
        let grant = |text: &str| one(&format!(", grants: {{ops: {{{text}}}}}"));
        let whole = load(&grant("claim: /a/b, value: \"x*\", scopes: [read, \"manage:m*\"]")).unwrap();
        let grants = &whole.callers.jwt[&CallerName::parse("a").unwrap()].grants;
        let found = &grants[&CallerName::parse("ops").unwrap()];
        assert_eq!(found.scopes, Scopes::parse(["read", "manage:m*"]).unwrap());
        for (text, told) in [
            ("value: x, scopes: [read]", "claim: is missing, and is needed"),
            ("claim: x, scopes: [read]", "value: is missing, and is needed"),
            ("claim: x, value: y", "scopes: is missing or empty, expected a list of at least one"),
            ("claim: x, value: y, scopes: [write]", "scopes[0]: got `write`, expected a scope such as read, or"),
            (
                "claim: x, value: y, scopes: [\"admin:a\"]",
                "scopes[0]: got the text \"admin:a\", expected a scope such as",
            ),
            ("claim: x, value: y, scopes: [read], vaule: z", "vaule: unknown key; did you mean `value`?"),
        ] {
            let found = faults(&grant(text));
            assert!(found[0].starts_with(&format!("callers.jwt.a.grants.ops.{told}")), "{found:?}");
        }
        assert_eq!(faults(&one(", grants: {\"a b\": {}}")).len(), 1);
    }

    #[test]
    fn names_in_certificates_are_of_a_kind_and_need_a_ca() {
        let with =
            |server: &str, grant: &str| format!("server: {{{server}}}\ncallers: {{certificates: {{a: {{{grant}}}}}}}");
        let config = load(&with("tls: {client_ca: x}", "san: \"dns:*.A.example\", scopes: [read]")).unwrap();
        let pattern = &config.callers.certificates[&CallerName::parse("a").unwrap()].san;
        for (kind, name, admitted) in [
            (SanKind::Dns, "b.a.EXAMPLE", true),
            (SanKind::Dns, "a.example", false),
            (SanKind::Uri, "b.a.example", false),
        ] {
            assert_eq!(pattern.admits(&SanName::new(kind, name)), admitted, "{name}");
        }
        let exact = SanPattern::parse("uri:spiffe://A/b").unwrap();
        assert!(exact.admits(&SanName::new(SanKind::Uri, "spiffe://A/b")));
        assert!(!exact.admits(&SanName::new(SanKind::Uri, "spiffe://a/b")), "URIs are compared to the letter");
        for (server, grant, told) in [
            (
                "",
                "san: \"dns:a\", scopes: [read]",
                "callers.certificates: client certificates need server.tls.client_ca",
            ),
            (
                "plain_http: true, tls: {client_ca: x}",
                "san: \"dns:a\", scopes: [read]",
                "server.tls.client_ca: there are no",
            ),
            (
                "tls: {client_ca: x}",
                "san: a.example, scopes: [read]",
                "callers.certificates.a.san: got `a.example`, expected",
            ),
            ("tls: {client_ca: x}", "san: \"ip:1\", scopes: [read]", "callers.certificates.a.san: got the text"),
            ("tls: {client_ca: x}", "san: \"dns:a\"", "callers.certificates.a.scopes: is missing"),
        ] {
            let found = faults(&with(server, grant));
            assert!(found[0].starts_with(told), "{found:?}");
        }
    }

    #[test]
    fn an_issuer_is_named_once() {
        let text = "callers: {jwt: {a: {issuer: \"https://a.example\", audience: [x]}, \
                    b: {issuer: \"https://a.example\", audience: [y]}}}";
        assert_eq!(faults(text), ["callers.jwt.b.issuer: a has the same issuer; put the grants of both into one"]);
    }

    #[test]
    fn bounds_one_below_and_one_above() {
        let many = |count: usize| {
            let one = |n| format!("a{n}: {{issuer: \"https://a{n}.example\", audience: [x]}}");
            let all: Vec<String> = (0..count).map(one).collect();
            load(&format!("callers: {{jwt: {{{}}}}}", all.join(", "))).is_ok()
        };
        assert!(many(limits::CALLER_ISSUERS_MAX) && !many(limits::CALLER_ISSUERS_MAX + 1));
        let issuer = |len: usize| {
            let url = format!("https://a.example/{}", "x".repeat(len - "https://a.example/".len()));
            load(&format!("callers: {{jwt: {{a: {{issuer: \"{url}\", audience: [x]}}}}}}")).is_ok()
        };
        assert!(issuer(limits::ISSUER_LEN_MAX) && !issuer(limits::ISSUER_LEN_MAX + 1));
        let audiences = |count: usize| {
            let all = vec!["x"; count].join(", ");
            load(&format!("callers: {{jwt: {{a: {{issuer: \"https://a.example\", audience: [{all}]}}}}}}")).is_ok()
        };
        assert!(audiences(limits::CALLER_AUDIENCES_MAX) && !audiences(limits::CALLER_AUDIENCES_MAX + 1));
        let grants = |count: usize| {
            let all: Vec<String> =
                (0..count).map(|n| format!("g{n}: {{claim: x, value: y, scopes: [read]}}")).collect();
            load(&one(&format!(", grants: {{{}}}", all.join(", ")))).is_ok()
        };
        assert!(grants(limits::CALLER_GRANTS_MAX) && !grants(limits::CALLER_GRANTS_MAX + 1));
        let claim = |len: usize| {
            let claim = "x".repeat(len);
            load(&one(&format!(", grants: {{g: {{claim: {claim}, value: y, scopes: [read]}}}}"))).is_ok()
        };
        assert!(claim(limits::CALLER_TEXT_LEN_MAX) && !claim(limits::CALLER_TEXT_LEN_MAX + 1));
    }
}
