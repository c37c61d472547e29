//! CRIU's small image files, as far as they have to be rewritten: a magic number,
//! then protobuf messages, each behind its length. Fields that are not ours to
//! change are kept, known to us or not.

use protobuf::well_known_types::empty::Empty;
use protobuf::{CodedOutputStream, Message as _, UnknownFields, UnknownValueRef};

/// Opens every image but the inventory and `pstree` of old CRIUs.
const COMMON: u32 = 0x5456_4319;
/// Entries that one file may have; a container has some tens of mounts.
const MAX_ENTRIES: usize = 100_000;

/// A protobuf message of which only the numbers of its fields are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message(UnknownFields);

impl Message {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut whole = Empty::parse_from_bytes(bytes).map_err(|e| e.to_string())?;
        Ok(Self(std::mem::take(
            whole.special_fields.mut_unknown_fields(),
        )))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields: Vec<_> = self.0.iter().collect();
        // Stable: values of one field stay in their order.
        fields.sort_by_key(|(number, _)| *number);
        let mut bytes = Vec::new();
        let mut out = CodedOutputStream::vec(&mut bytes);
        for (number, value) in fields {
            // A vector takes everything.
            out.write_unknown(number, value).ok();
        }
        out.flush().ok();
        drop(out);
        bytes
    }

    /// A number that stands in a field, if one does.
    pub(super) fn number(&self, field: u32) -> Option<u64> {
        match self.0.get(field)? {
            UnknownValueRef::Varint(number) => Some(number),
            UnknownValueRef::Fixed32(_)
            | UnknownValueRef::Fixed64(_)
            | UnknownValueRef::LengthDelimited(_) => None,
        }
    }

    pub(super) fn bytes(&self, field: u32) -> Option<&[u8]> {
        match self.0.get(field)? {
            UnknownValueRef::LengthDelimited(bytes) => Some(bytes),
            UnknownValueRef::Varint(_)
            | UnknownValueRef::Fixed32(_)
            | UnknownValueRef::Fixed64(_) => None,
        }
    }

    /// All texts or messages in a field that has many.
    pub(super) fn all(&self, field: u32) -> Vec<&[u8]> {
        let fields = self.0.iter().filter(|(number, _)| *number == field);
        let bytes = fields.filter_map(|(_, value)| match value {
            UnknownValueRef::LengthDelimited(bytes) => Some(bytes),
            _ => None,
        });
        bytes.collect()
    }

    /// One more of them.
    pub(super) fn add_bytes(&mut self, field: u32, bytes: Vec<u8>) {
        self.0.add_length_delimited(field, bytes);
    }

    pub(super) fn text(&self, field: u32) -> Option<&str> {
        std::str::from_utf8(self.bytes(field)?).ok()
    }

    pub(super) fn set_number(&mut self, field: u32, number: u64) {
        self.0.remove(field);
        self.0.add_varint(field, number);
    }

    /// One more number in a field that has many.
    pub(super) fn add_number(&mut self, field: u32, number: u64) {
        self.0.add_varint(field, number);
    }

    pub(super) fn set_bytes(&mut self, field: u32, bytes: Vec<u8>) {
        self.0.remove(field);
        self.0.add_length_delimited(field, bytes);
    }

    pub(super) fn clear(&mut self, field: u32) {
        self.0.remove(field);
    }
}

/// An image file: its magic numbers and its messages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Image {
    head: Vec<u32>,
    pub(super) entries: Vec<Message>,
}

impl Image {
    /// An image with this magic number, as CRIU writes it.
    pub(super) fn new(magic: u32, entries: Vec<Message>) -> Self {
        Self {
            head: vec![COMMON, magic],
            entries,
        }
    }

    /// Reads an image that has this magic number.
    pub(super) fn parse(bytes: &[u8], magic: u32) -> Result<Self, String> {
        let mut rest = bytes;
        let mut head = vec![take_u32(&mut rest)?];
        if head == [COMMON] {
            head.push(take_u32(&mut rest)?);
        }
        if head.last() != Some(&magic) {
            return Err("it is not the kind of image that its name says".to_owned());
        }
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let length = usize::try_from(take_u32(&mut rest)?).unwrap_or(usize::MAX);
            let (entry, after) = rest
                .split_at_checked(length)
                .ok_or("it ends in the middle of an entry")?;
            if entries.len() == MAX_ENTRIES {
                return Err(format!("it has more than {MAX_ENTRIES} entries"));
            }
            entries.push(Message::parse(entry)?);
            rest = after;
        }
        Ok(Self { head, entries })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.head.iter().flat_map(|n| n.to_le_bytes()).collect();
        for entry in &self.entries {
            let entry = entry.encode();
            // What was read from a file of 4 MiB and grew by a path has no 4 GiB.
            let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, String> {
    let (head, after) = rest
        .split_first_chunk()
        .ok_or("it ends in the middle of a number")?;
    *rest = after;
    Ok(u32::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_that_nobody_knows_survive_a_rewrite() {
        // 1: 7, 13: "run", 1000: fixed64, 3: {5: 6}, 5: two values
        let mut inner = Message::default();
        inner.set_number(5, 6);
        let mut message = Message::default();
        message.set_number(1, 7);
        message.set_bytes(13, b"run".to_vec());
        message.set_bytes(3, inner.encode());
        message.0.add_fixed64(1000, u64::MAX);
        message.0.add_varint(5, 1);
        message.0.add_varint(5, 2);
        let mut read = Message::parse(&message.encode()).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.text(13), Some("run"));
        read.set_number(1, 8);
        read.clear(13);
        assert_eq!(read.number(1), Some(8));
        assert_eq!(read.bytes(13), None);
        assert_eq!(read.bytes(3), Some(inner.encode().as_slice()));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let image = Image::new(7, vec![Message::default(); 2]);
        let bytes = image.encode();
        assert_eq!(Image::parse(&bytes, 7), Ok(image));
        Image::parse(&bytes, 8).unwrap_err();
        for end in [0, 3, 7, 10] {
            Image::parse(&bytes[..end], 7).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut image = 7_u32.to_le_bytes().to_vec();
            image.extend(&bytes);
            if let Ok(image) = Image::parse(&image, 7) {
                let again = Image::parse(&image.encode(), 7);
                prop_assert_eq!(again, Ok(image));
            }
        }
    }
}
