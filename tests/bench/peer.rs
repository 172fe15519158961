//! The container's end of the network benchmark: a server that does what the first byte of a connection asks for.
//!
//! ```text
//!  s   sends as many bytes as the eight that follow say (little-endian)
//!  r   receives up to the end, and answers one byte
//!  e   echoes each byte
//!  q   ends the server
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:5000")?;
    println!("ready");
    for stream in listener.incoming() {
        // The client sees its end early if this fails.
        let _ = serve(stream?);
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    let mut request = [0];
    stream.read_exact(&mut request)?;
    match &request {
        b"s" => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            let mut left = u64::from_le_bytes(length) as usize;
            while left > 0 {
                left -= stream.write(&buffer[..buffer.len().min(left)])?;
            }
            Ok(())
        }
        b"r" => {
            while stream.read(&mut buffer)? > 0 {}
            stream.write_all(b"!")
        }
        b"q" => std::process::exit(0),
        _ => loop {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
        },
    }
}
