//! Fetching from a web server that behaves and one that doesn't. No cluster is needed.

use std::time::Duration;

use operator::peer::{FetchError, Fetcher, Limits};

use super::web::{Answer, Web};

const NAME: &str = "global-manifest.json";
const PATH: &str = "/global-manifest.json";

fn limits() -> Limits {
    Limits {
        time: Duration::from_millis(700),
        bytes: 100_000,
        redirects: 2,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_fetched_once_and_then_asked_for_by_its_tag() {
    let web = Web::start().await;
    web.object(PATH, "one");
    let fetcher = Fetcher::new(Some(&web.authority), limits()).unwrap();
    let first = fetcher.fetch(&web.url(), NAME, None).await.unwrap();
    assert_eq!((first.bytes.as_ref(), first.unchanged), (b"one".as_slice(), false));
    assert_eq!(first.cache_control.as_deref(), Some("no-cache"));
    let second = fetcher
        .fetch(&format!("{}/", web.url()), NAME, first.copy.as_ref())
        .await
        .unwrap();
    assert_eq!((second.bytes.as_ref(), second.unchanged), (b"one".as_slice(), true));
    assert_eq!((web.asked(PATH), web.unchanged()), (2, 1));
    web.object(PATH, "other");
    let third = fetcher.fetch(&web.url(), NAME, second.copy.as_ref()).await.unwrap();
    assert_eq!((third.bytes.as_ref(), third.unchanged), (b"other".as_slice(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_wrong_is_named_and_bounded() {
    let web = Web::start().await;
    let elsewhere = format!("https://localhost:{}/global-manifest.json", web.address.port());
    web.object("/moved", "here");
    type Is = fn(&FetchError) -> bool;
    let missing: Is = FetchError::is_missing;
    let table: [(Answer, &str, Is); 8] = [
        (Answer::Status(404), "the server answers 404", missing),
        (Answer::Status(403), "the server answers 403", missing),
        (Answer::Status(503), "the server answers 503", |error| {
            !error.is_missing()
        }),
        // Nobody asked conditionally.
        (Answer::Status(304), "the server answers 304", |error| {
            !error.is_missing()
        }),
        (Answer::Endless, "longer than 100000 bytes", |error| {
            matches!(error, FetchError::TooLong { .. })
        }),
        (Answer::Hanging, "no whole answer within 0.7 s", |error| {
            matches!(error, FetchError::TimedOut { .. })
        }),
        (
            Answer::Redirect(elsewhere),
            "redirected to \"https://localhost:",
            |error| matches!(error, FetchError::Redirected { .. }),
        ),
        (Answer::Redirect(PATH.to_owned()), "redirected to", |error| {
            matches!(error, FetchError::Redirected { .. })
        }),
    ];
    let fetcher = Fetcher::new(Some(&web.authority), limits()).unwrap();
    for (answer, message, is) in table {
        web.set(PATH, answer.clone());
        let error = fetcher.fetch(&web.url(), NAME, None).await.unwrap_err();
        assert!(error.to_string().contains(message) && is(&error), "{answer:?}: {error}");
    }
    assert!(web.asked(PATH) <= 8 + 2, "a loop of redirects ends");
    web.set(PATH, Answer::Redirect("/moved".to_owned()));
    assert_eq!(
        fetcher.fetch(&web.url(), NAME, None).await.unwrap().bytes.as_ref(),
        b"here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_https_of_a_trusted_server_is_believed() {
    let mut web = Web::start().await;
    web.object(PATH, "one");
    let trusting = Fetcher::new(Some(&web.authority), limits()).unwrap();
    let public = Fetcher::new(None, limits()).unwrap();
    let url = web.url();
    let localhost = format!("https://localhost:{}", web.address.port());
    let plain = url.replace("https://", "http://");
    let refused = async |fetcher: &Fetcher, url: &str| fetcher.fetch(url, NAME, None).await.unwrap_err().to_string();
    let stranger = refused(&public, &url).await;
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let other_name = refused(&trusting, &localhost).await;
    assert!(other_name.contains("not valid for name"), "{other_name}");
    assert!(refused(&trusting, &plain).await.contains("isn't https"));
    assert_eq!(web.asked(PATH), 0);
    web.down();
    let down = refused(&trusting, &url).await;
    assert!(down.contains("Connection re"), "refused or reset: {down}");
}
