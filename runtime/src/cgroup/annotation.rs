//! `org.systemd.property.*` annotations: properties of the unit in the words of
//! the GVariant text format, as runc takes them. Pure.

use super::dbus::{Property, Value};
use crate::error::{Error, ErrorKind, Result};

/// What such an annotation begins with.
pub(super) const PREFIX: &str = "org.systemd.property.";

/// The property of one annotation, without its prefix.
///
/// # Errors
/// A name that no property has; a value that is not understood.
pub(super) fn property(name: &str, text: &str) -> Result<Property> {
    let wrong = |why: &str| {
        let line = format!("Annotation {PREFIX}{name}={text}: {why}");
        Error::new(ErrorKind::InvalidArgument, line)
    };
    if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(wrong("name incorrect"));
    }
    let value = value(text.trim()).ok_or_else(|| wrong("value parse error"))?;
    // systemd's own files have TimeoutStopSec=, its bus has TimeoutStopUSec.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
            let value = micros(&value).ok_or_else(|| wrong("value parse error"))?;
            Ok((format!("{stem}USec"), value))
        }
        _ => Ok((name.to_owned(), value)),
    }
}

/// Seconds as microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and times are small positive numbers"
)]
fn micros(value: &Value) -> Option<Value> {
    let whole = |seconds: u64| seconds.checked_mul(1_000_000);
    let micros = match *value {
        Value::Byte(n) => whole(n.into())?,
        Value::U16(n) => whole(n.into())?,
        Value::U32(n) => whole(n.into())?,
        Value::U64(n) => whole(n)?,
        Value::I16(n) => whole(n.try_into().ok()?)?,
        Value::I32(n) => whole(n.try_into().ok()?)?,
        Value::I64(n) => whole(n.try_into().ok()?)?,
        Value::Double(n) if n >= 0.0 => (n * 1e6) as u64,
        _ => return None,
    };
    Some(Value::U64(micros))
}

fn value(text: &str) -> Option<Value> {
    if let Some(quoted) = quoted(text) {
        return quoted.1.is_empty().then_some(Value::Text(quoted.0));
    }
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return texts(list).map(Value::Texts);
    }
    if let Some((typ, number)) = text.split_once(char::is_whitespace) {
        return typed(typ, number.trim());
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        number if number.contains(['.', 'e']) && !number.starts_with("0x") => {
            number.parse().ok().map(Value::Double)
        }
        number => typed("int32", number),
    }
}

fn typed(typ: &str, number: &str) -> Option<Value> {
    let (digits, radix) = number
        .strip_prefix("0x")
        .map_or((number, 10), |hex| (hex, 16));
    Some(match typ {
        "boolean" => Value::Bool(number.parse().ok()?),
        "byte" => Value::Byte(u8::from_str_radix(digits, radix).ok()?),
        "int16" => Value::I16(i16::from_str_radix(digits, radix).ok()?),
        "uint16" => Value::U16(u16::from_str_radix(digits, radix).ok()?),
        "int32" => Value::I32(i32::from_str_radix(digits, radix).ok()?),
        "uint32" => Value::U32(u32::from_str_radix(digits, radix).ok()?),
        "int64" => Value::I64(i64::from_str_radix(digits, radix).ok()?),
        "uint64" => Value::U64(u64::from_str_radix(digits, radix).ok()?),
        "double" => Value::Double(number.parse().ok()?),
        "string" => {
            let (text, rest) = quoted(number)?;
            return rest.is_empty().then_some(Value::Text(text));
        }
        _ => return None,
    })
}

/// A text in quotes at the beginning, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                plain @ ('\\' | '\'' | '"') => plain,
                _ => return None,
            }),
            c if c == quote => return Some((out, text[at + 1..].trim_start())),
            c => out.push(c),
        }
    }
    None
}

/// Texts in quotes, between commas.
fn texts(mut list: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    list = list.trim();
    while !list.is_empty() {
        let (text, rest) = quoted(list)?;
        all.push(text);
        list = match rest.strip_prefix(',') {
            Some(next) if !next.trim().is_empty() => next.trim_start(),
            None if rest.is_empty() => rest,
            _ => return None,
        };
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Option<Property> {
        property(name, text).ok()
    }

    #[test]
    fn values_are_those_of_the_text_format() {
        let is = |name: &str, text: &str, as_name: &str, value: Value| {
            assert_eq!(of(name, text), Some((as_name.to_owned(), value)), "{text}");
        };
        let mode = Value::Text("inactive-or-failed".to_owned());
        is("CollectMode", "'inactive-or-failed'", "CollectMode", mode);
        is(
            "TimeoutStopUSec",
            "uint64 7000000",
            "TimeoutStopUSec",
            Value::U64(7_000_000),
        );
        is(
            "TimeoutStopSec",
            "7",
            "TimeoutStopUSec",
            Value::U64(7_000_000),
        );
        is(
            "TimeoutStopSec",
            "0.5",
            "TimeoutStopUSec",
            Value::U64(500_000),
        );
        is("SendSIGHUP", "true", "SendSIGHUP", Value::Bool(true));
        is("Nice", "int32 -5", "Nice", Value::I32(-5));
        let after = ["a.service", "it's.service"].map(str::to_owned).to_vec();
        is(
            "After",
            "['a.service', \"it's.service\"]",
            "After",
            Value::Texts(after),
        );
        is("After", "[]", "After", Value::Texts(Vec::new()));
        is(
            "Description",
            r"'a \'b\' \\'",
            "Description",
            Value::Text(r"a 'b' \".to_owned()),
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (name, text) in [
            ("a", "1"),
            ("Foo.Bar", "1"),
            ("CollectMode", "'open"),
            ("CollectMode", "'a' b"),
            ("CollectMode", "bare"),
            ("After", "['a' 'b']"),
            ("After", "['a',]"),
            ("Nice", "uint16 -1"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "'7'"),
        ] {
            let error = property(name, text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{name} {text}");
            assert!(error.message.contains(name));
        }
    }
}
