//! What is in a pod's volumes decides what it is restored from: a program that read an
//! older Secret must not come back with it.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use integration::kubelet::Volume;
use integration::{Container, Node, Pod, PodSpec, heart};

fn run<'n>(
    node: &'n Node,
    pod: &str,
    volume: Volume,
    files: &[(&str, &str)],
) -> Result<(Pod<'n>, Container<'n>)> {
    let dir = volume.publish(node, pod, "given", files)?;
    let spec = heart::spec().mount(&dir.display().to_string(), "/given", true);
    node.run_beating(&PodSpec::new("volumes", pod), &spec)
}

#[test]
fn another_secret_starts_cold_and_the_same_one_is_restored() -> Result<()> {
    let node = Node::start()?;
    let secret = |pod, password| run(&node, pod, Volume::Secret, &[("password", password)]);
    let (_pod, original) = secret("original", "correct horse")?;
    original.take_checkpoint()?;
    let life = original.life()?;

    let (_pod, same) = secret("same", "correct horse")?;
    assert_eq!(same.life()?, life);
    assert_eq!(same.shell("cat /given/password")?, "correct horse");

    let (_pod, other) = secret("other", "battery staple")?;
    assert_ne!(other.life()?, life);
    assert!(other.reason_for_cold()?.contains("no checkpoint matches"));
    assert_eq!(other.differs_in()?, ["volumes"]);
    assert_eq!(other.shell("cat /given/password")?, "battery staple");
    // Who may ask why must not learn it.
    let told = node.reprise(["explain", other.id()])?;
    assert!(told.contains("/given password"), "{told}");
    for secret in ["horse", "staple"] {
        assert!(!told.contains(secret), "{told}");
    }
    Ok(())
}

/// A token as the API server issues it for a pod.
fn token(pod: &str, account: &str, audience: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(
        r#"{{"iss":"https://kubernetes.default.svc","aud":["{audience}"],"exp":{},
            "sub":"system:serviceaccount:volumes:{account}",
            "kubernetes.io":{{"namespace":"volumes","pod":{{"name":"{pod}","uid":"{pod}"}},
            "serviceaccount":{{"name":"{account}"}}}}}}"#,
        pod.len()
    );
    format!("{}.{}.{}", part("{}"), part(&claims), part(pod))
}

#[test]
fn another_projected_volume_starts_cold_and_the_same_one_is_restored() -> Result<()> {
    let node = Node::start()?;
    // As `kube-api-access-*`.
    let access = |pod: &str, account: &str, audience: &str, ca: &str| {
        let token = token(pod, account, audience);
        let files = [
            ("token", token.as_str()),
            ("ca.crt", ca),
            ("namespace", "volumes"),
        ];
        run(&node, pod, Volume::Projected, &files)
    };
    let (_pod, original) = access("original", "default", "api", "authority 1")?;
    original.take_checkpoint()?;
    let life = original.life()?;

    // The token is another one in every pod.
    let (_pod, same) = access("the-same", "default", "api", "authority 1")?;
    assert_eq!(same.life()?, life);
    assert_eq!(
        same.shell("cat /given/token")?,
        token("the-same", "default", "api")
    );

    for (pod, account, audience, ca, field) in [
        ("other-ca", "default", "api", "authority 2", "volumes"),
        (
            "other-audience",
            "default",
            "vault",
            "authority 1",
            "volumes",
        ),
        (
            "other-account",
            "admin",
            "api",
            "authority 1",
            "service_account",
        ),
    ] {
        let (_pod, other) = access(pod, account, audience, ca)?;
        assert_ne!(other.life()?, life, "{pod}");
        assert_eq!(other.differs_in()?, [field], "{pod}");
    }
    Ok(())
}
