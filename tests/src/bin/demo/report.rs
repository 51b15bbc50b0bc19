//! What a person sees of the demonstration while it runs.

use std::io::{self, Write};
use std::time::Instant;

use rsip_lab::lab::Result;

/// Numbers the steps.
pub(crate) struct Report {
    step: usize,
    steps: usize,
}

impl Report {
    /// A report of so many steps.
    pub(crate) const fn new(steps: usize) -> Self {
        Self { step: 0, steps }
    }

    /// A new step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n[{}/{}] {title}", self.step, self.steps);
    }

    /// Does a part of the step: what, then how it went and how long it took.
    ///
    /// # Errors
    /// The part's own.
    pub(crate) fn part<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        print!("[{}/{}]   {what} … ", self.step, self.steps);
        // What is not shown now is shown with the next line.
        io::stdout().flush().unwrap_or_default();
        let start = Instant::now();
        let outcome = work();
        match &outcome {
            Ok(_) => println!("ok ({:.1} s)", start.elapsed().as_secs_f32()),
            Err(_) => println!("FAILED"),
        }
        outcome
    }

    /// Shows what a program printed, under its command line.
    pub(crate) fn show(&self, command: &str, text: &str) {
        println!("\n      # {command}");
        for line in text.trim_end().lines() {
            println!("      {line}");
        }
    }
}
