#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as GeneratedPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::credentials::double::{Asked, Double, said_by_child};

pub(crate) const TOKEN: &str = "GET /computeMetadata/v1/instance/service-accounts/default/token";
pub(crate) const IDENTITY: &str = "GET /computeMetadata/v1/instance/service-accounts/default/identity";
const GENERATE: &str = "POST /v1/projects/-/serviceAccounts/w@p.iam.gserviceaccount.com:generateAccessToken";
pub(crate) const GENERATE_ID: &str = "POST /v1/projects/-/serviceAccounts/w@p.iam.gserviceaccount.com:generateIdToken";
pub(crate) const EMAIL: &str = "w@p.iam.gserviceaccount.com";
const PROVIDER: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";

pub(crate) fn granted(token: &str, seconds: u32) -> String {
    json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}).to_string()
}

fn generated(token: &str) -> String {
    let ends = Timestamp::now() + Duration::from_secs(3600);
    json!({"accessToken": token, "expireTime": ends}).to_string()
}

/// All three services at one double.
fn asking(double: &Double) -> Asking {
    asking_at(&double.url)
}

fn asking_at(double: &str) -> Asking {
    Asking {
        url: MailboxUrl::parse("gs://bucket").unwrap(),
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        patience: Duration::from_secs(5),
        endpoints: Endpoints {
            metadata: double.to_owned(),
            iam: double.to_owned(),
            sts: double.to_owned(),
        },
        clock: || UNIX_EPOCH + Duration::from_secs(1_795_132_800),
    }
}

fn nothing_set(_: &str) -> Option<String> {
    None
}

pub(crate) fn tokens_of(double: &Double, credentials: Credentials) -> Tokens {
    let access = Access {
        credentials,
        ..Access::default()
    };
    tokens(asking(double), &access, &Patience::default(), nothing_set).unwrap()
}

pub(crate) fn identities_of(double: &Double, email: Option<&str>) -> Result<Box<dyn IdentityTokens>, MailboxError> {
    identity_tokens(asking(double), email, nothing_set)
}

async fn bearer(tokens: &Tokens) -> String {
    tokens.bearer().await.unwrap().to_str().unwrap().to_owned()
}

fn what(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|asked| asked.what.as_str()).collect()
}

#[tokio::test]
async fn gke_workload_identity_asks_the_metadata_server() {
    let double = Double::start(vec![(TOKEN, 200, granted("pod", 3600))]).await;
    let tokens = tokens_of(&double, Credentials::Ambient);
    assert_eq!(bearer(&tokens).await, "Bearer pod");
    assert_eq!(bearer(&tokens).await, "Bearer pod");
    let asked = double.asked();
    assert_eq!(what(&asked), [TOKEN], "a fresh token is kept");
    assert_eq!(asked[0].header("metadata-flavor"), Some("Google"));
    assert_eq!(asked[0].header("authorization"), None);
    tokens.forget();
    bearer(&tokens).await;
    assert_eq!(double.asked().len(), 2, "a refused token isn't kept");
}

#[tokio::test]
async fn a_token_that_ends_soon_is_replaced_or_used_while_it_lasts() {
    let double = Double::start(vec![(TOKEN, 200, granted("short", 60))]).await;
    let tokens = tokens_of(&double, Credentials::Ambient);
    bearer(&tokens).await;
    bearer(&tokens).await;
    assert_eq!(double.asked().len(), 2);
    drop(double);
    assert_eq!(
        bearer(&tokens).await,
        "Bearer short",
        "the service is away, the token still holds"
    );
}

#[tokio::test]
async fn debug_shows_no_token() {
    let secret = "ya29.hush";
    let double = Double::start(vec![
        (TOKEN, 200, granted(secret, 3600)),
        (GENERATE, 200, generated(secret)),
    ])
    .await;
    let impersonating = Credentials::GoogleServiceAccount { email: EMAIL.into() };
    for credentials in [Credentials::Ambient, impersonating] {
        let tokens = tokens_of(&double, credentials);
        let header = tokens.bearer().await.unwrap();
        assert_eq!(header.to_str().unwrap(), format!("Bearer {secret}"));
        let shown = format!("{tokens:?} {tokens:#?} {header:?}");
        assert!(
            shown.contains("Token("),
            "the token that is kept is among what is shown: {shown}"
        );
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[tokio::test]
async fn impersonation_asks_as_the_ambient_identity() {
    let double = Double::start(vec![
        (TOKEN, 200, granted("pod", 3600)),
        (GENERATE, 200, generated("writer")),
    ])
    .await;
    let tokens = tokens_of(&double, Credentials::GoogleServiceAccount { email: EMAIL.into() });
    assert_eq!(bearer(&tokens).await, "Bearer writer");
    let asked = double.asked();
    assert_eq!(what(&asked), [TOKEN, GENERATE]);
    assert_eq!(asked[1].header("authorization"), Some("Bearer pod"));
    assert_eq!(asked[1].header("content-type"), Some("application/json"));
    assert_eq!(
        asked[1].body,
        r#"{"scope":["https://www.googleapis.com/auth/devstorage.read_write"]}"#
    );
}

#[tokio::test]
async fn a_key_file_signs_an_assertion() {
    let double = Double::start(vec![("POST /token", 200, granted("keyed", 3600))]).await;
    let pair = GeneratedPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(der.as_ref())
    );
    let key = json!({
        "type": "service_account", "client_email": EMAIL, "private_key": pem, "private_key_id": "kid-1",
        "token_uri": format!("{}/token", double.url),
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.json"), key.to_string()).unwrap();
    let tokens = tokens_of(
        &double,
        Credentials::Secret {
            folder: folder.path().to_owned(),
        },
    );
    assert_eq!(bearer(&tokens).await, "Bearer keyed");
    let asked = double.asked();
    assert_eq!(what(&asked), ["POST /token"]);
    let form = asked[0].form();
    assert_eq!(
        form[0],
        (
            "grant_type".into(),
            "urn:ietf:params:oauth:grant-type:jwt-bearer".into()
        )
    );
    assert_eq!((form[1].0.as_str(), form.len()), ("assertion", 2));
    let (signed, signature) = form[1].1.rsplit_once('.').unwrap();
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key());
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let part = |part: &str| serde_json::from_slice::<serde_json::Value>(&decode(part)).unwrap();
    assert_eq!(part(header), json!({"alg": "RS256", "typ": "JWT", "kid": "kid-1"}));
    let expected = json!({
        "iss": EMAIL, "scope": "https://www.googleapis.com/auth/devstorage.read_write",
        "aud": format!("{}/token", double.url), "iat": 1_795_132_800, "exp": 1_795_136_400,
    });
    assert_eq!(part(claims), expected);
    // The file that the environment names is the same kind of key.
    let file = folder.path().join("key.json").to_str().unwrap().to_owned();
    let set = move |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| file.clone());
    let tokens = super::tokens(asking(&double), &Access::default(), &Patience::default(), set).unwrap();
    assert_eq!(bearer(&tokens).await, "Bearer keyed");
}

#[tokio::test]
async fn the_metadata_server_may_be_elsewhere() {
    let double = Double::start(vec![(TOKEN, 200, granted("moved", 3600))]).await;
    let host = double.url.trim_start_matches("http://").to_owned();
    let set = move |name: &str| (name == "GCE_METADATA_HOST").then(|| host.clone());
    let asking = Asking {
        endpoints: Endpoints::default(),
        ..asking(&double)
    };
    let tokens = super::tokens(asking, &Access::default(), &Patience::default(), set).unwrap();
    assert_eq!(bearer(&tokens).await, "Bearer moved");
}

/// Prints the token that an AWS role in the environment comes to, where `DOUBLE` stands for Google: run as a process of its own.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn child_prints_its_token() {
    let Ok(double) = std::env::var("DOUBLE") else {
        return;
    };
    let access = Access {
        credentials: Credentials::GoogleFromAws {
            provider: PROVIDER.into(),
            region: "eu-west-1".into(),
            email: std::env::var("EMAIL").ok(),
        },
        ..Access::default()
    };
    let tokens = tokens(asking_at(&double), &access, &Patience::default(), nothing_set).unwrap();
    match tokens.bearer().await {
        Ok(value) => println!("token: {}", value.to_str().unwrap()),
        Err(error) => println!("error: {error}"),
    }
}

/// What [`child_prints_its_token`] says.
async fn from_aws(double: &Double, email: Option<&str>) -> String {
    let mut variables = vec![
        ("DOUBLE", double.url.clone()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".into()),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        ),
        ("AWS_SESSION_TOKEN", "the-session-token".into()),
    ];
    variables.extend(email.map(|email| ("EMAIL", email.to_owned())));
    said_by_child("credentials::google::tests::child_prints_its_token", variables).await
}

#[tokio::test]
async fn an_aws_role_becomes_a_google_identity_by_a_pool() {
    let double = Double::start(vec![("POST /v1/token", 200, granted("federated", 3600))]).await;
    let said = from_aws(&double, None).await;
    assert!(said.ends_with("token: Bearer federated"), "{said}");
    let asked = double.asked();
    assert_eq!(what(&asked), ["POST /v1/token"]);
    let form = asked[0].form();
    let subject = form.iter().find(|(name, _)| name == "subject_token").unwrap().1.clone();
    let rest: Vec<_> = form.into_iter().filter(|(name, _)| name != "subject_token").collect();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", PROVIDER),
        ("scope", "https://www.googleapis.com/auth/devstorage.read_write"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", "urn:ietf:params:aws:token-type:aws4_request"),
    ];
    assert_eq!(rest, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The signature is another implementation's, over the same request.
    let subject = percent_encoding::percent_decode_str(&subject).decode_utf8().unwrap();
    let mut subject: serde_json::Value = serde_json::from_str(&subject).unwrap();
    subject["headers"]
        .as_array_mut()
        .unwrap()
        .sort_by_key(|header| header["key"].as_str().unwrap().to_owned());
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/eu-west-1/sts/aws4_request, \
        SignedHeaders=host;x-amz-date;x-amz-security-token;x-goog-cloud-target-resource, \
        Signature=75076307e9ef394c3552edac8238221fa14bb63139c3b3e8f074f8f6b1154e6a";
    let expected = json!({
        "url": "https://sts.eu-west-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
        "method": "POST",
        "headers": [
            {"key": "authorization", "value": authorization},
            {"key": "host", "value": "sts.eu-west-1.amazonaws.com"},
            {"key": "x-amz-date", "value": "20261120T000000Z"},
            {"key": "x-amz-security-token", "value": "the-session-token"},
            {"key": "x-goog-cloud-target-resource", "value": PROVIDER},
        ],
    });
    assert_eq!(subject, expected);
}

#[tokio::test]
async fn a_pool_s_identity_may_act_as_a_service_account() {
    let answers = vec![
        ("POST /v1/token", 200, granted("federated", 3600)),
        (GENERATE, 200, generated("writer")),
    ];
    let double = Double::start(answers).await;
    let said = from_aws(&double, Some(EMAIL)).await;
    assert!(said.ends_with("token: Bearer writer"), "{said}");
    let asked = double.asked();
    assert_eq!(what(&asked), ["POST /v1/token", GENERATE]);
    assert_eq!(asked[1].header("authorization"), Some("Bearer federated"));
    let form = asked[0].form();
    let scope = form.iter().find(|(name, _)| name == "scope").unwrap();
    assert_eq!(
        scope.1, "https://www.googleapis.com/auth/iam",
        "only to ask for the other"
    );
    let asked_for: serde_json::Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(
        asked_for["scope"][0],
        "https://www.googleapis.com/auth/devstorage.read_write"
    );
}

#[tokio::test]
async fn identity_tokens_are_for_an_audience() {
    let audience = "sts.amazonaws.com/gke-identity-federation";
    let answers = vec![
        (IDENTITY, 200, "pod.identity.token\n".to_owned()),
        (TOKEN, 200, granted("pod", 3600)),
        (GENERATE_ID, 200, json!({"token": "writer.identity.token"}).to_string()),
    ];
    let double = Double::start(answers).await;
    for (email, expected) in [(None, "pod.identity.token"), (Some(EMAIL), "writer.identity.token")] {
        let identities = identities_of(&double, email).unwrap();
        assert_eq!(*identities.identity(audience).await.unwrap(), expected);
    }
    let asked = double.asked();
    let query = "audience=sts.amazonaws.com%2Fgke-identity-federation&format=full";
    assert_eq!(what(&asked), [&format!("{IDENTITY}?{query}"), TOKEN, GENERATE_ID]);
    assert_eq!(asked[0].header("metadata-flavor"), Some("Google"));
    assert_eq!(asked[2].header("authorization"), Some("Bearer pod"));
    assert_eq!(
        asked[2].body,
        format!(r#"{{"audience":"{audience}","includeEmail":true}}"#)
    );
}

#[tokio::test]
async fn a_key_file_alone_gives_no_identity_tokens() {
    let double = Double::start(vec![]).await;
    let set = |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| "/keys/key.json".to_owned());
    let error = identity_tokens(asking(&double), None, set).unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Configuration);
    assert!(error.to_string().contains("name the service account"), "{error}");
    // As an account that it may act as, its key is what proves who asks: it is read then, and isn't there.
    let identities = identity_tokens(asking(&double), Some(EMAIL), set).unwrap();
    let error = identities.identity("audience").await.unwrap_err();
    assert!(error.to_string().contains("/keys/key.json"), "{error}");
    assert!(double.asked().is_empty());
}

#[tokio::test]
async fn refusals_say_why_and_whether_to_wait_and_show_no_secret() {
    use MailboxErrorKind::{Configuration, Denied, Unavailable};
    let message = r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.getAccessToken' denied"}}"#;
    let grant = r#"{"error":"invalid_grant","error_description":"Token expired"}"#;
    for (status, body, kind, told) in [
        (403, message, Denied, "getAccessToken"),
        (400, grant, Denied, "invalid_grant Token expired"),
        (404, "", Unavailable, "404"),
        (503, "<html>", Unavailable, "503"),
        (302, "", Configuration, "302"),
        (200, r#"{"accessToken":"hush"}"#, Unavailable, "can't be read"),
    ] {
        let double = Double::start(vec![
            (TOKEN, 200, granted("hush", 3600)),
            (GENERATE, status, body.to_owned()),
        ])
        .await;
        let tokens = tokens_of(&double, Credentials::GoogleServiceAccount { email: EMAIL.into() });
        let error = tokens.bearer().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        let shown = format!("{error} {error:?} {tokens:?}");
        assert!(shown.contains(told) && !shown.contains("hush"), "{shown}");
    }
    let double = Double::start(vec![(TOKEN, 200, granted("hush", 3600))]).await;
    let tokens = tokens_of(&double, Credentials::Ambient);
    let header = tokens.bearer().await.unwrap();
    assert!(!format!("{tokens:?} {header:?}").contains("hush"));
}

#[test]
fn credentials_of_the_other_cloud_are_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start(vec![]));
    let access = Access {
        credentials: Credentials::AwsFromGoogle {
            role: "r".into(),
            audience: "a".into(),
            email: None,
        },
        ..Access::default()
    };
    let error = tokens(asking(&double), &access, &Patience::default(), nothing_set).unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Configuration);
}
