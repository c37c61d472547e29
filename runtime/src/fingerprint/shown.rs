//! What people may see of a container: its fields in a readable form, without what
//! may be secret, and how two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Base, hash};

/// Words in a name that make its value a secret.
const SECRET: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "credential",
    "auth",
];

/// A container's fields, readable. Values of the environment, content of volumes and
/// what an argument calls a secret are there as `hidden:` and a few digits of a
/// hash, so that one sees that they differ and not how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shown(BTreeMap<String, Value>);

/// One thing in which two containers differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field of the fingerprint.
    pub field: String,
    /// What of it: an argument's number, a variable's name, a destination. Absent
    /// for the whole field.
    pub what: Option<String>,
    /// What it is in the one; null when it is absent, or when nobody noted it.
    pub here: Value,
    /// What it is in the other.
    pub there: Value,
}

impl Shown {
    pub(super) fn of(fields: &BTreeMap<&'static str, Value>) -> Self {
        let shown = fields.iter().filter_map(|(name, value)| {
            let shown = match *name {
                "env" => environment(value),
                "args" => arguments(value),
                "mounts" => mounts(value),
                "volumes" => volumes(value),
                "capabilities" => capabilities(value),
                "user" => named(value, &["uid", "gid", "umask", "groups"]),
                "namespaces" => named(value, &["kinds", "uid_mappings", "gid_mappings"]),
                "seccomp" => seccomp(value),
                // No container with hooks is restored, and their environment is
                // nobody's business.
                "hooks" => return None,
                Base::FIELD => json!({ "lower": value }),
                _ => value.clone(),
            };
            Some(((*name).to_owned(), shown))
        });
        Self(shown.collect())
    }

    /// The same, with what people call its image. For another base than this node's,
    /// `lower` is not known.
    #[must_use]
    pub fn with_image(mut self, image: Value) -> Self {
        self.0.insert(Base::FIELD.to_owned(), image);
        self
    }

    /// A field.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// In what two containers differ that differ in these fields.
    #[must_use]
    pub fn differences(&self, other: &Self, fields: &[String]) -> Vec<Difference> {
        let mut all = Vec::new();
        for field in fields {
            let before = all.len();
            if let (Some(here), Some(there)) = (self.get(field), other.get(field)) {
                compare(field, "", here, there, &mut all);
            }
            if all.len() == before {
                // It is not noted, or what differs of it is not.
                all.push(Difference {
                    field: field.clone(),
                    what: None,
                    here: self.get(field).cloned().unwrap_or_default(),
                    there: other.get(field).cloned().unwrap_or_default(),
                });
            }
        }
        all
    }
}

/// Goes down to the parts that differ.
fn compare(field: &str, path: &str, here: &Value, there: &Value, all: &mut Vec<Difference>) {
    match (here, there) {
        _ if here == there => {}
        (Value::Object(mine), Value::Object(theirs)) => {
            let names: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
            for name in names {
                let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(field, &join(path, name), &of(mine), &of(theirs), all);
            }
        }
        // Arguments have places.
        (Value::Array(mine), Value::Array(theirs)) if field == "args" => {
            for n in 0..mine.len().max(theirs.len()) {
                let of = |list: &[Value]| list.get(n).cloned().unwrap_or_default();
                compare(
                    field,
                    &join(path, &n.to_string()),
                    &of(mine),
                    &of(theirs),
                    all,
                );
            }
        }
        // Everything else is a set, or is short.
        (Value::Array(mine), Value::Array(theirs)) => {
            let only = |these: &[Value], those: &[Value]| -> Value {
                these
                    .iter()
                    .filter(|v| !those.contains(v))
                    .cloned()
                    .collect()
            };
            let (here, there) = (only(mine, theirs), only(theirs, mine));
            let reordered = here == json!([]) && there == json!([]);
            all.push(Difference {
                field: field.to_owned(),
                what: (!path.is_empty()).then(|| path.to_owned()),
                here: if reordered { json!(mine) } else { here },
                there: if reordered { json!(theirs) } else { there },
            });
        }
        _ => all.push(Difference {
            field: field.to_owned(),
            what: (!path.is_empty()).then(|| path.to_owned()),
            here: here.clone(),
            there: there.clone(),
        }),
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path} {name}"),
    }
}

/// A value that is not shown.
fn hidden(value: &Value) -> Value {
    let mut digits = hash(value);
    digits.truncate(8);
    json!(format!("hidden:{digits}"))
}

/// Names, and values that are not shown. Of several lines with one name all count.
fn environment(lines: &Value) -> Value {
    let mut variables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in lines.as_array().into_iter().flatten() {
        let line = line.as_str().unwrap_or_default();
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        variables.entry(name).or_default().push(value);
    }
    let shown = variables.into_iter();
    shown
        .map(|(name, values)| (name.to_owned(), hidden(&json!([name, values]))))
        .collect::<Map<_, _>>()
        .into()
}

/// Arguments; what follows a secret's name is not shown.
fn arguments(args: &Value) -> Value {
    let Some(args) = args.as_array() else {
        return args.clone();
    };
    let mut is_secret = false;
    let shown = args.iter().map(|arg| {
        let text = arg.as_str().unwrap_or_default();
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let names_secret = name.len() <= 64 && sounds_secret(name);
        let after_secret = std::mem::replace(
            &mut is_secret,
            names_secret && value.is_empty() && name.starts_with('-'),
        );
        if after_secret && !text.starts_with('-') {
            hidden(arg)
        } else if names_secret && !value.is_empty() {
            let digits = hidden(&json!(value));
            json!(format!("{name}={}", digits.as_str().unwrap_or_default()))
        } else {
            arg.clone()
        }
    });
    shown.collect()
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// By destination; of several at one place each has its number.
fn mounts(mounts: &Value) -> Value {
    let mut shown = Map::new();
    for mount in mounts.as_array().into_iter().flatten() {
        let mut key = mount[0].as_str().unwrap_or_default().to_owned();
        let mut n = 1;
        while shown.contains_key(&key) {
            n += 1;
            key = format!("{} #{n}", mount[0].as_str().unwrap_or_default());
        }
        let mut about = json!({ "type": mount[1], "options": mount[2] });
        if mount[3] != json!([null, null]) {
            about["mappings"] = mount[3].clone();
        }
        shown.insert(key, about);
    }
    shown.into()
}

/// By destination and file; content is not shown.
fn volumes(volumes: &Value) -> Value {
    let mut shown = Map::new();
    for (destination, files) in volumes.as_object().into_iter().flatten() {
        let files = files.as_object().into_iter().flatten();
        let files: Map<String, Value> = files
            .map(|(name, what)| (name.clone(), hidden(what)))
            .collect();
        shown.insert(destination.clone(), files.into());
    }
    shown.into()
}

fn capabilities(sets: &Value) -> Value {
    let names = [
        "bounding",
        "effective",
        "inheritable",
        "permitted",
        "ambient",
    ];
    named(sets, &names)
}

/// A filter's default, how many rules it has, and a hash of all: it is too long to
/// be shown.
fn seccomp(profile: &Value) -> Value {
    if profile.is_null() {
        return Value::Null;
    }
    json!({
        "default": profile["defaultAction"],
        "rules": profile["syscalls"].as_array().map_or(0, Vec::len),
        "hash": &hash(profile)[..8],
    })
}

/// A list whose places have names.
fn named(list: &Value, names: &[&str]) -> Value {
    let Some(list) = list.as_array() else {
        return list.clone();
    };
    let pairs = names.iter().zip(list);
    pairs
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}
