//! The outcome of each request: law "every silence has a reason".

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::engine::request::Stats;
use crate::text::context::NothingToAsk;

/// How many records are kept.
const KEPT: usize = 256;

/// One request and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts the requests from 1.
    pub id: u64,
    /// The file's base name.
    pub file_name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// What it cost. Nothing if the model was not asked.
    pub stats: Stats,
    /// The time from its beginning to its end.
    pub total: Duration,
    /// What the user did with it, as far as the client reports it.
    pub acceptance: Option<Acceptance>,
}

/// What a user did with a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Saw it.
    Shown,
    /// Accepted this many UTF-16 units of the item's text.
    Part(usize),
    /// Accepted all of it.
    Whole,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this many texts from the model.
    Written(usize),
    /// With this many texts from an earlier answer.
    TypedThrough(usize),
    /// With nothing to show.
    Silent(Silence),
}

/// Why nothing was shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The user switched it off.
    #[error("completion is switched off{0}")]
    Disabled(&'static str),
    /// The file is excluded.
    #[error("files that match {0} are not shown to the model")]
    Excluded(String),
    /// The client asked about a document it had not opened.
    #[error("the document is not open")]
    NotOpen,
    /// A change of the document was lost.
    #[error("the server's text of this document is out of step; close and open it again")]
    OutOfStep,
    /// The model is not worth asking at the cursor.
    #[error(transparent)]
    NothingToAsk(#[from] NothingToAsk),
    /// The model is not ready yet.
    #[error("the model is not ready: {0}")]
    Loading(String),
    /// There is no model.
    #[error("there is no model: {0}")]
    NoModel(String),
    /// The model failed.
    #[error("{0}")]
    Failed(String),
    /// A rule dropped what the model wrote.
    #[error("what the model wrote was dropped: {0}")]
    Dropped(&'static str),
    /// A newer request took its place.
    #[error("a newer request took its place")]
    Superseded,
    /// The settings changed, or another model took over, while the model wrote.
    #[error("the settings or the model changed meanwhile")]
    Reconfigured,
    /// The document changed while the model wrote.
    #[error("the document changed meanwhile")]
    Stale,
    /// The client cancelled it.
    #[error("the client cancelled the request")]
    Cancelled,
}

impl Silence {
    /// Whether the request ended undecided, so that what is shown may stay.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(
            self,
            Self::Loading(_)
                | Self::Superseded
                | Self::Reconfigured
                | Self::Stale
                | Self::Cancelled
        )
    }
}

/// As the command `interline.why` returns it.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let Stats {
            reused,
            computed,
            generated,
            queued,
            prompt,
            prefill,
            decode,
            model,
        } = self.stats;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("message", &self.to_string())?;
        map.serialize_entry("reused", &reused)?;
        map.serialize_entry("computed", &computed)?;
        map.serialize_entry("generated", &generated)?;
        map.serialize_entry("queuedMs", &ms(queued))?;
        map.serialize_entry("promptMs", &ms(prompt))?;
        map.serialize_entry("prefillMs", &ms(prefill))?;
        map.serialize_entry("decodeMs", &ms(decode))?;
        map.serialize_entry("modelMs", &ms(model))?;
        map.serialize_entry("totalMs", &ms(self.total))?;
        map.end()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            reused,
            computed,
            generated,
            model,
            ..
        } = self.stats;
        write!(f, "#{} in {}: ", self.id, self.file_name)?;
        match &self.outcome {
            Outcome::Written(texts) => write!(f, "{texts} shown")?,
            Outcome::TypedThrough(texts) => write!(f, "{texts} shown, typed through")?,
            Outcome::Silent(silence) => write!(f, "nothing shown, because {silence}")?,
        }
        write!(
            f,
            " ({:.1} ms, of which {:.1} in the model; {reused} prompt tokens reused, {computed} \
             computed, {generated} written)",
            self.total.as_secs_f64() * 1e3,
            model.as_secs_f64() * 1e3,
        )?;
        match self.acceptance {
            None => Ok(()),
            Some(Acceptance::Shown) => write!(f, ", seen"),
            Some(Acceptance::Part(length)) => write!(f, ", {length} UTF-16 units taken"),
            Some(Acceptance::Whole) => write!(f, ", taken"),
        }
    }
}

/// The latest records.
#[derive(Debug, Default)]
pub struct Records {
    last_id: u64,
    records: VecDeque<Record>,
}

impl Records {
    /// The id for a new request.
    pub fn begin(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Keeps the record of a request that has ended.
    pub fn end(&mut self, record: Record) {
        tracing::debug!("{record}");
        self.records.truncate(KEPT - 1);
        self.records.push_front(record);
    }

    /// Records what the user did with what request `id` showed.
    pub fn accept(&mut self, id: u64, acceptance: Acceptance) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            record.acceptance = Some(acceptance);
        }
    }

    /// The records, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, outcome: Outcome) -> Record {
        Record {
            id,
            file_name: "a.rs".to_owned(),
            outcome,
            stats: Stats {
                computed: 2,
                ..Stats::default()
            },
            total: Duration::from_micros(1500),
            acceptance: None,
        }
    }

    #[test]
    fn a_record_says_why() {
        let silent = Outcome::Silent(Silence::Dropped("nothing but whitespace"));
        assert_eq!(
            record(3, silent).to_string(),
            "#3 in a.rs: nothing shown, because what the model wrote was dropped: nothing but \
             whitespace (1.5 ms, of which 0.0 in the model; 0 prompt tokens reused, 2 computed, 0 \
             written)"
        );
    }

    #[test]
    fn the_latest_are_kept() {
        let mut records = Records::default();
        for _ in 0..300 {
            let id = records.begin();
            records.end(record(id, Outcome::Written(1)));
        }
        records.accept(299, Acceptance::Part(5));
        records.accept(1, Acceptance::Whole);
        let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
        assert_eq!((ids.len(), ids[0], ids[255]), (256, 300, 45));
        let accepted = records.iter().filter(|record| record.acceptance.is_some());
        assert_eq!(accepted.count(), 1);
    }
}
