//! Where a page goes on, as clients carry it: opaque to them, and ours to change.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::task::TaskKey;

/// Cursors of another make are refused by their first byte.
const VERSION: u8 = 1;

/// The cursor of the page that begins before this task.
pub fn text(key: TaskKey) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(key.to_i64().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What [`text`] made a cursor of; `None` of anything else.
pub fn read(text: &str) -> Option<TaskKey> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (version, key) = bytes.split_first()?;
    let key = (*version == VERSION).then(|| <[u8; 8]>::try_from(key).ok())??;
    TaskKey::from_i64(i64::from_be_bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_others_do_not() {
        for raw in [0, 1, 1 << 40, i64::MAX] {
            let key = TaskKey::from_i64(raw).unwrap();
            assert_eq!(read(&text(key)), Some(key));
        }
        let other_version = URL_SAFE_NO_PAD.encode([2, 0, 0, 0, 0, 0, 0, 0, 1]);
        let negative = URL_SAFE_NO_PAD.encode([1, 255, 0, 0, 0, 0, 0, 0, 1]);
        for given in ["", "x", "AQ", "AQAAAAAAAAABAA", &other_version, &negative] {
            assert_eq!(read(given), None, "{given}");
        }
    }
}
