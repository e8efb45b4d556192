//! Typing through an earlier answer: its rest is shown without asking the model.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::text::context::{Context, Trigger};

/// Earlier answers, by where they were given.
#[derive(Debug)]
pub struct CompletionCache {
    /// Searched in full.
    answers: LruCache<Place, Answer>,
}

#[derive(Debug)]
struct Answer {
    texts: Vec<String>,
    trigger: Trigger,
}

/// All that the model saw. Two equal places have equal answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    uri: String,
    prefix_start: usize,
    prefix: String,
    suffix: String,
}

impl Default for CompletionCache {
    fn default() -> Self {
        const ANSWERS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
        Self {
            answers: LruCache::new(ANSWERS),
        }
    }
}

impl CompletionCache {
    /// Keeps an answer.
    pub fn put(&mut self, uri: &str, context: &Context, trigger: Trigger, texts: Vec<String>) {
        let place = Place {
            uri: uri.to_owned(),
            prefix_start: context.prefix_start,
            prefix: context.prefix.clone(),
            suffix: context.suffix.clone(),
        };
        self.answers.put(place, Answer { texts, trigger });
    }

    /// The rest of an answer to an earlier place, if all that was typed since is how it began. Of
    /// several answers the latest counts, and of its texts those that match.
    ///
    /// An invoked request asks for more than is there already, so it gets only an invoked answer to
    /// the same place: VS Code sends a new request at each step from candidate to candidate.
    pub fn get(&mut self, uri: &str, context: &Context, trigger: Trigger) -> Option<Vec<String>> {
        let (place, rests) = self.answers.iter().find_map(|(place, answer)| {
            // Lengths first: they rule out most answers, whose texts are long.
            let (before, typed) = context.prefix.split_at_checked(place.prefix.len())?;
            let enough = trigger == Trigger::Automatic
                || answer.trigger == Trigger::Invoked && typed.is_empty();
            let texts = &answer.texts;
            let same = enough
                && texts.iter().any(|text| text.len() > typed.len())
                && place.uri == uri
                && place.prefix_start == context.prefix_start
                && place.suffix == context.suffix
                && place.prefix == before;
            if !same {
                return None;
            }
            let rests = texts.iter().filter_map(|text| text.strip_prefix(typed));
            let rests: Vec<String> = rests
                .filter(|rest| !rest.trim().is_empty())
                .map(str::to_owned)
                .collect();
            (!rests.is_empty()).then(|| (place.clone(), rests))
        })?;
        self.answers.promote(&place);
        Some(rests)
    }

    /// Removes everything, as after a change of the model.
    pub fn clear(&mut self) {
        self.answers.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Trigger::{Automatic, Invoked};
    use super::*;
    use crate::engine::stop::Scope;

    fn context(text: &str) -> Context {
        let (prefix, suffix) = text.split_once("$0").unwrap();
        Context {
            file_name: "a.rs".to_owned(),
            prefix: prefix.to_owned(),
            prefix_start: 0,
            dropped: Vec::new(),
            suffix: suffix.to_owned(),
            scope: Scope::Line,
        }
    }

    fn check(given: &str, texts: &[&str], asked: &str, expected: Option<&[&str]>) {
        let mut cache = CompletionCache::default();
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        cache.put("a", &context(given), Automatic, texts);
        let rests = cache.get("a", &context(asked), Automatic);
        let rests = rests
            .as_ref()
            .map(|rests| rests.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(rests.as_deref(), expected);
        assert_eq!(cache.get("b", &context(asked), Automatic), None);
    }

    #[test]
    fn typing_through_shows_the_rest() {
        check("let x = $0;", &["a + b"], "let x = $0;", Some(&["a + b"]));
        check("let x = $0;", &["a + b"], "let x = a +$0;", Some(&[" b"]));
    }

    #[test]
    fn typing_something_else_shows_nothing() {
        check("let x = $0;", &["a + b"], "let x = c$0;", None);
    }

    #[test]
    fn an_answer_typed_to_its_end_is_over() {
        check("let x = $0;", &["a + b"], "let x = a + b$0;", None);
        check("let x = $0;", &["a + b\n"], "let x = a + b$0;", None);
    }

    #[test]
    fn another_text_after_the_cursor_is_another_place() {
        check("let x = $0;", &["a + b"], "let x = a$0);", None);
    }

    #[test]
    fn candidates_that_match_stay() {
        check(
            "f($0",
            &["a, b)", "c)", "a)"],
            "f(a$0",
            Some(&[", b)", ")"]),
        );
    }

    #[test]
    fn the_latest_answer_counts() {
        let mut cache = CompletionCache::default();
        cache.put("a", &context("f($0"), Automatic, vec!["abc)".to_owned()]);
        cache.put("a", &context("f(a$0"), Automatic, vec!["xy)".to_owned()]);
        assert_eq!(
            cache.get("a", &context("f(a$0"), Automatic),
            Some(vec!["xy)".to_owned()])
        );
        assert_eq!(
            cache.get("a", &context("f(ab$0"), Automatic),
            Some(vec!["c)".to_owned()])
        );
        cache.clear();
        assert_eq!(cache.get("a", &context("f(ab$0"), Automatic), None);
    }

    #[test]
    fn an_invoked_request_gets_only_an_invoked_answer_to_the_same_place() {
        let mut cache = CompletionCache::default();
        cache.put("a", &context("f($0"), Automatic, vec!["abc)".to_owned()]);
        assert_eq!(cache.get("a", &context("f($0"), Invoked), None);
        let candidates = vec!["abc)".to_owned(), "b)".to_owned()];
        cache.put("a", &context("f($0"), Invoked, candidates.clone());
        assert_eq!(cache.get("a", &context("f(a$0"), Invoked), None);
        assert_eq!(cache.get("a", &context("f($0"), Invoked), Some(candidates));
        assert_eq!(
            cache.get("a", &context("f(a$0"), Automatic),
            Some(vec!["bc)".to_owned()])
        );
    }

    proptest! {
        #[test]
        fn shown_text_is_always_what_was_answered(
            text in "[ab]{0,6}", answer in "[ab]{1,6}", typed in "[ab]{0,6}",
        ) {
            let mut cache = CompletionCache::default();
            cache.put("a", &context(&format!("{text}$0")), Automatic, vec![answer.clone()]);
            if let Some(rests) = cache.get("a", &context(&format!("{text}{typed}$0")), Automatic) {
                prop_assert_eq!(format!("{typed}{}", rests[0]), answer);
            }
        }
    }
}
