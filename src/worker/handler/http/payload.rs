//! The payload of `http_request`: JSON text in, a request that can be sent out, or every fault in it at once.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use url::Url;

use super::headers::may_be_switched_off;
use crate::task::limits::{
    FAULTS_REPORTED_MAX, TARGET_HEADER_BYTES_MAX, TARGET_HEADERS_MAX, TARGET_METHOD_LEN_MAX, TARGET_URL_LEN_MAX,
};
use crate::task::reserved::is_reserved;
use crate::task::{CredentialName, Fault};

/// The fields of a payload, as messages name them.
pub const FIELDS: &str = "url, method, headers, body, body_text, body_base64, auth";
const METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
];

/// A request as the task asks for it.
#[derive(Debug, Clone)]
pub(super) struct HttpPayload {
    pub(super) url: Url,
    pub(super) method: Method,
    /// The task's own headers.
    pub(super) headers: HeaderMap,
    /// Their names as they were written.
    pub(super) header_names: Vec<String>,
    /// The defaults it does not want.
    pub(super) switched_off: Vec<HeaderName>,
    /// The bytes that go out, if any.
    pub(super) body: Option<Bytes>,
    /// What they are, unless the task says otherwise.
    pub(super) content_type: Option<&'static str>,
    /// The credential it names.
    pub(super) auth: Option<CredentialName>,
}

impl HttpPayload {
    /// Scheme, host and port, always with its port: the lane, and what error messages may show.
    pub(super) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}://{host}:{port}", self.url.scheme())
    }
}

/// Reads a payload.
pub(super) fn parse(payload: &[u8]) -> Result<HttpPayload, Vec<Fault>> {
    let mut reading = Reading::default();
    match serde_json::from_slice::<Pairs<'_>>(payload) {
        Ok(pairs) => pairs.0.iter().for_each(|(name, value)| reading.field(name, value)),
        Err(error) => reading.fault("", format!("expected a JSON object with {FIELDS}: {error}")),
    }
    reading.finish()
}

/// A JSON object as it stands: every pair, repeated ones too, each value as the text it was.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor).map(Pairs)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            pairs.push((Cow::Owned(name), value));
        }
        Ok(pairs)
    }
}

/// What has been read so far, and what was wrong with it.
#[derive(Default)]
struct Reading {
    seen: Vec<String>,
    url: Option<Url>,
    method: Option<Method>,
    headers: HeaderMap,
    header_names: Vec<String>,
    switched_off: Vec<HeaderName>,
    body: Option<(Bytes, &'static str)>,
    body_field: Option<String>,
    auth: Option<CredentialName>,
    faults: Vec<Fault>,
}

impl Reading {
    fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_REPORTED_MAX {
            self.faults.push(Fault::new(pointer, detail));
        }
    }

    fn field(&mut self, name: &str, value: &RawValue) {
        let pointer = format!("/{}", escape(name));
        if self.seen.iter().any(|seen| seen == name) {
            return self.fault(pointer, "given twice");
        }
        self.seen.push(name.to_owned());
        let read = match name {
            "url" => string(value).and_then(|text| read_url(&text)).map(|url| self.url = Some(url)),
            "method" => string(value).and_then(|text| read_method(&text)).map(|method| self.method = Some(method)),
            "headers" => return self.headers(value),
            "body" | "body_text" | "body_base64" => self.body(name, value),
            "auth" => string(value).and_then(|text| read_auth(&text)).map(|auth| self.auth = Some(auth)),
            _ => Err(unknown_field(name)),
        };
        if let Err(detail) = read {
            self.fault(pointer, detail);
        }
    }

    fn body(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        if let Some(first) = &self.body_field {
            return Err(format!("only one of body, body_text and body_base64 may be given, and `{first}` is"));
        }
        self.body_field = Some(name.to_owned());
        let body = match name {
            "body" => (Bytes::copy_from_slice(value.get().as_bytes()), "application/json"),
            "body_text" => (Bytes::from(string(value)?), "text/plain; charset=utf-8"),
            _ => (read_base64(&string(value)?)?, "application/octet-stream"),
        };
        self.body = Some(body);
        Ok(())
    }

    fn headers(&mut self, value: &RawValue) {
        let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs<'_>>(value.get()) else {
            return self.fault("/headers", "expected an object of header names and strings");
        };
        if pairs.len() > TARGET_HEADERS_MAX {
            self.fault("/headers", format!("at most {TARGET_HEADERS_MAX} headers, these are {}", pairs.len()));
        }
        let mut bytes: usize = 0;
        for (name, value) in &pairs {
            match self.header(name, value) {
                Ok(length) => bytes = bytes.saturating_add(length),
                Err(detail) => self.fault(format!("/headers/{}", escape(name)), detail),
            }
        }
        if bytes > TARGET_HEADER_BYTES_MAX {
            let detail =
                format!("names and values together at most {TARGET_HEADER_BYTES_MAX} bytes, these are {bytes}");
            self.fault("/headers", detail);
        }
    }

    /// Takes one header; says how many bytes it has.
    fn header(&mut self, name: &str, value: &RawValue) -> Result<usize, String> {
        let bad_name = |_| format!("a header name is a token (RFC 9110, section 5.6.2), {:?} is not", clip(name));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(bad_name)?;
        if is_reserved(header.as_str()) {
            return Err("this header is set by sendoff or by the connection and cannot be given".to_owned());
        }
        if self.headers.contains_key(&header) || self.switched_off.contains(&header) {
            return Err("given twice (upper and lower case are the same)".to_owned());
        }
        let text = string(value)?;
        if text.is_empty() && may_be_switched_off(&header) {
            self.switched_off.push(header);
            return Ok(name.len());
        }
        let bad_value = |_| "control characters (line breaks among them) may not stand in a header's value".to_owned();
        let value = HeaderValue::from_str(&text).map_err(bad_value)?;
        self.headers.insert(header, value);
        self.header_names.push(name.to_owned());
        Ok(name.len().saturating_add(text.len()))
    }

    fn finish(mut self) -> Result<HttpPayload, Vec<Fault>> {
        let unreadable = self.faults.iter().any(|fault| fault.pointer.is_empty());
        if !unreadable && !self.seen.iter().any(|seen| seen == "url") {
            self.fault("/url", "required: where the request goes");
        }
        let (body, content_type) = self.body.unzip();
        match self.url {
            Some(url) if self.faults.is_empty() => Ok(HttpPayload {
                url,
                method: self.method.unwrap_or(Method::POST),
                headers: self.headers,
                header_names: self.header_names,
                switched_off: self.switched_off,
                body,
                content_type,
                auth: self.auth,
            }),
            Some(_) | None => Err(self.faults),
        }
    }
}

fn unknown_field(name: &str) -> String {
    format!("unknown field `{}`; http_request has {FIELDS}", clip(name))
}

fn string(value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_error| "expected a string".to_owned())
}

fn read_url(text: &str) -> Result<Url, String> {
    if text.len() > TARGET_URL_LEN_MAX {
        return Err(format!("at most {TARGET_URL_LEN_MAX} characters, these are {}", text.len()));
    }
    let mut url = Url::parse(text).map_err(|error| format!("not an absolute URL: {error}"))?;
    url.set_fragment(None);
    // Percent-encoding may have made it longer; and what the URL standard takes, HTTP may not.
    http::Uri::try_from(url.as_str()).map_err(|error| format!("not a URL that HTTP can send: {error}"))?;
    Ok(url)
}

/// A credential is named, never given: whatever is no name may be a secret, and is not repeated.
fn read_auth(text: &str) -> Result<CredentialName, String> {
    let expected = "expected the name of a credential of the configuration, [A-Za-z0-9._-]{1,128}";
    CredentialName::parse(text).map_err(|_may_be_secret| expected.to_owned())
}

fn read_method(text: &str) -> Result<Method, String> {
    let method = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.len() <= TARGET_METHOD_LEN_MAX)
        .ok_or_else(|| format!("a method is a token of at most {TARGET_METHOD_LEN_MAX} characters"))?;
    if text.eq_ignore_ascii_case("CONNECT") {
        return Err("CONNECT asks for a tunnel and cannot be a task".to_owned());
    }
    match METHODS.iter().find(|known| known.as_str().eq_ignore_ascii_case(text) && **known != method) {
        Some(meant) => Err(format!("methods are case-sensitive; did you mean `{meant}`?")),
        None => Ok(method),
    }
}

fn read_base64(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("not standard base64 with padding: {error}"))
}

/// A name as it stands in a JSON pointer (RFC 6901).
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults(payload: &str) -> Vec<(String, String)> {
        let faults = parse(payload.as_bytes()).unwrap_err();
        faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    fn one_fault(payload: &str) -> (String, String) {
        let faults = faults(payload);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    }

    fn with_headers(headers: &str) -> String {
        format!(r#"{{"url":"https://a.example/","headers":{headers}}}"#)
    }

    #[test]
    fn the_shortest_payload_is_a_post_without_a_body() {
        let payload = parse(br#"{"url":"HTTPS://API.Example.com./charge?a=b#part"}"#).unwrap();
        assert_eq!(payload.method, Method::POST);
        assert_eq!((payload.body.as_ref(), payload.content_type), (None, None));
        assert_eq!(payload.place(), "https://api.example.com:443");
        assert_eq!(payload.url.as_str(), "https://api.example.com./charge?a=b");
        assert_eq!(parse(br#"{"url":"http://[::1]:80/"}"#).unwrap().place(), "http://[::1]:80");
    }

    #[test]
    fn all_faults_come_at_once_with_their_pointers() {
        let payload = r#"{"url":"/relative","method":"CONNECT","headers":{"Host":"x","a/b~":"1","ok":7,"x":"a\r\nb"},
            "body":1,"body_text":"x","auth":"not a name","other":1,"body":2}"#;
        let pointers: Vec<String> = faults(payload).into_iter().map(|(pointer, _)| pointer).collect();
        let expected = [
            "/url",
            "/method",
            "/headers/Host",
            "/headers/a~1b~0",
            "/headers/ok",
            "/headers/x",
            "/body_text",
            "/auth",
            "/other",
            "/body",
        ];
        assert_eq!(pointers, expected);
    }

    #[test]
    fn what_is_no_object_or_has_no_url() {
        for payload in ["", "[]", "7", "\"x\"", "{", "nul"] {
            assert_eq!(one_fault(payload).0, "", "{payload}");
        }
        assert_eq!(one_fault("{}"), ("/url".to_owned(), "required: where the request goes".to_owned()));
        assert_eq!(one_fault(r#"{"url":null}"#), ("/url".to_owned(), "expected a string".to_owned()));
        assert_eq!(one_fault(r#"{"url":"https://"}"#).0, "/url");
        assert_eq!(one_fault(r#"{"url":"https://a","headers":[]}"#).0, "/headers");
    }

    #[test]
    fn a_url_one_below_and_one_above() {
        let url = |length: usize| {
            let start = "https://a.example/";
            format!(r#"{{"url":"{start}{}"}}"#, "x".repeat(length - start.len()))
        };
        assert!(parse(url(TARGET_URL_LEN_MAX).as_bytes()).is_ok());
        assert_eq!(one_fault(&url(TARGET_URL_LEN_MAX + 1)).0, "/url");
    }

    #[test]
    fn methods_are_tokens_in_their_own_case() {
        let method = |text: &str| parse(format!(r#"{{"url":"https://a","method":"{text}"}}"#).as_bytes());
        for good in ["GET", "PURGE", "purge", &"M".repeat(TARGET_METHOD_LEN_MAX)] {
            assert_eq!(method(good).unwrap().method.as_str(), good);
        }
        for bad in ["", "GE T", "connect", "é", &"M".repeat(TARGET_METHOD_LEN_MAX + 1)] {
            assert!(method(bad).is_err(), "{bad}");
        }
        assert_eq!(method("post").unwrap_err()[0].detail, "methods are case-sensitive; did you mean `POST`?");
    }

    #[test]
    fn headers_one_below_and_one_above() {
        let count = |count: usize| {
            let pairs: Vec<String> = (0..count).map(|n| format!(r#""x-{n}":"v""#)).collect();
            with_headers(&format!("{{{}}}", pairs.join(",")))
        };
        assert!(parse(count(TARGET_HEADERS_MAX).as_bytes()).is_ok());
        assert_eq!(one_fault(&count(TARGET_HEADERS_MAX + 1)).0, "/headers");
        let bytes = |total: usize| with_headers(&format!(r#"{{"x-a":"{}"}}"#, "v".repeat(total - 3)));
        assert!(parse(bytes(TARGET_HEADER_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(one_fault(&bytes(TARGET_HEADER_BYTES_MAX + 1)).0, "/headers");
    }

    #[test]
    fn reserved_and_impossible_headers_are_refused() {
        for name in [
            "Sendoff-Task-Id",
            "sendoff-anything",
            "webhook-id",
            "Connection",
            "keep-alive",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Content-Length",
            "HOST",
            "a b",
            "",
            "é",
        ] {
            assert_eq!(one_fault(&with_headers(&format!(r#"{{"{name}":"v"}}"#))).0, format!("/headers/{name}"));
        }
        for value in ["a\\nb", "a\\rb", "a\\u0000b", "a\\u007f"] {
            assert_eq!(one_fault(&with_headers(&format!(r#"{{"x":"{value}"}}"#))).0, "/headers/x");
        }
        assert_eq!(one_fault(&with_headers(r#"{"X-A":"1","x-a":"2"}"#)).0, "/headers/x-a");
    }

    #[test]
    fn an_empty_string_switches_a_default_off_and_is_a_value_elsewhere() {
        let payload = parse(with_headers(r#"{"User-Agent":"","x-empty":""}"#).as_bytes()).unwrap();
        assert_eq!(payload.switched_off, [http::header::USER_AGENT]);
        assert_eq!(payload.headers.get("x-empty").unwrap(), "");
        assert_eq!(one_fault(&with_headers(r#"{"user-agent":"","User-Agent":"x"}"#)).0, "/headers/User-Agent");
    }

    #[test]
    fn bodies_are_the_bytes_that_were_given() {
        let body = |field: &str| {
            let payload = parse(format!(r#"{{"url":"https://a",{field}}}"#).as_bytes()).unwrap();
            (payload.body.unwrap().to_vec(), payload.content_type.unwrap())
        };
        let odd = "{ \"b\":1.0,\n\"a\" : [1e400, \"\\u00e9\"], \"a\":2 }";
        assert_eq!(body(&format!(r#""body":  {odd} "#)), (odd.as_bytes().to_vec(), "application/json"));
        assert_eq!(body(r#""body":null"#).0, b"null");
        assert_eq!(body(r#""body_text":"\u00e9\n""#), ("é\n".as_bytes().to_vec(), "text/plain; charset=utf-8"));
        assert_eq!(body(r#""body_base64":"AP8=""#), (vec![0, 255], "application/octet-stream"));
        assert_eq!(one_fault(r#"{"url":"https://a","body_base64":"AP8"}"#).0, "/body_base64");
    }

    #[test]
    fn faults_are_reported_up_to_a_bound() {
        let fields: Vec<String> = (0..=FAULTS_REPORTED_MAX).map(|n| format!(r#""f{n}":0"#)).collect();
        assert_eq!(faults(&format!("{{{}}}", fields.join(","))).len(), FAULTS_REPORTED_MAX);
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(payload: Vec<u8>, url in ".*", name in ".*", value in ".*") {
            drop(parse(&payload));
            let payload = serde_json::json!({"url": url, "headers": {name: value}, "body_base64": value});
            drop(parse(payload.to_string().as_bytes()));
        }

        #[test]
        fn any_bytes_come_through_base64(bytes: Vec<u8>) {
            let payload = serde_json::json!({"url": "https://a", "body_base64": STANDARD.encode(&bytes)}).to_string();
            prop_assert_eq!(parse(payload.as_bytes()).unwrap().body.unwrap().to_vec(), bytes);
        }
    }
}
