use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::*;

#[test]
fn streams_are_told_from_what_cannot_be_relayed() {
    let (reader, writer) = io::pipe().unwrap();
    assert_eq!(kind(reader.as_fd()), Ok(StreamKind::Input));
    assert_eq!(kind(writer.as_fd()), Ok(StreamKind::Output));
    assert_eq!(kind(UnixStream::pair().unwrap().0.as_fd()), Ok(StreamKind::Socket));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(kind(client.as_fd()), Ok(StreamKind::Socket));
    let pty = nix::pty::openpty(None, None).unwrap();
    assert_eq!(kind(pty.slave.as_fd()), Ok(StreamKind::Socket));

    let directory = tempfile::tempdir().unwrap();
    let named = UnixListener::bind(directory.path().join("socket")).unwrap();
    assert_eq!(kind(listener.as_fd()), Err("a listening socket"));
    assert_eq!(kind(named.as_fd()), Err("a listening socket"));
    assert_eq!(kind(UnixDatagram::pair().unwrap().0.as_fd()), Err("a socket that is not a stream"));
    assert_eq!(kind(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()), Err("a socket that is not a stream"));
    assert_eq!(kind(File::open("/dev/zero").unwrap().as_fd()), Err("a device"));
    assert_eq!(kind(File::open("/").unwrap().as_fd()), Err("a directory"));
    assert_eq!(kind(File::open("/dev/null").unwrap().as_fd()), Ok(StreamKind::Null));
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = |flags: i32| {
        let options = File::options().read(true).write(true).clone();
        let mut options = if flags == libc::O_PATH { File::options().read(true).clone() } else { options };
        options.custom_flags(flags).open(file.path()).unwrap()
    };
    assert_eq!(kind(File::open(file.path()).unwrap().as_fd()), Ok(StreamKind::Input));
    assert_eq!(kind(File::options().append(true).open(file.path()).unwrap().as_fd()), Ok(StreamKind::Output));
    assert_eq!(kind(open(0).as_fd()), Err("a regular file that is open for both reading and writing"));
    assert_eq!(kind(open(libc::O_PATH).as_fd()), Err("a path"));
    let signals = nix::sys::signalfd::SignalFd::new(&nix::sys::signal::SigSet::empty()).unwrap();
    assert_eq!(kind(signals.as_fd()), Err("not a stream"));
}

#[test]
fn what_this_process_has_opened_itself_is_not_passed_on() {
    let own = File::open("/dev/null").unwrap();
    let taken = take(own.as_raw_fd()).unwrap();
    assert!(taken.fd.is_none() && taken.kind == StreamKind::Closed);
    assert!(matches!(Preserved::take(101).unwrap_err(), PreserveError::TooMany(101)));
}

#[test]
fn socket_activation_counts_where_it_is_meant_for_this_process() {
    let count = |pid: Option<u32>| {
        activated(&|name| match name {
            "LISTEN_FDS" => Some("2".to_owned()),
            "LISTEN_PID" => pid.map(|pid| pid.to_string()),
            _ => None,
        })
    };
    assert_eq!([None, Some(1), Some(std::process::id()), Some(u32::MAX)].map(count), [2, 2, 2, 0]);
    assert_eq!(activated(&|_| None), 0);
}
