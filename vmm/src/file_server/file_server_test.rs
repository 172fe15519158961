use std::{
    fs::{self, File},
    io::{IoSlice, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt, unix::net::UnixStream},
    thread,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use stockade_protocol::{
    frame,
    vmm::{FilesRequest, FilesResponse, Hello, HelloReply, VERSION},
};

use super::*;

/// A child that does `body` and its end, as the VMM sees it.
fn child(body: impl FnOnce()) -> Process {
    let (words, stderr) = io::pipe().unwrap();
    // SAFETY: the child only makes system calls and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            dup2_stderr(&stderr).unwrap();
            body();
            exit()
        }
        ForkResult::Parent { child } => {
            drop(stderr);
            let pidfd = Pidfd::open(child.as_raw()).unwrap();
            let memory = File::open("/proc/self/smaps_rollup").unwrap();
            Process { pid: child, pidfd, words: File::from(OwnedFd::from(words)), memory }
        }
    }
}

#[test]
fn how_it_ended_is_told_with_what_it_said() {
    let said = child(|| drop(io::stderr().write_all(b"no\tmemory\n"))).final_output();
    assert_eq!(said, "the file server exited with status 1: no memory");
    let killed = child(|| {
        // SAFETY: it ends the process.
        unsafe { libc::kill(libc::getpid(), libc::SIGSYS) };
    });
    assert_eq!(killed.final_output(), "the file server was killed by signal 31 (SIGSYS)");
}

/// The main thread on a thread of this process, and a connection to it.
fn connection() -> (UnixStream, Arc<FileServer>) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("files")).unwrap();
    let mut stream = UnixStream::connect(directory.path().join("files")).unwrap();
    frame::write(&mut stream, &Hello::new(VERSION)).unwrap();
    let server = Arc::new(FileServer::new(path("/proc/self/fd").into(), Limits::default()));
    let served = Arc::clone(&server);
    thread::spawn(move || requests::serve(&listener, &served));
    // The first answer comes after a welcome.
    let none = FilesRequest::AddTrees { share: "none".into(), names: Vec::new() };
    frame::write(&mut stream, &none).unwrap();
    let welcome: HelloReply = frame::read(&mut stream, frame::HOST_LIMIT).unwrap().unwrap();
    assert_eq!(welcome, HelloReply::Welcome);
    let answer: FilesResponse = frame::read(&mut stream, frame::HOST_LIMIT).unwrap().unwrap();
    assert!(matches!(answer, FilesResponse::Error(_)));
    (stream, server)
}

fn path(path: &str) -> File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap()
}

fn ask(stream: &UnixStream, request: &FilesRequest, trees: &[RawFd]) -> FilesResponse {
    let frame = frame::encode(request).unwrap();
    let rights = [ControlMessage::ScmRights(trees)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&frame)], &rights, MsgFlags::empty(), None);
    assert_eq!(sent.unwrap(), frame.len());
    frame::read(&mut &*stream, frame::HOST_LIMIT).unwrap().unwrap()
}

fn add(count: usize, names: usize) -> FilesRequest {
    let names = (0..names).map(|index| format!("{index}-{}", "n".repeat(200))).collect();
    FilesRequest::AddTrees { share: format!("s{count}"), names }
}

#[test]
fn any_number_of_trees_comes_in_pieces() {
    let (stream, server) = connection();
    let share = FilesRequest::AddShare { name: "s0".into() };
    assert_eq!(ask(&stream, &share, &[]), FilesResponse::Done);
    assert!(matches!(ask(&stream, &share, &[]), FilesResponse::Error(_)), "there is one");
    let directory = path("/");
    let trees = vec![directory.as_raw_fd(); 250];
    for _ in 0..2 {
        assert_eq!(ask(&stream, &add(0, 250), &trees), FilesResponse::Done);
    }
    let wrong = ask(&stream, &add(0, 3), &trees[..2]);
    assert!(matches!(&wrong, FilesResponse::Error(e) if e.contains("3 names")), "{wrong:?}");
    assert_eq!(ask(&stream, &FilesRequest::RemoveShare { name: "s0".into() }, &[]), FilesResponse::Done);
    assert!(server.uses().is_empty());
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let (stream, _server) = connection();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let request = FilesRequest::RemoveShare { name: "s".into() };
    assert!(matches!(ask(&stream, &request, &[theirs.as_raw_fd()]), FilesResponse::Error(_)));
    drop(theirs);
    assert_eq!(io::Read::read(&mut &ours, &mut [0; 1]).unwrap(), 0);
}
