#![allow(clippy::unwrap_used, clippy::print_stdout)]
use super::*;
use crate::credentials::double::{Double, said_by_child};
use crate::credentials::google::tests::{EMAIL, GENERATE_ID, IDENTITY, TOKEN, granted, identities_of};
use crate::error::chain;

const ROLE: &str = "arn:aws:iam::123456789012:role/writer";
const AUDIENCE: &str = "sts.amazonaws.com/gke-identity-federation";

fn url() -> MailboxUrl {
    MailboxUrl::parse("s3://eu-west-1/bucket").unwrap()
}

fn assumed(id: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
         <SecretAccessKey>hush</SecretAccessKey><SessionToken>session</SessionToken>\
         <Expiration>2126-11-20T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    )
}

#[tokio::test]
async fn a_mounted_secret_is_read_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Mounted(folder.path().to_owned());
    let error = provider.keys().await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("accessKeyId isn't there"), "{text}");
    assert_eq!(kind_of(&error, &text), MailboxErrorKind::Configuration);
    for (name, content) in [("accessKeyId", "id-1\n"), ("secretAccessKey", " hush ")] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let keys = provider.keys().await.unwrap();
    assert_eq!(
        (keys.access_key_id(), keys.secret_access_key(), keys.session_token()),
        ("id-1", "hush", None)
    );
    let left = keys.expiry().unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left <= REREAD, "they are read again within {REREAD:?}");
    std::fs::write(folder.path().join("accessKeyId"), "id-2").unwrap();
    std::fs::write(folder.path().join("sessionToken"), "session").unwrap();
    let keys = provider.keys().await.unwrap();
    assert_eq!((keys.access_key_id(), keys.session_token()), ("id-2", Some("session")));
    assert!(!format!("{provider:?} {keys:?}").contains("hush"));
}

/// The provider of a role by a Google identity, where both clouds' services are at one double.
fn from_google(double: &Double, email: Option<&str>) -> SharedCredentialsProvider {
    let access = Access {
        credentials: Credentials::AwsFromGoogle {
            role: ROLE.into(),
            audience: AUDIENCE.into(),
            email: email.map(str::to_owned),
        },
        ..Access::default()
    };
    let (patience, endpoint) = (Patience::default(), Some(double.url.clone()));
    let identities = |email: Option<&str>| identities_of(double, email);
    let provider = provider(&url(), "eu-west-1", &access, &patience, endpoint, identities);
    provider.unwrap().unwrap()
}

#[tokio::test]
async fn a_google_identity_becomes_an_aws_role() {
    let token = "google.identity.token";
    let own = vec![format!(
        "{IDENTITY}?audience=sts.amazonaws.com%2Fgke-identity-federation&format=full"
    )];
    let acting = vec![TOKEN.to_owned(), GENERATE_ID.to_owned()];
    for (email, before) in [(None, own), (Some(EMAIL), acting)] {
        let double = Double::start(vec![
            (IDENTITY, 200, token.to_owned()),
            (TOKEN, 200, granted("pod", 3600)),
            (GENERATE_ID, 200, serde_json::json!({"token": token}).to_string()),
            ("POST /", 200, assumed("ASIA1")),
        ])
        .await;
        let provider = from_google(&double, email);
        let keys = provider.provide_credentials().await.unwrap();
        assert_eq!((keys.access_key_id(), keys.session_token()), ("ASIA1", Some("session")));
        let shown = format!("{provider:?} {keys:?}");
        let secrets = ["hush", "\"session\"", token];
        assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
        assert!(keys.expiry().is_some());
        let mut asked = double.asked();
        let last = asked.pop().unwrap();
        let asked: Vec<_> = asked.into_iter().map(|asked| asked.what).collect();
        assert_eq!((asked, &*last.what), (before, "POST /"));
        assert_eq!(
            last.header("authorization"),
            None,
            "the identity token is all that proves who asks"
        );
        let mut form = last.form();
        form.sort();
        let expected = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", ROLE),
            ("RoleSessionName", "prio-operator"),
            ("Version", "2011-06-15"),
            ("WebIdentityToken", token),
        ];
        assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

#[tokio::test]
async fn a_role_that_refuses_is_no_outage() {
    let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code>\
        <Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>";
    let answers = vec![
        (IDENTITY, 200, "google.identity.token".to_owned()),
        ("POST /", 403, refusal.to_owned()),
    ];
    let double = Double::start(answers).await;
    let error = from_google(&double, None).provide_credentials().await.unwrap_err();
    let text = chain(&error);
    assert_eq!(kind_of(&error, &text), MailboxErrorKind::Denied, "{text}");
    assert!(!text.contains("google.identity.token"));
}

/// Prints the ambient key's id: run as a process of its own, for the default chain reads its environment.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn child_prints_its_key() {
    let access = Access::default();
    let provider = for_aws(&url(), "eu-west-1", &access, &Patience::default())
        .unwrap()
        .unwrap();
    match provider.provide_credentials().await {
        Ok(keys) => println!("key: {}", keys.access_key_id()),
        Err(error) => println!("error: {}", chain(&error)),
    }
}

/// What [`child_prints_its_key`] says.
async fn child(variables: Vec<(&'static str, String)>) -> String {
    said_by_child("credentials::aws::tests::child_prints_its_key", variables).await
}

#[tokio::test]
async fn the_default_chain_takes_keys_from_the_environment() {
    let said = child(vec![
        ("AWS_ACCESS_KEY_ID", "AKIA1".into()),
        ("AWS_SECRET_ACCESS_KEY", "hush".into()),
    ])
    .await;
    assert!(said.ends_with("key: AKIA1"), "{said}");
    let said = child(vec![]).await;
    assert!(said.contains("error: "), "{said}");
}

#[tokio::test]
async fn irsa_exchanges_the_pod_s_token() {
    let double = Double::start(vec![("POST /", 200, assumed("ASIA2"))]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "pod.identity.token").unwrap();
    let said = child(vec![
        ("AWS_ROLE_ARN", ROLE.into()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().into()),
        ("AWS_ROLE_SESSION_NAME", "pod".into()),
        ("AWS_ENDPOINT_URL_STS", double.url.clone()),
    ])
    .await;
    assert!(said.ends_with("key: ASIA2"), "{said}");
    let asked = double.asked();
    assert_eq!((asked.len(), asked[0].what.as_str()), (1, "POST /"));
    assert_eq!(asked[0].header("authorization"), None);
    let mut form = asked[0].form();
    form.sort();
    let expected = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", ROLE),
        ("RoleSessionName", "pod"),
        ("Version", "2011-06-15"),
        ("WebIdentityToken", "pod.identity.token"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn eks_pod_identity_asks_the_agent() {
    let keys =
        r#"{"AccessKeyId":"ASIA3","SecretAccessKey":"hush","Token":"session","Expiration":"2126-11-20T00:00:00Z"}"#;
    let double = Double::start(vec![("GET /v1/credentials", 200, keys.into())]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "pod.identity.token").unwrap();
    let said = child(vec![
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/v1/credentials", double.url),
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap().into()),
    ])
    .await;
    assert!(said.ends_with("key: ASIA3"), "{said}");
    let asked = double.asked();
    assert_eq!((asked.len(), asked[0].what.as_str()), (1, "GET /v1/credentials"));
    assert_eq!(asked[0].header("authorization"), Some("pod.identity.token"));
}

#[test]
fn credentials_of_the_other_cloud_are_refused() {
    let access = Access {
        credentials: Credentials::GoogleServiceAccount {
            email: "w@p.iam.gserviceaccount.com".into(),
        },
        ..Access::default()
    };
    let error = for_aws(&url(), "eu-west-1", &access, &Patience::default()).unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Configuration);
}
