//! Small answers that were given, for the next one who asks the same: replicas of one revision ask for the same segments.
//!
//! An answer with certain pages of a certain revision is always the same, so nothing here is ever out of date. Whether the revision
//! may be told, and is kept, is for the caller to find out first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;
use partial_sync_core::{PageNo, Revision};

/// Bytes that are kept in all, of answers and of what was asked.
const MOST: usize = 8 << 20;

/// Pages of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// [`States::namespace`](crate::states::States::namespace): no two databases have it and the revision in common.
    pub(super) namespace: u64,
    pub(super) revision: Revision,
    pub(super) pages: Vec<PageNo>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Given(RwLock<Answers>);

#[derive(Debug, Default)]
struct Answers {
    by_request: HashMap<Arc<Asked>, Bytes>,
    /// The oldest is let go of first.
    in_order: VecDeque<Arc<Asked>>,
    bytes: usize,
}

impl Given {
    /// The answer, if it was given lately.
    pub(super) fn find(&self, asked: &Asked) -> Option<Bytes> {
        self.0.read().by_request.get(asked).cloned()
    }

    /// Keeps an answer.
    pub(super) fn keep(&self, asked: Asked, answer: &Bytes) {
        let asked = Arc::new(asked);
        let mut answers = self.0.write();
        // Somebody else may have asked the same meanwhile.
        if answers.by_request.contains_key(&asked) {
            return;
        }
        answers.bytes += size(&asked, answer);
        answers.in_order.push_back(Arc::clone(&asked));
        answers.by_request.insert(asked, answer.clone());
        while answers.bytes > MOST
            && let Some(oldest) = answers.in_order.pop_front()
        {
            if let Some(answer) = answers.by_request.remove(&oldest) {
                answers.bytes -= size(&oldest, &answer);
            }
        }
    }
}

fn size(asked: &Asked, answer: &Bytes) -> usize {
    const AROUND: usize = 256;
    AROUND + asked.pages.len() * size_of::<PageNo>() + answer.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v22_answers_that_are_kept_have_bounds_and_the_oldest_go_first() {
        let given = Given::default();
        let asked = |seq: u64| Asked {
            namespace: 0,
            revision: Revision::new(format!("one-{seq}")).unwrap(),
            pages: vec![PageNo::FIRST],
        };
        let answer = Bytes::from(vec![0; 256 << 10]);
        for seq in 1..=100 {
            given.keep(asked(seq), &answer);
            given.keep(asked(seq), &answer);
            assert!(given.find(&asked(seq)).is_some());
        }
        let kept = (1..=100).filter(|seq| given.find(&asked(*seq)).is_some());
        assert!(kept.eq(70..=100), "31 and their requests fit");
        let answers = given.0.read();
        let sizes = answers
            .by_request
            .iter()
            .map(|(asked, answer)| size(asked, answer));
        assert_eq!(answers.bytes, sizes.sum::<usize>());
        assert_eq!(answers.in_order.len(), answers.by_request.len());
        let other = Asked {
            revision: Revision::new("two-100").unwrap(),
            ..asked(100)
        };
        assert!(given.find(&other).is_none());
        let elsewhere = Asked {
            namespace: 1,
            ..asked(100)
        };
        assert!(given.find(&elsewhere).is_none());
    }
}
