//! The answer to `POST /v3/cursor`: the same information as a batch result, entry by entry, one JSON object a line.
//!
//! The batch has run to its end when the first line is written: this saves no memory here, and is bounded like every
//! other answer.

use partial_sync_transport::hrana::BatchResult;

use super::wire::{CursorAnswer, CursorEntry, StreamResponse, StreamResult};

/// The lines of a cursor answer: the same information as a batch result, entry by entry.
pub(super) fn cursor_body(baton: Option<String>, results: Vec<StreamResult>) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut line = |entry: &dyn erased::Line| entry.write(&mut body);
    line(&CursorAnswer {
        baton,
        base_url: None,
    })?;
    for result in &results {
        match result {
            StreamResult::Ok {
                response: StreamResponse::Batch { result },
            } => cursor_entries(result, &mut line)?,
            StreamResult::Ok { .. } => {}
            StreamResult::Error { error } => line(&CursorEntry::Error { error })?,
        }
    }
    Ok(body)
}

fn cursor_entries(
    result: &BatchResult,
    line: &mut dyn FnMut(&dyn erased::Line) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    for (step, (given, failed)) in result.step_results.iter().zip(&result.step_errors).enumerate() {
        if let Some(given) = given {
            line(&CursorEntry::StepBegin {
                step,
                cols: &given.cols,
            })?;
            for row in &given.rows {
                line(&CursorEntry::Row { row })?;
            }
            line(&CursorEntry::StepEnd {
                affected_row_count: given.affected_row_count,
                last_insert_rowid: given.last_insert_rowid.map(|id| id.to_string()),
            })?;
        }
        if let Some(error) = failed {
            line(&CursorEntry::StepError { step, error })?;
        }
    }
    Ok(())
}

/// `Serialize` as an object, for a closure that writes lines of several types.
mod erased {
    pub(super) trait Line {
        fn write(&self, body: &mut Vec<u8>) -> serde_json::Result<()>;
    }

    impl<T: serde::Serialize> Line for T {
        fn write(&self, body: &mut Vec<u8>) -> serde_json::Result<()> {
            serde_json::to_writer(&mut *body, self)?;
            body.push(b'\n');
            Ok(())
        }
    }
}
