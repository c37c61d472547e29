//! What is watched on the host: canaries that nobody may read or write, the knobs of
//! the kernel that escapes like to turn, names in the root, and a program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use integration::Node;

/// An integer that anybody may know and nobody misses: what attacks reach for.
pub(crate) const KNOB: &str = "/proc/sys/kernel/printk_ratelimit";

const KNOBS: &[&str] = &[
    KNOB,
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/vm/overcommit_memory",
];

/// What was seen, by name.
type Look = BTreeMap<String, String>;

/// The host, as it was.
pub(crate) struct Host {
    /// A directory in which nothing may change, or be read.
    pub(crate) canary: PathBuf,
    /// In the canaries, and nowhere else.
    pub(crate) secret: String,
    /// Files beside the canaries that may not change either.
    programs: Vec<PathBuf>,
    before: Look,
}

impl Host {
    /// Lays out the canaries, and makes sure that a change of them is seen.
    pub(crate) fn new(node: &Node, programs: &[PathBuf]) -> Result<Self> {
        let canary = node.dir().join("canary");
        fs::create_dir_all(canary.join("dir"))?;
        let secret = format!("secret-of-{}", node.dir().display()).replace('/', "-");
        for (name, mode) in [("secret", 0o600), ("tool", 0o755), ("0", 0o666)] {
            fs::write(canary.join(name), &secret)?;
            fs::set_permissions(canary.join(name), fs::Permissions::from_mode(mode))?;
        }
        let mut host = Self {
            canary,
            secret,
            programs: programs.to_vec(),
            before: Look::new(),
        };
        host.before = host.look()?;
        host.prove()?;
        Ok(host)
    }

    /// What is different from before; empty when nothing is.
    pub(crate) fn changes(&self) -> Result<Vec<String>> {
        let now = self.look()?;
        let differs = |(name, is): &(&String, &String)| self.before.get(*name) != Some(is);
        let new = now.iter().filter(differs);
        let mut all: Vec<String> = new.map(|(name, is)| format!("{name} is {is}")).collect();
        let gone = self.before.keys().filter(|name| !now.contains_key(*name));
        all.extend(gone.map(|name| format!("{name} is gone")));
        Ok(all)
    }

    /// What a container says that got hold of what it must not have.
    pub(crate) fn betrayed_by(&self, said: &str) -> bool {
        said.contains(&self.secret) || said.contains("BREACH")
    }

    fn prove(&self) -> Result<()> {
        let file = self.canary.join("dir/made");
        fs::write(&file, "")?;
        assert_ne!(self.changes()?, [""; 0], "a new file is not seen");
        fs::remove_file(file)?;
        let file = self.canary.join("0");
        fs::write(&file, "77")?;
        assert_ne!(self.changes()?, [""; 0], "a write is not seen");
        fs::write(file, &self.secret)?;
        assert_eq!(self.changes()?, [""; 0]);
        assert!(self.betrayed_by(&format!("x {} x", self.secret)));
        Ok(())
    }

    fn look(&self) -> Result<Look> {
        let mut look = Look::new();
        walk(&self.canary, &mut look)?;
        for path in &self.programs {
            let (bytes, meta) = (fs::read(path)?, fs::metadata(path)?);
            let seen = format!(
                "{} bytes, {:x}, mode {:o}",
                bytes.len(),
                sum(&bytes),
                meta.mode()
            );
            look.insert(format!("program {}", path.display()), seen);
        }
        for path in KNOBS {
            look.insert(
                (*path).to_owned(),
                fs::read_to_string(path).unwrap_or_default(),
            );
        }
        for dir in ["/", "/usr/local/bin"] {
            for entry in fs::read_dir(dir)? {
                look.insert(format!("name {}", entry?.path().display()), String::new());
            }
        }
        Ok(look)
    }
}

fn walk(dir: &Path, look: &mut Look) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let mut seen = format!(
            "{:o} {}:{} {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev()
        );
        if meta.is_dir() {
            walk(&path, look)?;
        } else {
            seen += &format!(" {:x}", sum(&fs::read(&path)?));
        }
        look.insert(format!("canary {}", path.display()), seen);
    }
    Ok(())
}

/// FNV-1a; nobody here looks for collisions.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
