//! Shapes.
#![allow(x)]

use std::fmt;
use std::io::{
    self, Read,
};
mod inner;

/// Pixels.
const LIMIT: usize = 10;

/// Adds up.
///
/// More.
#[must_use]
// note
pub fn area<T>(width: T) -> T
where
    T: Copy,
{
    width
}

#[derive(Debug)]
pub struct Shape {
    name: String,
}
struct Meters(f64);

impl<T> fmt::Display for Shape<T> {
    /// Doc.
    fn fmt(&self) -> fmt::Result {
        Ok(())
    }
}
pub trait Sized {
    fn size(&self) -> usize;
}
macro_rules! m { () => {}; }
#[cfg(test)]
mod tests {
    #[test]
    fn a() {}
}
