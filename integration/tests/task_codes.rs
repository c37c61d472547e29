//! The codes of the Task API are those of runc's shim, in every state of a container.

use anyhow::Result;
use integration::shim::{Answered, answers};
use integration::{ContainerSpec, Node, PodSpec};

const OURS: &str = "codes-ours";

#[test]
fn every_refusal_has_the_code_of_runcs_shim_and_names_the_container_once() -> Result<()> {
    let node = Node::start()?;
    // The one whose bundle both copy; it lives under runc's shim.
    let pod = node.run_pod(&PodSpec::new("codes", "web-1").handler("runc"))?;
    let like = pod.run(&ContainerSpec::shell("while :; do sleep 1000; done"))?;
    let of = |name, id| answers(&node, &node.tools().program(name), id, &like);
    let runc = of("containerd-shim-runc-v2", "codes-runc")?;
    let ours = of("containerd-shim-reprise-v2", OURS)?;
    let differing: Vec<_> = runc
        .iter()
        .zip(&ours)
        .filter(|(theirs, ours)| (&theirs.asked, theirs.code) != (&ours.asked, ours.code))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(runc.len(), ours.len());
    let refused: Vec<&Answered> = ours.iter().filter(|answer| answer.code != 0).collect();
    assert!(refused.len() > 40, "{ours:#?}");
    for answer in refused {
        let message = &answer.message;
        let id = if message.contains("nobody") {
            "nobody"
        } else {
            OURS
        };
        assert_eq!(message.lines().count(), 1, "{answer:?}");
        // A cgroup is named as its container is: paths do not count.
        let words = message.split(' ').filter(|word| !word.starts_with('/'));
        let named = words.filter(|word| word.contains(id)).count();
        assert_eq!(named, 1, "{answer:?}");
    }
    Ok(())
}
