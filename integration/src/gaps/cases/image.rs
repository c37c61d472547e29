//! What an image may hold to reach the host. Rows 2, 3, 4.

use crate::gaps::case::Case;
use serde_json::json;

const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "tr '\\0' '\\n' < /proc/$$/environ";

pub(super) fn cases() -> Vec<Case> {
    let mut all = links();
    all.extend(homes());
    all.push(
        Case::new(4, "the runtime's own program as the entrypoint")
            .image("printf '#!/proc/self/exe\\n' > entry; chmod 755 entry")
            .before("sha256sum $(which runc containerd-shim-reprise-v2) > before")
            .spec(|spec| spec.args(&["/entry"]))
            .runs_own()
            .after("the programs", "sha256sum -c before | sed 's,.*/,,'")
            .ignoring("said")
            .ignoring("exit")
            .stricter(
                "our program needs its loader, which the image has not, so it cannot be run at all",
                |runc, ours| {
                    runc["the programs"] == ours["the programs"]
                        && ours["start"]["cause"]
                            .as_str()
                            .is_some_and(|cause| cause.ends_with("no such file or directory"))
                },
            ),
    );
    all.push(
        Case::new(4, "what a process can open of the runtime's")
            .exec("exec", "/probe open /proc/1/exe w; /probe open /proc/self/exe w; ls -l /proc/*/exe | grep -c -E 'runc|reprise'"),
    );
    all
}

/// Places that are symlinks in the image, to a directory that the node has, too.
fn links() -> Vec<Case> {
    const TREE: &str = "rm -rf HOST; mkdir HOST; echo kept > HOST/null; mkdir HOST/pts";
    const TOLD: &str = "find HOST -exec stat -c '%F %a %n' {} + | sort; cat HOST/null";
    const DEV: &str = "nodes /dev/; echo x > /dev/null; ls /dev/pts /dev/shm";
    let linked = |name, host: &str, image: &str, look: &'static str| {
        let host = format!("/etc/gaps-{host}");
        Case::new(2, name)
            .image(image.replace("HOST", &host))
            .before(TREE.replace("HOST", &host))
            .runs(look)
            .after("on the node", TOLD.replace("HOST", &host))
    };
    let bare = |case: Case| {
        case.spec(|spec| {
            spec.unmount("/dev")
                .unmount("/dev/pts")
                .unmount("/dev/shm")
                .unmount("/dev/mqueue")
        })
    };
    vec![
        linked(
            "/dev is a link to an absolute path",
            "a",
            "ln -s HOST dev",
            DEV,
        )
        .restored(),
        linked(
            "/dev is a link out of the rootfs",
            "b",
            "ln -s ../../../../../../../..HOST dev",
            DEV,
        ),
        bare(linked(
            "/dev is a link, and there is no mount on it",
            "c",
            "ln -s HOST dev",
            DEV,
        )),
        bare(linked(
            "/dev/null is a link, and there is no mount on /dev",
            "d",
            "mkdir dev; ln -s HOST/null dev/null; ln -s HOST/pts dev/pts",
            DEV,
        ))
        .stricter(
            "what is written to /dev/null would go where the image's link leads",
            |_, ours| refused_with(ours, "error reopening /dev/null"),
        ),
        linked("/proc is a link", "e", "ln -s HOST proc", "ls /proc/1/ns"),
        linked("/sys is a link", "f", "ln -s HOST sys", "ls /sys/"),
        linked(
            "/run is a link",
            "g",
            "ln -s HOST run",
            "stat -c %F /run/; touch /run/made",
        ),
        linked(
            "/dev/shm is a link",
            "h",
            "mkdir dev; ln -s HOST dev/shm",
            DEV,
        ),
        linked("/dev is a file", "i", "echo text > dev", DEV),
        // A whiteout hides what is below.
        linked(
            "nothing of /dev, /proc, /sys and /run is there",
            "j",
            "for d in dev proc sys run; do mknod $d c 0 0; done",
            "list /dev /proc /sys /run; nodes /dev/",
        )
        .restored(),
    ]
}

/// HOME comes from the image's passwd, read as a file.
fn homes() -> Vec<Case> {
    let passwd = |name, uid: u32, image: Option<&str>| {
        let case = Case::new(3, name)
            .spec(move |spec| spec.set("/process/env", json!([PATH])).user(uid, uid))
            .runs(HOME)
            .restored();
        match image {
            Some(script) => case.image(script),
            None => case,
        }
    };
    const EVIL: &str = "mkdir -p etc usr/lib/x86_64-linux-gnu
        printf 'passwd: evil\\ngroup: evil\\n' > etc/nsswitch.conf
        printf '#include <fcntl.h>\\n__attribute__((constructor)) static void e(void){open(\"/evil\",O_CREAT|O_WRONLY,0600);}\\n' > evil.c
        cc -shared -fPIC -o usr/lib/x86_64-linux-gnu/libnss_evil.so.2 evil.c
        rm evil.c";
    vec![
        passwd("HOME of root", 0, None),
        passwd("HOME of a user of the image", 1000, None),
        passwd("HOME of a user that the image does not know", 4242, None),
        passwd(
            "HOME by an image's passwd",
            7,
            Some("mkdir etc; echo 'me:x:7:7::/my/home:/bin/sh' > etc/passwd"),
        ),
        passwd(
            "HOME by an empty passwd field",
            7,
            Some("mkdir etc; echo 'me:x:7:7:::/bin/sh' > etc/passwd"),
        ),
        passwd(
            "HOME by a passwd with odd lines",
            7,
            Some("mkdir etc; printf '#me\\n\\n+::::::\\nme:x:7\\nme:x:7:7::/odd\\n' > etc/passwd"),
        ),
        passwd(
            "HOME without a passwd",
            7,
            Some("mkdir etc; mknod etc/passwd c 0 0"),
        ),
        passwd(
            "HOME when passwd is a directory",
            7,
            Some("mkdir -p etc/passwd"),
        ),
        passwd(
            "HOME when passwd is a link out of the rootfs",
            0,
            Some("mkdir etc; ln -s ../../../../../../../../../../etc/hostname etc/passwd"),
        ),
        Case::new(3, "HOME that is empty in the spec")
            .spec(|spec| spec.set("/process/env", json!([PATH, "HOME="])))
            .runs(HOME)
            .restored(),
        Case::new(3, "HOME that is set in the spec, and twice")
            .spec(|spec| spec.set("/process/env", json!([PATH, "HOME=/a", "HOME=/b"])))
            .runs(HOME),
        Case::new(3, "HOME of an exec")
            .exec_as("root", HOME, |p| p.set("/env", json!([PATH])))
            .exec_as("a user", HOME, |p| {
                p.set("/env", json!([PATH]))
                    .set("/user", json!({ "uid": 1000, "gid": 1000 }))
            })
            .exec_as("nobody known", HOME, |p| {
                p.set("/env", json!([PATH]))
                    .set("/user", json!({ "uid": 4242, "gid": 0 }))
            })
            .restored(),
        Case::new(3, "an image's NSS library is not loaded")
            .image(EVIL)
            .spec(|spec| spec.set("/process/env", json!([PATH])).user(4242, 0))
            .exec("loaded", "ls -l /evil; tr '\\0' '\\n' < /proc/1/environ"),
    ]
}

/// Whether a container was refused with these words.
pub(super) fn refused_with(seen: &serde_json::Value, words: &str) -> bool {
    let cause = seen["create"]["cause"].as_str();
    cause.is_some_and(|cause| cause.contains(words))
}
