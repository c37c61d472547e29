//! The cgroups in an image. A restore by runc lets CRIU move the processes, from the
//! container's old directory to the new one, for every hierarchy whose directories
//! the image names. Ours names none, since we do that ourselves.

use super::wire::{Image, Message};

const CGROUP: u32 = 0x5938_3330;

/// Names in every hierarchy the directory in which the processes were.
pub(super) fn for_runc(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut image = Image::parse(file, CGROUP)?;
    for entry in &mut image.entries {
        let places = places(entry)?;
        let mut controllers = Vec::new();
        for controller in entry.all(2) {
            let mut controller = Message::parse(controller)?;
            let names = controller.all(1);
            let place = names
                .first()
                .and_then(|name| places.iter().find(|(of, _)| of.as_slice() == *name));
            if let (Some((_, path)), true) = (place, controller.all(2).is_empty()) {
                controller.set_bytes(2, directory(path));
            }
            controllers.push(controller.encode());
        }
        entry.clear(2);
        for controller in controllers {
            entry.add_bytes(2, controller);
        }
    }
    Ok(image.encode())
}

/// A hierarchy's name, and a path in it.
type Place = (Vec<u8>, Vec<u8>);

/// Hierarchy and path of the processes: those of the first set of cgroups.
fn places(entry: &Message) -> Result<Vec<Place>, String> {
    let Some(set) = entry.bytes(1) else {
        return Ok(Vec::new());
    };
    let mut places = Vec::new();
    for member in Message::parse(set)?.all(2) {
        let member = Message::parse(member)?;
        let part = |field| member.bytes(field).unwrap_or_default().to_vec();
        places.push((part(1), part(2)));
    }
    Ok(places)
}

/// A directory that root may write to, as cgroups are made.
fn directory(path: &[u8]) -> Vec<u8> {
    let mut permissions = Message::default();
    permissions.set_number(1, 0o040_755);
    permissions.set_number(2, 0);
    permissions.set_number(3, 0);
    let mut directory = Message::default();
    let name = path.strip_prefix(b"/").unwrap_or(path);
    directory.set_bytes(1, name.to_vec());
    directory.set_bytes(4, permissions.encode());
    directory.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_gets_the_directory_of_the_processes() {
        let with = |fields: &[(u32, &[u8])]| {
            let mut message = Message::default();
            for (field, bytes) in fields {
                message.add_bytes(*field, bytes.to_vec());
            }
            message.encode()
        };
        let member = |name: &[u8], path: &[u8]| with(&[(1, name), (2, path)]);
        let (pids, unified) = (member(b"pids", b"/a/b"), member(b"", b"/a"));
        let set = with(&[(2, &pids), (2, &unified)]);
        let entry = with(&[
            (1, &set),
            (2, &with(&[(1, b"pids")])),
            (2, &with(&[(1, b"")])),
        ]);
        let image = Image::new(CGROUP, vec![Message::parse(&entry).unwrap()]);

        let made = Image::parse(&for_runc(&image.encode()).unwrap(), CGROUP).unwrap();
        let controllers = made.entries[0].all(2);
        let names: Vec<Vec<u8>> = controllers
            .iter()
            .map(|controller| {
                let controller = Message::parse(controller).unwrap();
                let directory = Message::parse(controller.bytes(2).unwrap()).unwrap();
                directory.bytes(1).unwrap().to_vec()
            })
            .collect();
        assert_eq!(names, [b"a/b".to_vec(), b"a".to_vec()]);
        // One that names them keeps them.
        let again = for_runc(&made.encode()).unwrap();
        assert_eq!(again, made.encode());
    }
}
