//! D-Bus messages as bytes: as much of the protocol as it takes to talk to
//! systemd (D-Bus specification, "Type system" and "Message protocol"). Pure.
//! Little-endian only, as the machines that Reprise runs on.

/// No answer of systemd comes near this.
const LONGEST: usize = 16 << 20;
/// Bytes before the header's fields.
pub(super) const FIXED: usize = 16;

/// A value of the types that unit properties have.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cgroup) enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    /// Its type.
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }

    fn put(&self, to: &mut Body) {
        match self {
            Self::Bool(value) => to.u32(u32::from(*value)),
            Self::Byte(value) => to.0.push(*value),
            Self::I16(value) => to.fixed(&value.to_le_bytes()),
            Self::U16(value) => to.fixed(&value.to_le_bytes()),
            Self::I32(value) => to.fixed(&value.to_le_bytes()),
            Self::U32(value) => to.u32(*value),
            Self::I64(value) => to.fixed(&value.to_le_bytes()),
            Self::U64(value) => to.fixed(&value.to_le_bytes()),
            Self::Double(value) => to.fixed(&value.to_le_bytes()),
            Self::Text(value) => to.text(value),
            Self::Texts(values) => to.array(4, values, |to, value| to.text(value)),
            Self::Numbers(values) => to.array(4, values, |to, value| to.u32(*value)),
            Self::Bytes(values) => to.array(1, values, |to, value| to.0.push(*value)),
            Self::Pairs(values) => to.array(8, values, |to, (first, second)| {
                to.align(8);
                to.text(first);
                to.text(second);
            }),
        }
    }
}

/// A property of a unit.
pub(in crate::cgroup) type Property = (String, Value);

/// The arguments of a call, in the making.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// A number, aligned to its own size.
    fn fixed<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.fixed(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        // The longest that we write has nine letters.
        self.0
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        value.put(self);
    }

    /// The length does not count what aligns the first element.
    fn array<T>(&mut self, align: usize, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.u32(0);
        let at = self.0.len();
        self.align(align);
        let start = self.0.len();
        for item in items {
            put(self, item);
        }
        let long = length(self.0.len() - start);
        self.0[at - 4..at].copy_from_slice(&long.to_le_bytes());
    }

    /// What was written so far.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// An argument of type `s` or `o`.
    pub(in crate::cgroup) fn and_text(mut self, text: &str) -> Self {
        self.text(text);
        self
    }

    /// An argument of type `b`.
    pub(in crate::cgroup) fn and_bool(mut self, value: bool) -> Self {
        self.u32(u32::from(value));
        self
    }

    /// An argument of type `a(sv)`.
    pub(in crate::cgroup) fn and_properties(mut self, properties: &[Property]) -> Self {
        self.array(8, properties, |to, (name, value)| {
            to.align(8);
            to.text(name);
            to.variant(value);
        });
        self
    }

    /// An empty argument of type `a(sa(sv))`: no further units.
    pub(in crate::cgroup) fn and_no_units(mut self) -> Self {
        self.array(8, &[], |_, (): &()| {});
        self
    }
}

fn length(bytes: usize) -> u32 {
    // Properties have a few hundred bytes.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Who is asked for what.
#[derive(Debug)]
pub(in crate::cgroup) struct Call<'a> {
    /// Whose name on the bus.
    pub(in crate::cgroup) destination: &'a str,
    /// Object.
    pub(in crate::cgroup) path: &'a str,
    /// Interface.
    pub(in crate::cgroup) interface: &'a str,
    /// Method.
    pub(in crate::cgroup) member: &'a str,
    /// Types of the arguments.
    pub(in crate::cgroup) signature: &'a str,
    /// The arguments.
    pub(in crate::cgroup) body: Body,
}

impl Call<'_> {
    /// The message.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut message = Body(vec![b'l', 1 /* call */, 0, 1 /* version */]);
        message.u32(length(self.body.0.len()));
        message.u32(serial);
        let fields = [
            (1, "o", self.path),
            (2, "s", self.interface),
            (3, "s", self.member),
            (6, "s", self.destination),
            (8, "g", self.signature),
        ];
        let used = &fields[..if self.signature.is_empty() { 4 } else { 5 }];
        message.array(8, used, |to, (code, signature, text)| {
            to.align(8);
            to.0.push(*code);
            to.signature(signature);
            if *signature == "g" {
                to.signature(text);
            } else {
                to.text(text);
            }
        });
        message.align(8);
        message.0.extend(&self.body.0);
        message.0
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody calls us.
    Call,
    /// The answer to a call.
    Return,
    /// The refusal of a call.
    Error,
    /// Something happened.
    Signal,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    /// The call that it answers.
    pub(super) answers: u32,
    /// Its method or signal.
    pub(super) member: String,
    /// The name of its error.
    pub(super) error: String,
    body: Vec<u8>,
}

/// How many bytes follow the first [`FIXED`] ones, if these begin a message.
pub(super) fn rest_of(fixed: &[u8; FIXED]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = fixed.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (body, fields) = (number(4)?, number(12)?);
    let known = fixed[0] == b'l' && fixed[3] == 1 && body <= LONGEST && fields <= LONGEST;
    known.then(|| fields.next_multiple_of(8) + body)
}

impl Message {
    /// Takes a message apart; `None` if it is not well-formed.
    pub(super) fn decode(fixed: &[u8; FIXED], rest: &[u8]) -> Option<Self> {
        let whole = [&fixed[..], rest].concat();
        let mut header = Reader {
            bytes: &whole,
            at: 4,
        };
        let long = usize::try_from(header.u32()?).ok()?;
        let serial = header.u32()?;
        let fields = usize::try_from(header.u32()?).ok()?;
        let end = FIXED + fields;
        let mut message = Self {
            kind: match fixed[1] {
                1 => Kind::Call,
                2 => Kind::Return,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => return None,
            },
            serial,
            answers: 0,
            member: String::new(),
            error: String::new(),
            body: whole.get(whole.len().checked_sub(long)?..)?.to_vec(),
        };
        while header.at < end {
            header.align(8);
            match (header.byte()?, header.signature()?.as_str()) {
                (3, "s") => message.member = header.text()?,
                (4, "s") => message.error = header.text()?,
                (5, "u") => message.answers = header.u32()?,
                (_, "s" | "o") => drop(header.text()?),
                (_, "g") => drop(header.signature()?),
                (_, "u") => drop(header.u32()?),
                _ => return None,
            }
        }
        Some(message)
    }

    /// Its arguments, from the first on.
    pub(super) fn arguments(&self) -> Reader<'_> {
        Reader {
            bytes: &self.body,
            at: 0,
        }
    }
}

/// Reads values one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, long: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(long)?)?;
        self.at += long;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// `u`, or the length of something.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn ended_text(&mut self, long: usize) -> Option<String> {
        let text = String::from_utf8(self.take(long)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    /// `s` or `o`.
    pub(super) fn text(&mut self) -> Option<String> {
        let long = usize::try_from(self.u32()?).ok()?;
        self.ended_text(long)
    }

    /// `g`, which also begins a variant.
    pub(super) fn signature(&mut self) -> Option<String> {
        let long = usize::from(self.byte()?);
        self.ended_text(long)
    }
}
