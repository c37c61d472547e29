//! Reads CRIU's image files: a magic, then messages, each behind its length
//! (<https://criu.org/Images>). They may come from anybody: every length is checked
//! against what is there, and no file is read that is larger than such files get.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use prost::Message;
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};

/// Begins most images; the image's own magic follows. (criu/include/magic.h)
const COMMON_MAGIC: u32 = 0x5456_4319;
/// Begins images that say something of CRIU's own work, alike.
const SERVICE_MAGIC: u32 = 0x5510_5940;
/// Far more than the messages about a thousand processes take; pages are not read.
const MAX_BYTES: u64 = 64 << 20;

/// All messages of an image, undecoded.
#[derive(Debug)]
pub(super) struct Image {
    name: String,
    bytes: Vec<u8>,
    /// Where the first message's length is.
    start: usize,
}

impl Image {
    /// Reads `name` in `dir`.
    ///
    /// # Errors
    /// It is not there, too large, or no image.
    pub(super) fn read(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .doing(format_args!("Cannot read {}", path.display()))?;
        let mut image = Self {
            name: name.to_owned(),
            bytes,
            start: 4,
        };
        if image.bytes.len() as u64 > MAX_BYTES {
            return Err(image.damaged("is larger than 64 MiB"));
        }
        match image.word(0) {
            Some(COMMON_MAGIC | SERVICE_MAGIC) => image.start = 8,
            Some(_) => {}
            None => return Err(image.damaged("is no image of CRIU's")),
        }
        Ok(image)
    }

    /// Its messages, all of one kind.
    ///
    /// # Errors
    /// Damaged.
    pub(super) fn all<M: Message + Default>(&self) -> Result<Vec<M>> {
        self.messages()?
            .into_iter()
            .map(|m| self.decode(m))
            .collect()
    }

    /// Its first message; the others may be of another kind.
    ///
    /// # Errors
    /// Damaged, or empty.
    pub(super) fn first<M: Message + Default>(&self) -> Result<M> {
        let first = self.messages()?.into_iter().next();
        self.decode(first.ok_or_else(|| self.damaged("is empty"))?)
    }

    /// All messages after the first.
    ///
    /// # Errors
    /// Damaged.
    pub(super) fn rest<M: Message + Default>(&self) -> Result<Vec<M>> {
        let rest = self.messages()?.into_iter().skip(1);
        rest.map(|m| self.decode(m)).collect()
    }

    fn messages(&self) -> Result<Vec<&[u8]>> {
        let mut found = Vec::new();
        let mut at = self.start;
        while at < self.bytes.len() {
            let length = self.word(at).and_then(|n| usize::try_from(n).ok());
            let end = length.and_then(|n| (at + 4).checked_add(n));
            let message = end.and_then(|end| Some((self.bytes.get(at + 4..end)?, end)));
            let (message, end) = message.ok_or_else(|| self.damaged("is cut short"))?;
            found.push(message);
            at = end;
        }
        Ok(found)
    }

    fn decode<M: Message + Default>(&self, message: &[u8]) -> Result<M> {
        M::decode(message).map_err(|e| self.damaged(&format!("has a message that is none: {e}")))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn damaged(&self, how: &str) -> Error {
        Error::new(
            ErrorKind::FailedPrecondition,
            format!("The checkpoint is damaged: {} {how}", self.name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Process;
    use super::*;
    use proptest::prelude::*;

    fn image(bytes: &[u8]) -> Result<Vec<Process>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pstree.img"), bytes).unwrap();
        Image::read(dir.path(), "pstree.img")?.all()
    }

    fn two_processes() -> Vec<u8> {
        let mut bytes = COMMON_MAGIC.to_le_bytes().to_vec();
        bytes.extend(0x5027_3030_u32.to_le_bytes());
        for pid in [1, 7] {
            let process = Process {
                pid,
                ppid: pid - 1,
                threads: vec![pid, pid + 1],
            };
            let message = process.encode_to_vec();
            bytes.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            bytes.extend(message);
        }
        bytes
    }

    #[test]
    fn messages_are_read_behind_their_lengths() {
        let pids: Vec<u32> = image(&two_processes())
            .unwrap()
            .iter()
            .map(|p| p.pid)
            .collect();
        assert_eq!(pids, [1, 7]);
    }

    #[test]
    fn what_is_damaged_is_said() {
        let whole = two_processes();
        let cut = image(&whole[..whole.len() - 1]).unwrap_err().message;
        assert_eq!(cut, "The checkpoint is damaged: pstree.img is cut short");
        assert!(image(b"abc").unwrap_err().message.contains("no image"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in 0_usize..60, byte: u8, cut in 0_usize..60
        ) {
            let mut bytes = two_processes();
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            bytes.truncate(cut);
            drop(image(&bytes));
        }
    }
}
