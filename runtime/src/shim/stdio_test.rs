use std::io::Write;

use nix::sys::stat::Mode;

use super::*;

fn names(stdin: &str, stdout: &str, stderr: &str) -> Names {
    Names { stdin: stdin.to_owned(), stdout: stdout.to_owned(), stderr: stderr.to_owned(), terminal: false }
}

fn no_logger(_: &mut Command) -> io::Result<i32> {
    Err(io::ErrorKind::Unsupported.into())
}

#[test]
fn a_client_that_leaves_ends_no_stream() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    for name in ["in", "out"] {
        nix::unistd::mkfifo(at(name).as_str(), Mode::S_IRWXU).expect("FIFO");
    }
    let log = format!("file://{}", at("new/log"));
    let (streams, mut kept) =
        open(&names(&at("in"), &at("out"), &log), ["id", "ns"], no_logger).expect("streams");
    // Nobody reads yet: what is written stays for who comes.
    File::from(streams.stdout).write_all(b"output").expect("write");
    File::from(streams.stderr).write_all(b"error").expect("write");
    assert_eq!(fs::read_to_string(at("new/log")).expect("log"), "error");
    let mut output = String::new();
    let mut reader =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(at("out")).expect("open");
    reader.read_to_string(&mut output).expect("read");
    assert_eq!(output, "output");
    // A writer that comes and goes leaves the input open until CloseIO.
    OpenOptions::new().write(true).open(at("in")).expect("open").write_all(b"input").expect("write");
    let mut input = File::from(streams.stdin);
    let mut bytes = [0; 8];
    assert_eq!(input.read(&mut bytes).expect("read"), 5);
    kept.input = None;
    assert_eq!(input.read(&mut bytes).expect("read"), 0);
}

#[test]
fn streams_have_names_of_five_kinds() {
    let parse = |name| Target::parse(name).map_err(|error| error.to_string());
    assert_eq!(parse(""), Ok(Target::Nothing));
    assert_eq!(parse("/a/b"), Ok(Target::Path("/a/b".into())));
    assert_eq!(parse("file:///a%20b"), Ok(Target::Log("/a b".into())));
    let words = ["id", "x y", "flag"].map(str::to_owned).to_vec();
    assert_eq!(parse("binary:///bin/log?id=x+y&flag"), Ok(Target::Logger("/bin/log".into(), words)));
    assert!(parse("npipe:///a").expect_err("unknown").contains("npipe://"));
    assert!(parse("file://a").expect_err("relative").contains("absolute"));
    let error = open(&names("file:///a", "", ""), ["id", "ns"], no_logger).expect_err("input").to_string();
    assert!(error.contains("is for output"), "{error}");
}
