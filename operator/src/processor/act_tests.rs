#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn answer(code: u16) -> ActError {
    let status = serde_json::from_value(serde_json::json!({"code": code, "message": code.to_string()})).unwrap();
    ActError::Api {
        verb: "create",
        what: "a-batch".to_owned(),
        source: kube::Error::Api(Box::new(status)),
    }
}

#[tokio::test]
async fn what_is_refused_keeps_nothing_else_from_being_written() {
    // Answers in turn, how many writes are tried, and which answer is the result.
    let many = WRITES * 4;
    for (first, second, is_all, result) in [
        (None, None, true, None),
        (Some(403), None, true, Some(403)),
        (Some(422), Some(403), true, Some(422)),
        // Overload, and what may have been done: no more of it.
        (Some(429), None, false, Some(429)),
        (Some(504), None, false, Some(504)),
    ] {
        let tried = AtomicUsize::new(0);
        let write = |code: Option<u16>| {
            let tried = &tried;
            async move {
                tried.fetch_add(1, Ordering::Relaxed);
                code.map_or(Ok(()), |code| Err(answer(code)))
            }
            .boxed()
        };
        let rest = std::iter::repeat_n(None, many);
        let answered = all([first, second].into_iter().chain(rest).map(write).collect()).await;
        assert_eq!(tried.into_inner() == many + 2, is_all, "{first:?}");
        let code = answered.err().map(|error| match error {
            ActError::Api {
                source: kube::Error::Api(status),
                ..
            } => status.code,
            other => panic!("{other}"),
        });
        assert_eq!(code, result, "{first:?}");
    }
}
