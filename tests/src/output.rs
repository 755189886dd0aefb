//! The one place where the harness prints.
#![allow(clippy::print_stdout)]

use std::fmt::Display;

/// A line on standard output.
pub fn say(text: impl Display) {
    println!("{text}");
}

/// The title of a step of the demo.
pub fn step(number: u32, title: &str) {
    println!("\n== {number}. {title}");
}

/// A command that works as pasted.
pub fn hint(command: impl Display) {
    println!("   $ {command}");
}
