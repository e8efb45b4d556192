//! Texts: the open documents and notebooks, the text around a cursor, exclusion, languages and their syntax.

pub mod closers;
pub mod context;
pub mod document;
pub mod exclusion;
pub mod ignored;
pub mod language;
pub mod notebook;
pub mod position;
pub mod syntax;
