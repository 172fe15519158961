//! A network device between a hostile driver and a host that sends and takes packets.

use super::{driver, input::Input};
use crate::devices::net::fixture::{Bench, CONTROL_BUFFERS, Machine, RX_BUFFERS, TX_BUFFERS};

/// Most packets from the host: the socket that stands in for the tap holds them.
const MAX_SENT: u32 = 16;

/// Chains for each queue, packets from the host, the tap's end.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, input.u64());
    let mut sent = 0;
    while !input.is_empty() {
        match input.u8() % 8 {
            0 | 1 => driver::provoke(&machine.memory, &mut bench.rx, RX_BUFFERS, &mut input),
            2 | 3 => driver::provoke(&machine.memory, &mut bench.tx, TX_BUFFERS, &mut input),
            4 => driver::provoke(&machine.memory, &mut bench.control, CONTROL_BUFFERS, &mut input),
            5 if bench.host.is_some() && sent < MAX_SENT => {
                sent += 1;
                bench.send(&[0x5a; 3000][..usize::from(input.u16()) % 3000]);
            }
            6 => while bench.host.is_some() && bench.arrived().is_some() {},
            _ => drop(bench.host.take_if(|_| input.u8() == 0xff)),
        }
        if bench.run().is_err() {
            return;
        }
    }
}
