//! Credentials that are the same header on every call: `bearer`, `basic`, `header`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::secret::Secret;

/// One header, whose value nobody is shown.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Its name.
    pub(super) name: HeaderName,
    /// Its value; `Debug` knows it as sensitive.
    pub(super) value: HeaderValue,
}

/// `Authorization: Bearer` (RFC 6750 section 2.1). The error says what is wrong, not with what.
pub(super) fn bearer(token: &Secret) -> Result<Fixed, String> {
    let visible = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !visible {
        return Err("a bearer token has no blanks and no characters beyond ASCII".to_owned());
    }
    Ok(Fixed { name: AUTHORIZATION, value: sensitive(&format!("Bearer {}", token.expose()))? })
}

/// `Authorization: Basic` (RFC 7617), in UTF-8.
pub(super) fn basic(username: &str, password: &Secret) -> Result<Fixed, String> {
    if password.expose().contains(char::is_control) {
        return Err("a password has no control characters (RFC 7617)".to_owned());
    }
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    Ok(Fixed { name: AUTHORIZATION, value: sensitive(&format!("Basic {pair}"))? })
}

/// A header of its own.
pub(super) fn header(name: &str, value: &Secret) -> Result<Fixed, String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Fixed { name, value: sensitive(value.expose())? })
}

/// A value that is not shown by `Debug` and not kept in the tables of header compression (RFC 7541 section 7.1.3).
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let impossible = |_| "control characters (line breaks among them) may not stand in a header's value".to_owned();
    let mut value = HeaderValue::from_str(text).map_err(impossible)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_the_header_of_its_standard() {
        let told = |fixed: Fixed| (fixed.name.to_string(), String::from_utf8(fixed.value.as_bytes().to_vec()).unwrap());
        assert_eq!(
            told(bearer(&Secret::of("mF_9.B5f-4.1JqM")).unwrap()),
            ("authorization".to_owned(), "Bearer mF_9.B5f-4.1JqM".to_owned())
        );
        // The examples of RFC 7617, sections 2 and 2.1.
        assert_eq!(told(basic("Aladdin", &Secret::of("open sesame")).unwrap()).1, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(told(basic("test", &Secret::of("123£")).unwrap()).1, "Basic dGVzdDoxMjPCow==");
        assert_eq!(told(header("x-api-key", &Secret::of("k y")).unwrap()), ("x-api-key".to_owned(), "k y".to_owned()));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_nothing_is_shown() {
        assert!(bearer(&Secret::of("a b")).is_err() && bearer(&Secret::of("é")).is_err());
        assert!(basic("me", &Secret::of("a\nb")).is_err());
        assert!(header("x", &Secret::of("a\r\nb")).unwrap_err().contains("line breaks"));
        let shown = format!("{:?}", header("x-key", &Secret::of("hunter2")).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
