//! Manifests, with what all of them have filled in.

use crate::programs::{BUSYBOX, Program};
use serde_json::{Value, json};

/// Fills in what a manifest leaves out, wherever it has a pod's spec: the RuntimeClass,
/// images that are on the node, a short grace period. `"script"` of a container is a
/// shell's, `"python"` is Python's.
pub(super) fn complete(manifest: &mut Value, class: &str) {
    match manifest {
        Value::Array(parts) => parts.iter_mut().for_each(|part| complete(part, class)),
        Value::Object(fields) => {
            for part in fields.values_mut() {
                complete(part, class);
            }
            if !fields.contains_key("containers") {
                return;
            }
            let defaults = [
                ("runtimeClassName", json!(class)),
                ("terminationGracePeriodSeconds", json!(1)),
            ];
            for (name, value) in defaults {
                fields.entry(name).or_insert(value);
            }
            for list in ["containers", "initContainers"] {
                let containers = fields.get_mut(list).and_then(Value::as_array_mut);
                containers.into_iter().flatten().for_each(container);
            }
        }
        _ => {}
    }
}

fn container(container: &mut Value) {
    let Some(fields) = container.as_object_mut() else {
        return;
    };
    let mut image = BUSYBOX.to_owned();
    if let Some(script) = fields.remove("script") {
        fields.insert("command".to_owned(), json!(["sh", "-c", script]));
    }
    if let Some(script) = fields.remove("python") {
        image = Program::Python.image();
        let command = json!(["python3", "-u", "-c", script]);
        fields.insert("command".to_owned(), command);
    }
    fields.entry("name").or_insert(json!("app"));
    fields.entry("image").or_insert(json!(image));
    fields
        .entry("imagePullPolicy")
        .or_insert(json!("IfNotPresent"));
}

/// Two objects in one; the second one's fields win.
pub(super) fn with(mut base: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (base.as_object_mut(), more) {
        fields.extend(more);
    }
    base
}

/// A container that waits for ever.
pub(super) fn waiting() -> Value {
    json!({"script": "exec sleep 1000000"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_deep_inside_is_completed_and_what_it_says_stays() {
        let mut deployment = json!({"spec": {"template": {"spec": {
            "terminationGracePeriodSeconds": 9,
            "containers": [{"python": "1"}],
            "initContainers": [{"name": "first", "script": "true"}],
        }}}});
        complete(&mut deployment, "runc");
        let spec = &deployment["spec"]["template"]["spec"];
        assert_eq!(spec["runtimeClassName"], "runc");
        assert_eq!(spec["terminationGracePeriodSeconds"], 9);
        assert_eq!(spec["containers"][0]["image"], Program::Python.image());
        assert_eq!(spec["initContainers"][0]["name"], "first");
        assert_eq!(
            spec["initContainers"][0]["command"],
            json!(["sh", "-c", "true"])
        );
    }
}
