//! Counts the words of a text.

use std::collections::HashMap;
use std::io::{self, Read};

/// How often each word occurs.
#[derive(Debug, Default)]
pub struct WordCount {
    counts: HashMap<String, usize>,
    total: usize,
}

impl WordCount {
    /// Counts nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the words of a text, whatever their case.
    pub fn add_text(&mut self, text: &str) {
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            if word.is_empty() {
                continue;
            }
            self.add_word(&word.to_lowercase());
        }
    }

    fn add_word(&mut self, word: &str) {
        *self.counts.entry(word.to_string()).or_insert(0) += 1;
        self.total += 1;
    }

    /// The number of words.
    pub fn total(&self) -> usize {
        self.
    }

    /// The number of different words.
    pub fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// How often a word occurs.
    pub fn count(&self, word: &str) -> usize {
        self.counts.get(word).copied().unwrap_or(0)
    }

    /// Whether no word has been counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The most frequent words, the most frequent first.
    pub fn most_frequent(&self, limit: usize) -> Vec<(&str, usize)> {
        let mut words: Vec<(&str, usize)> = self
            .counts
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        words.truncate(limit);
        words
    }
}

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let mut words = WordCount::new();
    words.add_text(&text);
    for (word, count) in words.most_frequent(10) {
        println!("{count:>6} {word}");
    }
    Ok(())
}
