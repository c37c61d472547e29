//! Random mutations: a few steps away from a spec that containerd wrote. The same
//! seed makes the same mutant.

use serde_json::{Map, Value, json};

use crate::fields;
use crate::sides::Verdicts;
use crate::specs::Specs;

/// A spec and the steps that lead away from it.
#[derive(Clone)]
pub(crate) struct Mutant {
    seed: u64,
    base: (&'static str, Value),
    steps: Vec<Step>,
}

/// One change; where its place is not there any more, it changes nothing.
#[derive(Clone, Debug)]
enum Step {
    Remove(String),
    Replace(String, Value),
    /// An element of a list, once more.
    Duplicate(String),
    /// Another spelling of a name.
    Rename(String, String),
    /// Something new in an object, or in another value's place.
    Insert(String, Value),
}

impl Mutant {
    pub(crate) fn new(specs: &Specs, seed: u64) -> Self {
        let mut random = Random(seed);
        loop {
            let base = random.one_of(&specs.0).clone();
            let mut mutant = Self {
                seed,
                base,
                steps: Vec::new(),
            };
            for _ in 0..=random.below(3) {
                let step = random.step(&mutant.spec());
                mutant.steps.push(step);
            }
            if mutant.spec() != mutant.base.1 && has_mount_namespace(&mutant.spec()) {
                return mutant;
            }
        }
    }

    pub(crate) fn spec(&self) -> Value {
        let mut spec = self.base.1.clone();
        self.steps.iter().for_each(|step| step.apply(&mut spec));
        spec
    }

    pub(crate) fn name(&self) -> String {
        format!("seed {}: {} with {:?}", self.seed, self.base.0, self.steps)
    }

    /// Leaves steps out as long as it still fails.
    pub(crate) fn shrink(
        &self,
        mut fails: impl FnMut(&Value) -> Option<Verdicts>,
    ) -> (Self, Option<Verdicts>) {
        let (mut small, mut last) = (self.clone(), None);
        let mut n = 0;
        while small.steps.len() > 1 && n < small.steps.len() {
            let mut smaller = small.clone();
            smaller.steps.remove(n);
            let spec = smaller.spec();
            match has_mount_namespace(&spec).then(|| fails(&spec)).flatten() {
                Some(verdicts) => (small, last) = (smaller, Some(verdicts)),
                None => n += 1,
            }
        }
        (small, last)
    }
}

/// Without one, both would mount into the namespace that these tests are in. (Ours
/// refuses such a spec; a case of its own shows it.)
fn has_mount_namespace(spec: &Value) -> bool {
    let of = |value: &Value, name: &str| {
        let object = value.as_object()?;
        let mut found = object
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next_back().map(|(_, value)| value.clone())
    };
    let all = of(spec, "linux").and_then(|linux| of(&linux, "namespaces"));
    all.as_ref().and_then(Value::as_array).is_some_and(|all| {
        all.iter().any(|one| {
            of(one, "type") == Some(json!("mount"))
                && of(one, "path").is_none_or(|path| path == json!("") || path.is_null())
        })
    })
}

impl Step {
    fn apply(&self, spec: &mut Value) {
        match self {
            Self::Remove(at) => with_parent(spec, at, |parent, key| match parent {
                Value::Object(map) => drop(map.remove(key)),
                Value::Array(list) => drop(index(key, list).map(|i| list.remove(i))),
                _ => {}
            }),
            Self::Replace(at, value) => {
                if let Some(place) = spec.pointer_mut(at) {
                    *place = value.clone();
                }
            }
            Self::Duplicate(at) => with_parent(spec, at, |parent, key| {
                if let Value::Array(list) = parent
                    && let Some(i) = index(key, list)
                {
                    list.push(list[i].clone());
                }
            }),
            Self::Rename(at, name) => with_parent(spec, at, |parent, key| {
                if let Value::Object(map) = parent
                    && let Some(value) = map.remove(key)
                {
                    map.insert(name.clone(), value);
                }
            }),
            Self::Insert(at, value) => set(spec, at, value.clone()),
        }
    }
}

fn index(key: &str, list: &[Value]) -> Option<usize> {
    key.parse().ok().filter(|i| *i < list.len())
}

fn with_parent(spec: &mut Value, at: &str, work: impl FnOnce(&mut Value, &str)) {
    let (parent, key) = at.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/").replace("~0", "~");
    if let Some(parent) = spec.pointer_mut(parent) {
        work(parent, &key);
    }
}

/// Sets a value, with objects made on the way.
pub(crate) fn set(spec: &mut Value, at: &str, value: Value) {
    let mut place = spec;
    for key in at.split('/').skip(1) {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(map) => map.entry(key).or_insert(Value::Null),
            Value::Array(list) => match key.parse::<usize>() {
                Ok(i) if i < list.len() => &mut list[i],
                _ => return,
            },
            _ => return,
        };
    }
    *place = value;
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn step(&mut self, spec: &Value) -> Step {
        let mut places = Vec::new();
        collect(spec, String::new(), &mut places);
        let at = self.one_of(&places).clone();
        let is_source = at.ends_with("/source");
        match self.below(10) {
            0 | 1 => Step::Remove(at),
            2 => Step::Duplicate(at),
            3 => {
                let (_, name) = at.rsplit_once('/').unwrap();
                let other = match self.below(3) {
                    0 => name.to_uppercase(),
                    1 => format!("{name}x"),
                    _ => name.to_lowercase(),
                };
                Step::Rename(at, other)
            }
            4 => Step::Insert(format!("{at}/unknown"), self.value(false)),
            5 | 6 => {
                let (at, good, bad) = *self.one_of(&fields::all());
                let all: Vec<Value> = [good, bad].into_iter().flat_map(|f| f()).collect();
                match self.below(all.len() + 1) {
                    i if i == all.len() => Step::Insert(at.to_owned(), self.value(is_source)),
                    i => Step::Insert(at.to_owned(), all[i].clone()),
                }
            }
            _ => Step::Replace(at, self.value(is_source)),
        }
    }

    /// `tame` where a path of the host's would be mounted, and written to.
    fn value(&mut self, tame: bool) -> Value {
        const STRINGS: [&str; 22] = [
            "/",
            "..",
            "../../../..",
            "/proc/self/fd/7",
            "/proc/self/exe",
            "",
            " ",
            "a",
            "ro",
            "rshared",
            "bind",
            "-1",
            "true",
            "CAP_SYS_ADMIN",
            "%s%n",
            "\n",
            "x\u{0}y",
            "\u{fc}\u{202e}\u{1f980}",
            "SCMP_ACT_KILL_PROCESS",
            "RLIMIT_NOFILE",
            "tmpfs",
            "nowhere/at/all",
        ];
        match self.below(12) {
            0..=3 => json!(
                STRINGS[if tame {
                    5 + self.below(17)
                } else {
                    self.below(22)
                }]
            ),
            4 => json!("long/".repeat(1000)),
            5..=7 => self
                .one_of(&[
                    json!(0),
                    json!(-1),
                    json!(1),
                    json!(7),
                    json!(i32::MAX),
                    json!(1_u64 << 31),
                    json!(1_u64 << 32),
                    json!(i64::MAX),
                    json!(i64::MIN),
                    json!(u64::MAX),
                    json!(1.5),
                    json!(1e300),
                    json!(2.0),
                ])
                .clone(),
            8 => Value::Null,
            9 => json!(self.below(2) == 0),
            10 => self
                .one_of(&[
                    json!([]),
                    json!([null]),
                    json!([[]]),
                    json!([""]),
                    json!([1]),
                ])
                .clone(),
            _ => {
                let mut deep = json!({});
                (0..self.below(100)).for_each(|_| deep = json!({"deep": deep}));
                deep
            }
        }
    }
}

/// Every place in a value, save the cgroup, which is how a side's traces are found,
/// and the console, which needs somebody to take it.
fn collect(value: &Value, at: String, places: &mut Vec<String>) {
    if at == "/linux/cgroupsPath" || at == "/process/terminal" {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{key}"), places);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                collect(value, format!("{at}/{i}"), places);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        places.push(at);
    }
}
