//! Names of request headers that belong to sendoff or to the connection: neither a task nor a credential may give them.

/// Hop-by-hop (RFC 9110, section 7.6.1), and what the HTTP client writes from the body and the URL.
const NAMES: [&str; 7] = ["connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"];
const PREFIXES: [&str; 5] = ["sendoff-", "webhook-", "proxy-", "keep-alive", "http2-settings"];

/// Whether a header of this name (in lower case) is reserved.
pub fn is_reserved(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_the_connections_are_reserved_and_no_others() {
        for name in ["sendoff-task-id", "webhook-signature", "proxy-authorization", "keep-alive", "host", "te"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["authorization", "x-api-key", "hostname", "tea", "cookie"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
