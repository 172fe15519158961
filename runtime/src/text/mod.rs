//! Values as people write and read them: amounts, times, columns, and text that cannot control a terminal.

pub mod bytes;
pub mod json;
pub mod local_time;
pub mod table;
