//! JSON as the server gave it, laid out for reading: no value, no order and no number is changed.

use super::text::acts;

/// Valid JSON, indented by two spaces.
pub(in crate::cli) fn pretty(text: &str) -> String {
    lay_out(text, true)
}

/// Valid JSON on one line.
pub(in crate::cli) fn compact(text: &str) -> String {
    lay_out(text, false)
}

/// Copies token by token. Strings stay as they are, but for characters that act on a terminal: JSON allows some of them
/// raw, and means the same by `\u009b`.
fn lay_out(text: &str, indent: bool) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut chars = text.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        if indent {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => string(&mut out, &mut chars),
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(if indent { ": " } else { ":" }),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// The rest of a string whose opening quote has been read.
fn string(out: &mut String, chars: &mut impl Iterator<Item = char>) {
    out.push('"');
    let mut escaped = false;
    for c in chars {
        if acts(c) {
            out.extend(["\\u", format!("{:04x}", u32::from(c)).as_str()]);
        } else {
            out.push(c);
        }
        if c == '"' && !escaped {
            return;
        }
        escaped = c == '\\' && !escaped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_order_and_numbers_stay() {
        let given = r#"{"b":1.0e0,"a":[],"c":{ },"s":"x,{\"y\\","l":[1,{"z":null}]}"#;
        let laid_out = pretty(given);
        insta::assert_snapshot!(laid_out, @r#"
        {
          "b": 1.0e0,
          "a": [],
          "c": {},
          "s": "x,{\"y\\",
          "l": [
            1,
            {
              "z": null
            }
          ]
        }
        "#);
        assert_eq!(compact(&laid_out), r#"{"b":1.0e0,"a":[],"c":{},"s":"x,{\"y\\","l":[1,{"z":null}]}"#);
    }

    #[test]
    fn what_acts_on_a_terminal_is_escaped_and_means_the_same() {
        let given = "{\"a\":\"\u{9b}31m\u{7f}\u{202e}é\"}";
        let laid_out = compact(given);
        assert_eq!(laid_out, r#"{"a":"\u009b31m\u007f\u202eé"}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&laid_out), value(given));
    }
}
