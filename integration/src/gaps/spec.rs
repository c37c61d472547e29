//! A runtime spec that a case changes.

use serde_json::{Value, json};

/// A runtime spec, or the process part of one for an exec.
#[derive(Clone, Debug)]
pub struct Spec(pub Value);

impl Spec {
    /// Sets the value at a JSON pointer, and makes what is missing on the way.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let mut at = &mut self.0;
        for key in pointer.split('/').skip(1) {
            if at.is_null() {
                *at = json!({});
            }
            at = match key.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => &mut at[key],
            };
        }
        *at = value.into();
        self
    }

    /// Removes the value at a JSON pointer.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(parent) = self.0.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.remove(key);
        }
        self
    }

    /// Appends to the list at a JSON pointer, and makes it when it is missing.
    pub fn push(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        if self.0.pointer(pointer).is_none_or(Value::is_null) {
            self.set(pointer, json!([]));
        }
        if let Some(list) = self.0.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.push(value.into());
        }
        self
    }

    /// The arguments of the container's process.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", args)
    }

    /// One more mount.
    pub fn mount(
        &mut self,
        destination: &str,
        kind: &str,
        source: &str,
        options: &[&str],
    ) -> &mut Self {
        let mount = json!({
            "destination": destination, "type": kind, "source": source, "options": options,
        });
        self.push("/mounts", mount)
    }

    /// A bind mount.
    pub fn bind(&mut self, source: &str, destination: &str, options: &[&str]) -> &mut Self {
        let options: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
        self.mount(destination, "bind", source, &options)
    }

    /// One more mount, before the others.
    pub fn mount_first(
        &mut self,
        destination: &str,
        kind: &str,
        source: &str,
        options: &[&str],
    ) -> &mut Self {
        self.mount(destination, kind, source, options);
        if let Some(mounts) = self.0["mounts"].as_array_mut() {
            mounts.rotate_right(1);
        }
        self
    }

    /// Without the mount at this place.
    pub fn unmount(&mut self, destination: &str) -> &mut Self {
        if let Some(mounts) = self.0["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
        self
    }

    /// The process's user and group.
    pub fn user(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.set("/process/user", json!({ "uid": uid, "gid": gid }))
    }

    /// One more environment variable.
    pub fn env(&mut self, variable: &str) -> &mut Self {
        self.push("/process/env", variable)
    }

    /// One more capability, in every set but ambient.
    pub fn capability(&mut self, name: &str) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            self.push(&format!("/process/capabilities/{set}"), name);
        }
        self
    }

    /// A user namespace of its own, in which 0 is this id of the node.
    pub fn user_namespace(&mut self, host: u32) -> &mut Self {
        let mapping = json!([{ "containerID": 0, "hostID": host, "size": 65536 }]);
        self.push("/linux/namespaces", json!({ "type": "user" }))
            .set("/linux/uidMappings", mapping.clone())
            .set("/linux/gidMappings", mapping)
    }

    /// A seccomp profile that allows everything but these system calls.
    pub fn deny(&mut self, syscalls: &[&str]) -> &mut Self {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": syscalls, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
        });
        self.set("/linux/seccomp", profile)
    }

    /// The whole, with the words of [`super::place::Place`] filled in.
    #[must_use]
    pub fn filled(&self, fill: impl Fn(&str) -> String) -> Value {
        // A path or an id has nothing that JSON would escape.
        serde_json::from_str(&fill(&self.0.to_string())).unwrap_or_default()
    }
}
