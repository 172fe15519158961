//! The streams of Exec, Attach and PortForward: WebSockets at the address that the CRI answers with.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Longest that one awaited message may take before its test fails.
const LIMIT: Duration = Duration::from_secs(180);

/// The channels of Exec and Attach, by the first byte of each message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// The streams of a process.
pub struct Streams {
    socket: WebSocket<TcpStream>,
    /// Standard output so far.
    pub stdout: String,
    /// Standard error so far.
    pub stderr: String,
    /// What the server says of the end.
    pub status: String,
}

impl Streams {
    /// Opens those at `url`.
    pub fn open(url: &str) -> Self {
        let socket = connect(url);
        Self { socket, stdout: String::new(), stderr: String::new(), status: String::new() }
    }

    /// Writes to standard input.
    pub fn send(&mut self, text: &str) {
        self.write(STDIN, text);
    }

    /// Sets the size of the terminal.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.write(SIZE, &format!("{{\"Width\":{columns},\"Height\":{rows}}}"));
    }

    /// Reads until standard output holds `text`.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        while !self.stdout.contains(text) {
            assert!(self.read(), "the stream has ended without {text:?}: {:?} {}", self.stdout, self.status);
        }
    }

    /// Reads to the end.
    pub fn finish(mut self) -> Self {
        while self.read() {}
        self
    }

    fn write(&mut self, channel: u8, text: &str) {
        let message = [&[channel], text.as_bytes()].concat();
        self.socket.send(Message::binary(message)).expect("send to the stream");
    }

    /// Reads one message; `false` at the end.
    fn read(&mut self) -> bool {
        let Some(data) = next(&mut self.socket) else { return false };
        let Some((channel, text)) = data.split_first() else { return true };
        let text = String::from_utf8_lossy(text);
        match *channel {
            STDOUT => self.stdout += &text,
            STDERR => self.stderr += &text,
            STATUS => self.status += &text,
            other => panic!("channel {other} says {text:?}"),
        }
        true
    }
}

/// A connection to a port of a pod.
pub struct Forward(WebSocket<TcpStream>);

impl Forward {
    /// Connects to `port` by what PortForward has answered.
    pub fn open(url: &str, port: u16) -> Self {
        Self(connect(&format!("{url}?port={port}")))
    }

    /// Sends a request and reads what comes until the other side closes or `end` has come.
    pub fn ask(&mut self, request: &str, end: &str) -> String {
        const DATA: u8 = 0;
        const ERROR: u8 = 1;
        self.0.send(Message::binary([&[DATA], request.as_bytes()].concat())).expect("send");
        let (mut answer, mut begun) = (String::new(), [false; 2]);
        while !answer.contains(end) {
            let Some(data) = next(&mut self.0) else { break };
            let Some((&channel, data)) = data.split_first() else { continue };
            // Each of both channels begins with the port's number.
            if !std::mem::replace(&mut begun[usize::from(channel)], true) {
                continue;
            }
            let text = String::from_utf8_lossy(data);
            assert_ne!(channel, ERROR, "the server says {text:?}");
            answer += &text;
        }
        answer
    }
}

fn connect(url: &str) -> WebSocket<TcpStream> {
    let url = url.replacen("http://", "ws://", 1);
    let mut request = url.as_str().into_client_request().expect("the address of a stream");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().expect("name of a protocol"));
    let authority = request.uri().authority().expect("host and port").to_string();
    let stream = TcpStream::connect(authority).expect("connect to the streaming server");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    tungstenite::client(request, stream).unwrap_or_else(|e| panic!("{url}: {e}")).0
}

/// The next message; `None` at the end.
fn next(socket: &mut WebSocket<TcpStream>) -> Option<Vec<u8>> {
    match socket.read() {
        Ok(Message::Binary(data)) => Some(data.to_vec()),
        Ok(Message::Text(text)) => Some(text.as_str().as_bytes().to_vec()),
        Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Some(Vec::new()),
        Ok(Message::Close(_)) => None,
        Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => None,
        Err(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => None,
        Err(e) => panic!("the stream is broken: {e}"),
    }
}
