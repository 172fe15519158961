//! TCP between the host and a container, over a veth pair whose one end is in the container's network namespace.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::text;
use stockade_tests::netns;

use crate::measure::tsc;

/// The container's end.
const PEER: &str = "10.9.0.2:5000";

/// What is carried in one direction, in bytes.
const BYTES: u64 = 32 << 20;

/// Requests of one byte and their answers, after some that are thrown away.
const ROUND_TRIPS: u64 = 200;

/// What one runtime's network costs.
#[derive(Clone, Copy)]
pub struct Figures {
    /// TSC ticks for [`BYTES`] from the host to the container.
    to_container: u64,
    /// The same the other way.
    from_container: u64,
    /// TSC ticks of one byte there and back.
    pub round_trip: u64,
}

impl Figures {
    /// MB for 1000 M ticks, to the container.
    pub fn rate_to(&self) -> u64 {
        BYTES * 1000 / self.to_container
    }

    /// MB for 1000 M ticks, from the container.
    pub fn rate_from(&self) -> u64 {
        BYTES * 1000 / self.from_container
    }
}

/// A bundle with the server, in a network namespace that is made here.
pub struct Network(Bundle);

impl Network {
    /// Makes the namespace, the pair and the bundle with the program `peer`.
    pub fn prepare(peer: &Path) -> Result<Self> {
        for line in [
            "netns add bench",
            "link add bench0 type veth peer name eth0 netns bench",
            "address add 10.9.0.1/24 dev bench0",
            "link set bench0 up",
            "-n bench address add 10.9.0.2/24 dev eth0",
            "-n bench link set eth0 up",
            "-n bench link set lo up",
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().context("ip")?;
            if !status.success() {
                bail!("ip {line}: {status}");
            }
        }
        let bundle = Bundle::busybox(&["/peer"]).edit(|config| {
            netns::join(config, Path::new("/run/netns/bench"));
        });
        std::fs::copy(peer, bundle.rootfs().join("peer"))?;
        Ok(Self(bundle))
    }

    /// Measures the container of `runtime`, a runtime's command up to its subcommand.
    pub fn measure(&self, runtime: &mut Command) -> Result<Figures> {
        runtime.args(["run", "--bundle", text(self.0.path()), "network"]);
        runtime.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create("/tmp/network.log")?);
        let mut child = runtime.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("{runtime:?}: {line:?}{}", std::fs::read_to_string("/tmp/network.log")?);
        }
        let figures =
            Figures { to_container: send()?, from_container: receive()?, round_trip: round_trips()? };
        connect(b"q")?;
        let status = child.wait()?;
        if !status.success() {
            bail!("{runtime:?}: {status}");
        }
        Ok(figures)
    }
}

fn connect(request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(PEER).context("connect to the container")?;
    stream.set_nodelay(true)?;
    stream.write_all(request)?;
    Ok(stream)
}

fn send() -> Result<u64> {
    let mut stream = connect(b"r")?;
    let buffer = vec![0; 256 << 10];
    let start = tsc();
    for _ in 0..BYTES / buffer.len() as u64 {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(tsc() - start)
}

fn receive() -> Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let start = tsc();
    let mut stream = connect(&[b"s", &BYTES.to_le_bytes()[..]].concat())?;
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    if bytes != BYTES {
        bail!("{bytes} bytes came of {BYTES}");
    }
    Ok(tsc() - start)
}

fn round_trips() -> Result<u64> {
    let mut stream = connect(b"e")?;
    let mut byte = [0];
    let mut start = 0;
    for round in 0..2 * ROUND_TRIPS {
        if round == ROUND_TRIPS {
            start = tsc();
        }
        stream.write_all(b".")?;
        stream.read_exact(&mut byte)?;
    }
    Ok((tsc() - start) / ROUND_TRIPS)
}
