//! The serial line.

use core::fmt::{Result, Write};

use crate::cpu;

const PORT: u16 = 0x3f8;

/// Where [`say!`](crate::say) writes.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> Result {
        text.bytes().for_each(|byte| cpu::out8(PORT, byte));
        Ok(())
    }
}

/// Writes a line to the console.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
