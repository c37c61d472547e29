use super::*;
use std::fs::File;
use std::io::{Read, Write};

fn fifo(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Reads a FIFO to its end, as containerd does.
fn reader(path: &str) -> JoinHandle<Vec<u8>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        File::open(path).unwrap().read_to_end(&mut all).unwrap();
        all
    })
}

async fn opened(paths: &Paths) -> Opened {
    paths.open(&Reaper::default(), "ns", "id").await.unwrap()
}

#[tokio::test]
async fn large_output_is_complete_and_both_streams_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        stdout: fifo(dir.path(), "out"),
        stderr: fifo(dir.path(), "err"),
        ..Default::default()
    };
    let (out, err) = (reader(&paths.stdout), reader(&paths.stderr));
    let opened = opened(&paths).await;
    let (theirs, ours) = opened.pipes(None).unwrap();
    let mut copying = opened.copy(ours, None).unwrap();
    let writer = tokio::task::spawn_blocking(move || {
        let mut stdout = File::from(theirs.stdout.unwrap());
        for n in 0..200_000_u32 {
            writeln!(stdout, "line {n}").unwrap();
        }
        File::from(theirs.stderr.unwrap())
            .write_all(b"oops")
            .unwrap();
    });
    writer.await.unwrap();
    assert!(copying.drain(Duration::from_secs(5)).await);
    drop(copying);
    let text = String::from_utf8(out.await.unwrap()).unwrap();
    assert_eq!(text.lines().count(), 200_000);
    assert!(text.ends_with("line 199999\n"));
    assert_eq!(err.await.unwrap(), b"oops");
}

#[tokio::test]
async fn a_process_that_inherited_the_pipe_does_not_hold_up_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        stdout: fifo(dir.path(), "out"),
        ..Default::default()
    };
    let out = reader(&paths.stdout);
    let opened = opened(&paths).await;
    let (theirs, ours) = opened.pipes(None).unwrap();
    let mut copying = opened.copy(ours, None).unwrap();
    let mut stdout = File::from(theirs.stdout.unwrap());
    stdout.write_all(b"last words").unwrap();
    let began = std::time::Instant::now();
    assert!(copying.drain(Duration::from_secs(5)).await);
    assert!(began.elapsed() < Duration::from_secs(1));
    drop(copying);
    assert_eq!(out.await.unwrap(), b"last words");
    drop(stdout);
}

#[tokio::test]
async fn input_ends_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        stdin: fifo(dir.path(), "in"),
        ..Default::default()
    };
    let opened = opened(&paths).await;
    let (theirs, ours) = opened.pipes(None).unwrap();
    let mut copying = opened.copy(ours, None).unwrap();
    let mut client = File::options().write(true).open(&paths.stdin).unwrap();
    client.write_all(b"typed").unwrap();
    drop(client);
    copying.close_input();
    let read = tokio::task::spawn_blocking(move || {
        let mut all = String::new();
        File::from(theirs.stdin.unwrap())
            .read_to_string(&mut all)
            .unwrap();
        all
    });
    assert_eq!(read.await.unwrap(), "typed");
}

#[tokio::test]
async fn a_file_gets_both_streams() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("logs/container.log");
    let paths = Paths {
        stdout: format!("file://{}", log.display()),
        ..Default::default()
    };
    let opened = opened(&paths).await;
    let (theirs, ours) = opened.pipes(None).unwrap();
    let mut copying = opened.copy(ours, None).unwrap();
    File::from(theirs.stdout.unwrap())
        .write_all(b"out")
        .unwrap();
    File::from(theirs.stderr.unwrap())
        .write_all(b"err")
        .unwrap();
    assert!(copying.drain(Duration::from_secs(5)).await);
    assert_eq!(std::fs::read_to_string(log).unwrap().len(), 6);
}

#[tokio::test]
async fn an_unknown_scheme_is_refused() {
    let paths = Paths {
        stdout: "gopher://x".into(),
        ..Default::default()
    };
    let error = paths
        .open(&Reaper::default(), "ns", "id")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
}
