//! Device rules: what a list of rules means, worked out before the kernel is
//! asked, so that v1's files and v2's program enforce the same.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::file;
use crate::error::{Error, ErrorKind, Result};

/// `r`, `w` and `m` (mknod) as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const READ: u8 = 1;
    pub(super) const WRITE: u8 = 2;
    pub(super) const MKNOD: u8 = 4;
    pub(super) const ALL: u8 = 7;

    fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => return None,
            };
        }
        (bits != 0).then_some(Self(bits))
    }

    pub(super) fn text(self) -> String {
        [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')]
            .into_iter()
            .filter_map(|(bit, letter)| (self.0 & bit != 0).then_some(letter))
            .collect()
    }
}

/// Which devices a rule is about; an absent number is a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub(super) block: bool,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Device {
    const fn char(major: Option<u32>, minor: Option<u32>) -> Self {
        Self {
            block: false,
            major,
            minor,
        }
    }

    /// `{99 10 -1}`: the letter's code and the numbers.
    fn in_runcs_words(self) -> String {
        let number = |n: Option<u32>| n.map_or(-1, i64::from);
        let letter = if self.block { b'b' } else { b'c' };
        format!("{{{letter} {} {}}}", number(self.major), number(self.minor))
    }

    fn text(self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!(
            "{} {}:{}",
            if self.block { 'b' } else { 'c' },
            number(self.major),
            number(self.minor)
        )
    }
}

/// What a list of rules comes to: a default, and the exceptions to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rules {
    /// Whether what no exception names is allowed.
    pub(super) allow_by_default: bool,
    /// Allowed when the default is to deny, and the other way round.
    pub(super) exceptions: BTreeMap<Device, Access>,
}

/// Devices that every container gets, as with runc: making any node, and using
/// null, zero, full, random, urandom, tty, ptmx, the ptys and tun. Those with a
/// path give way to a device that the spec puts there.
const DEFAULTS: [(&str, Device, u8); 11] = [
    ("", Device::char(None, None), Access::MKNOD),
    (
        "",
        Device {
            block: true,
            major: None,
            minor: None,
        },
        Access::MKNOD,
    ),
    ("/dev/null", Device::char(Some(1), Some(3)), Access::ALL),
    ("/dev/zero", Device::char(Some(1), Some(5)), Access::ALL),
    ("/dev/full", Device::char(Some(1), Some(7)), Access::ALL),
    ("/dev/random", Device::char(Some(1), Some(8)), Access::ALL),
    ("/dev/urandom", Device::char(Some(1), Some(9)), Access::ALL),
    ("/dev/tty", Device::char(Some(5), Some(0)), Access::ALL),
    ("", Device::char(Some(5), Some(2)), Access::ALL),
    ("", Device::char(Some(136), None), Access::ALL),
    ("", Device::char(Some(10), Some(200)), Access::ALL),
];

/// What a rule of the spec is about: types (block or not), devices, accesses.
type Read = (&'static [bool], Device, Access);

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

impl Rules {
    /// The spec's rules in order, upon a default of deny, and then the devices
    /// that every container gets: last, since engines begin their list with a
    /// rule that denies all. `made` are the devices that the spec makes.
    ///
    /// # Errors
    /// InvalidArgument: a rule that is malformed, or one that v1 could not keep
    /// (a hole in a wildcard).
    pub(super) fn of(spec: Option<&[LinuxDeviceCgroup]>, made: &[LinuxDevice]) -> Result<Self> {
        let mut rules = Self::default();
        for (at, rule) in spec.unwrap_or_default().iter().enumerate() {
            let (kinds, device, access) = match Self::read(rule) {
                Ok(Some(read)) => read,
                Ok(None) => {
                    rules.allow_by_default = rule.allow();
                    rules.exceptions.clear();
                    continue;
                }
                Err(why) => return Err(invalid(format!("linux.resources.devices[{at}]: {why}"))),
            };
            for block in kinds {
                let device = Device {
                    block: *block,
                    ..device
                };
                rules.add(device, access, rule.allow()).map_err(invalid)?;
            }
        }
        let replaced = |path: &str| made.iter().any(|one| one.path() == Path::new(path));
        for (_, device, access) in DEFAULTS.into_iter().filter(|(path, ..)| !replaced(path)) {
            rules.add(device, Access(access), true).map_err(invalid)?;
        }
        Ok(rules)
    }

    /// One rule of the spec; nothing when it is about everything.
    fn read(rule: &LinuxDeviceCgroup) -> std::result::Result<Option<Read>, String> {
        let access = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(access)
            .ok_or_else(|| format!("access {access:?} is not made of r, w and m"))?;
        let number = |what: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .map_err(|e| format!("{what} {n} is not a device number ({e})")),
        };
        let major = number("major", rule.major())?;
        let minor = number("minor", rule.minor())?;
        let kinds: &[bool] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => &[true],
            LinuxDeviceType::C => &[false],
            LinuxDeviceType::U => return Err("invalid cgroup device type \"u\"".to_owned()),
            LinuxDeviceType::P => return Err("invalid cgroup device type \"p\"".to_owned()),
            // All types. Numbers and accesses besides are passed over by runc, which
            // denies or allows everything then; what is allowed is what is named.
            LinuxDeviceType::A => {
                let everything = major.is_none() && minor.is_none() && access.0 == Access::ALL;
                if everything || !rule.allow() {
                    return Ok(None);
                }
                &[true, false]
            }
        };
        Ok(Some((kinds, Device::char(major, minor), access)))
    }

    /// Adds one rule. A rule against the default becomes an exception; one that
    /// agrees with it takes an exception back, which is possible only for exactly
    /// the devices that the exception names: a part of a wildcard cannot be
    /// taken out, and v1 would ignore the attempt silently.
    fn add(
        &mut self,
        device: Device,
        access: Access,
        allow: bool,
    ) -> std::result::Result<(), String> {
        if allow != self.allow_by_default {
            self.exceptions.entry(device).or_default().0 |= access.0;
            return Ok(());
        }
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        let hole = self.exceptions.iter().find(|(other, given)| {
            **other != device
                && other.block == device.block
                && covers(other.major, device.major)
                && covers(other.minor, device.minor)
                && given.0 & access.0 != 0
        });
        if let Some((wide, given)) = hole {
            return Err(format!(
                "unable to remove '{}' exception: requested rule [{} {}] not supported by \
                 devices cgroupv1 (cannot punch hole in existing wildcard rule [{} {}])",
                if allow { "deny" } else { "allow" },
                device.in_runcs_words(),
                access.text(),
                wide.in_runcs_words(),
                given.text(),
            ));
        }
        let narrower: Vec<Device> = self
            .exceptions
            .keys()
            .copied()
            .filter(|other| {
                other.block == device.block
                    && covers(device.major, other.major)
                    && covers(device.minor, other.minor)
            })
            .collect();
        for other in narrower {
            if let Some(given) = self.exceptions.get_mut(&other) {
                given.0 &= !access.0;
                if given.0 == 0 {
                    self.exceptions.remove(&other);
                }
            }
        }
        Ok(())
    }

    /// Writes the rules to a v1 devices cgroup: the default, then the exceptions.
    pub(super) fn write_v1(&self, dir: &Path) -> Result<()> {
        let (default, exception) = if self.allow_by_default {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        file::write(dir, default, "a")?;
        let lines = self
            .exceptions
            .iter()
            .map(|(device, access)| format!("{} {}", device.text(), access.text()));
        file::write_each(dir, exception, lines)
    }

    /// Whether they let a container open what it has at `/dev/null`. `made` are the
    /// devices that the spec makes; of several in one place the first is it.
    pub(super) fn open_null(&self, made: &[LinuxDevice]) -> bool {
        let Some(null) = made.iter().find(|one| one.path() == Path::new("/dev/null")) else {
            return true; // One of the defaults.
        };
        let block = match null.typ() {
            LinuxDeviceType::B => true,
            LinuxDeviceType::C | LinuxDeviceType::U => false,
            LinuxDeviceType::A | LinuxDeviceType::P => return true,
        };
        let (Ok(major), Ok(minor)) = (u32::try_from(null.major()), u32::try_from(null.minor()))
        else {
            return true;
        };
        self.allows(block, major, minor, Access::READ | Access::WRITE)
    }

    /// Whether a use of a device is allowed; what both kernels must agree with.
    pub(super) fn allows(&self, block: bool, major: u32, minor: u32, access: u8) -> bool {
        let hit = self.exceptions.iter().any(|(device, given)| {
            device.block == block
                && device.major.is_none_or(|m| m == major)
                && device.minor.is_none_or(|m| m == minor)
                && if self.allow_by_default {
                    given.0 & access != 0
                } else {
                    given.0 & access == access
                }
        });
        hit != self.allow_by_default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Result<Rules> {
        let list: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        Rules::of(Some(&list), &[])
    }

    #[test]
    fn nothing_given_means_only_what_every_container_gets() {
        let rules = Rules::of(None, &[]).unwrap();
        assert!(!rules.allow_by_default);
        assert!(rules.allows(false, 1, 3, Access::READ));
        assert!(rules.allows(true, 8, 0, Access::MKNOD));
        assert!(!rules.allows(true, 8, 0, Access::READ));
    }

    #[test]
    fn the_usual_list_denies_first_and_then_allows() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#,
        )
        .unwrap();
        assert!(rules.allows(false, 10, 229, Access::READ));
        assert!(rules.allows(false, 1, 3, Access::WRITE));
        assert!(!rules.allows(false, 10, 1, Access::READ));
    }

    #[test]
    fn a_privileged_container_may_use_everything() {
        let rules = rules(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert!(rules.allow_by_default);
        assert!(rules.exceptions.is_empty());
    }

    #[test]
    fn minus_one_is_a_wildcard() {
        let rules =
            rules(r#"[{"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}]"#).unwrap();
        assert!(rules.allows(true, 8, 17, Access::READ));
        assert!(!rules.allows(true, 8, 17, Access::WRITE));
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_not_ignored() {
        let error = rules(
            r#"[{"allow":true,"type":"c","major":10,"access":"rw"},
                {"allow":false,"type":"c","major":10,"minor":1,"access":"r"}]"#,
        )
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert_eq!(
            error.message,
            "unable to remove 'allow' exception: requested rule [{99 10 1} r] not supported by \
             devices cgroupv1 (cannot punch hole in existing wildcard rule [{99 10 -1} rw])"
        );
    }

    #[test]
    fn a_hole_in_what_is_denied_is_refused_too() {
        let error = rules(
            r#"[{"allow":true,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"access":"rw"},
                {"allow":true,"type":"c","major":10,"minor":1,"access":"r"}]"#,
        )
        .unwrap_err();
        let told = "unable to remove 'deny' exception: requested rule [{99 10 1} r]";
        assert!(error.message.starts_with(told), "{error}");
    }

    #[test]
    fn a_null_of_the_specs_own_needs_a_rule() {
        let made: Vec<LinuxDevice> = serde_json::from_str(
            r#"[{"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
                {"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]"#,
        )
        .unwrap();
        let open = |list: &str, made: &[LinuxDevice]| {
            let list: Vec<LinuxDeviceCgroup> = serde_json::from_str(list).unwrap();
            Rules::of(Some(&list), made).unwrap().open_null(made)
        };
        assert!(open("[]", &[]));
        assert!(!open("[]", &made));
        let allow = |access: &str| {
            format!(
                r#"[{{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "{access}"}}]"#
            )
        };
        assert!(open(&allow("rwm"), &made));
        assert!(!open(&allow("r"), &made));
        assert!(open(r#"[{"allow": true, "access": "rwm"}]"#, &made));
    }

    #[test]
    fn a_device_in_a_defaults_place_takes_its_rule_away() {
        let made: Vec<LinuxDevice> =
            serde_json::from_str(r#"[{"path":"/dev/full","type":"c","major":10,"minor":229}]"#)
                .unwrap();
        let rules = Rules::of(None, &made).unwrap();
        assert!(!rules.allows(false, 1, 7, Access::READ));
        assert!(rules.allows(false, 1, 5, Access::READ));
        assert!(!rules.allows(false, 10, 229, Access::READ));
    }

    #[test]
    fn what_denies_all_may_be_written_in_any_way() {
        let rules = rules(
            r#"[{"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":false,"type":"a","major":1,"access":"r"}]"#,
        )
        .unwrap();
        assert_eq!(rules, Rules::of(None, &[]).unwrap());
    }

    #[test]
    fn what_allows_some_of_all_types_allows_no_more() {
        let rules = rules(r#"[{"allow":true,"major":10,"minor":229,"access":"rw"}]"#).unwrap();
        assert!(rules.allows(false, 10, 229, Access::READ));
        assert!(rules.allows(true, 10, 229, Access::WRITE));
        assert!(!rules.allows(false, 10, 228, Access::READ));
        assert!(!rules.allow_by_default);
    }

    #[test]
    fn malformed_rules_are_named() {
        for bad in [
            r#"[{"allow":true,"type":"c","access":"x"}]"#,
            r#"[{"allow":true,"type":"c"}]"#,
            r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
            r#"[{"allow":true,"type":"u","major":1,"access":"rwm"}]"#,
            r#"[{"allow":true,"type":"p","access":"rwm"}]"#,
        ] {
            assert!(rules(bad).unwrap_err().message.contains("devices[0]"));
        }
    }
}
