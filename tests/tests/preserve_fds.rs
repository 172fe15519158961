//! Descriptors beyond stdio: `--preserve-fds`, socket activation, and what must not be passed on.

use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, pass, text};
use stockade_tests::host::Snapshot;

#[test]
fn streams_are_relayed_into_the_container() {
    let bundle = Bundle::script(
        "cat <&3 >&4; cat <&5; echo answer >&5; echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; ls /proc/self/fd",
    );
    let stockade = Stockade::new();
    let (input, mut writer) = pipe().expect("pipe");
    let (mut reader, output) = pipe().expect("pipe");
    let (mut ours, theirs) = UnixStream::pair().expect("socket pair");
    let mut command = stockade.command(&["run", "-b", text(bundle.path()), "--preserve-fds", "1", "streams"]);
    // Two of socket activation, as engines pass them, and one more.
    command.env("LISTEN_FDS", "2").env("LISTEN_PID", "1").env("LISTEN_FDNAMES", "in:out");
    pass(&mut command, [input.as_fd(), output.as_fd(), theirs.as_fd()]);
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let sent = bytes.clone();
    let feeder = std::thread::spawn(move || writer.write_all(&sent));
    let received = std::thread::spawn(move || {
        let mut received = vec![0; 800_000];
        reader.read_exact(&mut received).map(|()| received)
    });
    ours.write_all(b"question\n").expect("write");
    ours.shutdown(Shutdown::Write).expect("shutdown");
    let outcome = Outcome::of(&mut command, b"").success();
    assert_eq!(outcome.stdout, "question\n2 1 in:out\n0\n1\n2\n3\n4\n5\n6\n", "6 is ls's own");
    drop(theirs);
    feeder.join().expect("feeder").expect("write");
    assert!(received.join().expect("reader").expect("read") == bytes, "every byte in order");
    let mut answer = [0; 7];
    ours.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"answer\n");
}

#[test]
fn what_is_no_stream_is_refused_before_anything_is_made() {
    let bundle = Bundle::busybox(&["true"]);
    let stockade = Stockade::new();
    let file = File::options().read(true).write(true).open(bundle.rootfs().join("etc/passwd")).expect("open");
    let directory = File::open("/etc").expect("open");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let before = Snapshot::take();
    let refused = |descriptors: &[BorrowedFd<'_>], count: &str, words: &[&str]| {
        let mut command =
            stockade.command(&["run", "-b", text(bundle.path()), "--preserve-fds", count, "refused"]);
        pass(&mut command, descriptors.iter().copied());
        Outcome::of(&mut command, b"").failure(1, words);
    };
    let both = "descriptor 3 is a regular file that is open for both reading and writing (";
    refused(&[file.as_fd()], "1", &["--preserve-fds", both, "/etc/passwd)"]);
    refused(&[directory.as_fd()], "1", &["descriptor 3 is a directory (/etc)"]);
    refused(&[listener.as_fd()], "1", &["descriptor 3 is a listening socket"]);
    refused(&[], "2", &["descriptor 4 is not open"]);
    refused(&[directory.as_fd()], "3", &["directory"]);
    refused(&[], "1000", &["1000", "too many"]);
    before.assert_same_now();
}

#[test]
fn other_inherited_descriptors_reach_neither_relay_nor_vmm() {
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let stockade = Stockade::new();
    let secret = File::create(bundle.path().join("secret")).expect("create");
    let pid_file = bundle.path().join("pid");
    let mut command =
        stockade.command(&["create", "-b", text(bundle.path()), "--pid-file", text(&pid_file), "inherited"]);
    pass(&mut command, [secret.as_fd(); 12]);
    let status = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
    assert!(status.expect("create").success());
    let relay = fs::read_to_string(pid_file).expect("pid file").parse().expect("PID");
    for pid in [relay, stockade.vmm_pid(relay)] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten() {
            let target = fs::read_link(entry.path()).expect("target");
            assert!(!text(&target).contains("secret"), "{} is {}", entry.path().display(), target.display());
        }
    }
    let (input, mut writer) = pipe().expect("pipe");
    writer.write_all(b"for an exec").expect("write");
    drop(writer);
    let mut exec = stockade.command(&["exec", "--preserve-fds", "1", "inherited", "sh", "-c", "cat <&3"]);
    pass(&mut exec, [input.as_fd()]);
    assert_eq!(Outcome::of(&mut exec, b"").success().stdout, "for an exec");

    // As podman passes --preserve-fd 6,7: what is between is not open. Of a file there are the bytes from its place on, and no
    // way back to it: neither to what lies before that, nor to its directory, nor to write.
    let given = bundle.path().join("given");
    fs::write(&given, "not for the guest; content of the file\n").expect("write");
    let mut file = File::open(&given).expect("open");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(19)).expect("seek");
    let written = File::options().append(true).open(&given).expect("open");
    let null = File::options().read(true).write(true).open("/dev/null").expect("open");
    let script = "ls /proc/self/fd; cat <&6; echo from the guest >&8; echo gone >&5; stat -L -c %t:%T /proc/self/fd/5; \
                  for fd in 6 8; do readlink /proc/self/fd/$fd | cut -d : -f 1; done; \
                  cat /proc/self/fd/6; (echo x >&6) 2> /dev/null || echo refused";
    let mut exec = stockade.command(&["exec", "--preserve-fds", "6", "inherited", "sh", "-c", script]);
    pass(&mut exec, [null.as_fd(), null.as_fd(), null.as_fd(), file.as_fd(), null.as_fd(), written.as_fd()]);
    // SAFETY: close is allowed between fork and exec, after the numbers are taken.
    unsafe {
        exec.pre_exec(|| {
            [3, 4, 7].into_iter().for_each(|number| _ = libc::close(number));
            Ok(())
        });
    }
    let outcome = Outcome::of(&mut exec, b"").success();
    // 3 is ls's own.
    let expected = "0\n1\n2\n3\n5\n6\n8\ncontent of the file\n1:3\npipe\npipe\nrefused\n";
    assert_eq!(outcome.stdout, expected, "{outcome:#?}");
    assert_eq!(
        fs::read_to_string(&given).expect("read"),
        "not for the guest; content of the file\nfrom the guest\n"
    );
    stockade.run(&["delete", "--force", "inherited"]).success();
}
