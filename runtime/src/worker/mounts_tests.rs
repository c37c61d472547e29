use super::*;

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

#[test]
fn options_become_flags_propagation_and_data() {
    let parsed = Options::parse(&words(
        "rbind,ro,rw,nosuid,rslave,index=off,X-containerd.mkdir.path=/a",
    ))
    .unwrap();
    assert_eq!(
        parsed.flags,
        MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_NOSUID
    );
    assert_eq!(
        parsed.propagation,
        Some(MsFlags::MS_SLAVE | MsFlags::MS_REC)
    );
    assert_eq!(parsed.data, ["index=off"]);
}

#[test]
fn what_we_cannot_do_is_refused() {
    assert!(Options::parse(&words("loop")).is_err());
    assert!(Options::parse(&words("uidmap=0:1,gidmap=0:1:2")).is_err());
}

#[test]
fn ids_are_mapped_when_both_are_told() {
    let ids = |text: &str| Options::parse(&words(text)).unwrap().ids;
    assert!(ids("uidmap=0:1:2,gidmap=0:1:2").is_some());
    assert!(ids("uidmap=0:1:2").is_none());
}

#[test]
fn checkpoint_layers_lie_above_the_image() {
    let options = Options::parse(&words("upperdir=/u,workdir=/w,lowerdir=/a:/b\\:c")).unwrap();
    let overlay = Overlay::new(&options, &[PathBuf::from("/layer")]);
    assert_eq!(overlay.lower, ["/layer", "/a", "/b:c"]);
    assert_eq!(overlay.rest, ["upperdir=/u", "workdir=/w"]);
}

#[test]
fn layers_share_a_parent() {
    let dirs = ["/s/1/fs", "/s/20/fs"].map(str::to_owned);
    assert_eq!(common_parent(&dirs), Path::new("/s"));
    assert_eq!(common_parent(&["/s/1/fs".to_owned()]), Path::new("/s/1"));
}

#[test]
fn mount_points_are_unescaped() {
    let table = b"22 1 0:21 / /a\\040b rw - proc proc rw\n23 1 0:21 / /c rw - x x rw\n";
    assert_eq!(
        mount_points(table),
        [PathBuf::from("/a b"), PathBuf::from("/c")]
    );
}
