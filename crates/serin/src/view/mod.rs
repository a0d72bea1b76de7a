//! The screens: objects in, text or JSON out. Pure, so that each can be tested as data in and data out.

pub(crate) mod history;
pub(crate) mod release;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod why;
