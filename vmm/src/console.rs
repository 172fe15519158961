//! The guest's serial console: a 16550 whose output is kept, as far as it fits, for error messages.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use vm_superio::{
    Serial, SerialState, Trigger,
    serial::{Error, NoEvents},
};
use vmm_sys_util::eventfd::EventFd;

/// First I/O port of the serial line (COM1).
pub const PORT: u16 = 0x3f8;

/// Last I/O port of the serial line.
pub const LAST_PORT: u16 = PORT + 7;

/// Interrupt line of the serial line.
pub const IRQ: u8 = 4;

/// Largest number of bytes that are kept.
const CAPACITY: usize = 64 << 10;

/// What the guest has written last, shared between its vCPUs and the control socket.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<VecDeque<u8>>>);

impl Output {
    /// All bytes that are kept.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().iter().copied().collect()
    }

    /// Adds a line that the guest has not written; it begins on a new line.
    pub fn add_line(&self, line: &str) {
        let mut ring = self.clone();
        let is_within_line = self.lock().back().is_some_and(|byte| *byte != b'\n');
        let line = format!("{}{line}\n", if is_within_line { "\n" } else { "" });
        // Writing to memory does not fail.
        let _ = ring.write(line.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last whole lines that fit into `limit` bytes, in printable ASCII.
    pub fn last_lines(&self, limit: usize) -> String {
        let bytes = self.bytes();
        let mut tail = &bytes[bytes.len().saturating_sub(limit)..];
        if tail.len() < bytes.len()
            && let Some(newline) = tail.iter().position(|byte| *byte == b'\n')
        {
            tail = &tail[newline + 1..];
        }
        tail.iter().filter(|byte| **byte != b'\r').map(|byte| printable(*byte)).collect()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ring = self.lock();
        let over = (ring.len() + bytes.len()).saturating_sub(CAPACITY).min(ring.len());
        ring.drain(..over);
        ring.extend(&bytes[bytes.len().saturating_sub(CAPACITY)..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a byte of the guest harmless for the terminal on which it is shown.
fn printable(byte: u8) -> char {
    match byte {
        b'\n' | b'\t' | b' '..=b'~' => byte.into(),
        _ => '?',
    }
}

/// The line's interrupt, an irqfd.
#[derive(Debug)]
pub struct Irq(pub EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The 16550.
pub type SerialLine = Serial<Irq, NoEvents, Output>;

/// The state of the serial line in a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    input: Vec<u8>,
}

impl State {
    /// The state that a line has now.
    pub fn of(line: &SerialLine) -> Self {
        let now = line.state();
        Self {
            divisor: [now.baud_divisor_low, now.baud_divisor_high],
            interrupt_enable: now.interrupt_enable,
            interrupt_identification: now.interrupt_identification,
            line_control: now.line_control,
            line_status: now.line_status,
            modem_control: now.modem_control,
            modem_status: now.modem_status,
            scratch: now.scratch,
            input: now.in_buffer,
        }
    }

    /// A line that goes on from this state.
    ///
    /// # Errors
    /// There is more input than a line keeps, or its interrupt cannot be injected.
    pub fn restore(self, irq: Irq, output: Output) -> Result<SerialLine, Error<io::Error>> {
        let state = SerialState {
            baud_divisor_low: self.divisor[0],
            baud_divisor_high: self.divisor[1],
            interrupt_enable: self.interrupt_enable,
            interrupt_identification: self.interrupt_identification,
            line_control: self.line_control,
            line_status: self.line_status,
            modem_control: self.modem_control,
            modem_status: self.modem_status,
            scratch: self.scratch,
            in_buffer: self.input,
        };
        Serial::from_state(&state, irq, NoEvents, output)
    }
}

#[cfg(test)]
#[path = "console_test.rs"]
mod tests;
