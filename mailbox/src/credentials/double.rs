//! A double of token endpoints and stores on loopback, which writes down what it is asked; and processes that ask it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `METHOD /path?query`.
    pub what: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The fields of a form, in order.
    pub fn form(&self) -> Vec<(String, String)> {
        let text = |part: &str| {
            let part = part.replace('+', " ");
            percent_encoding::percent_decode_str(&part)
                .decode_utf8()
                .unwrap()
                .into_owned()
        };
        let fields = self.body.split('&').map(|field| field.split_once('=').unwrap());
        fields.map(|(name, value)| (text(name), text(value))).collect()
    }
}

type Answers = Vec<(&'static str, u16, String)>;

/// Answers each request by the first entry whose beginning fits it; entries of one beginning take turns, and the last stays.
pub struct Double {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A header of an answer.
type Header = (&'static str, &'static str);

impl Double {
    pub async fn start(answers: Answers) -> Self {
        Self::start_with(answers, None).await
    }

    /// As [`Double::start`], with this header in every answer.
    pub async fn start_with(answers: Answers, header: Option<Header>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answers) = (Arc::default(), Arc::new(answers));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                connections.spawn(async move {
                    let service = service_fn(|request| answer(request, Arc::clone(&log), Arc::clone(&answers), header));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, asked, task }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Answers>,
    added: Option<Header>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let asked = Asked {
        what: format!("{} {}", head.method, head.uri),
        headers: head.headers.iter().map(header).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let (status, text) = {
        let mut log = log.lock().unwrap();
        let first = answers.iter().position(|(begin, ..)| asked.what.starts_with(begin));
        let known = first.and_then(|first| {
            let begin = answers[first].0;
            let before = log.iter().filter(|earlier| earlier.what.starts_with(begin)).count();
            let turns: Vec<_> = answers[first..].iter().filter(|(other, ..)| *other == begin).collect();
            turns.get(before).or(turns.last()).copied()
        });
        log.push(asked);
        known.map_or((418, String::new()), |(_, status, text)| (*status, text.clone()))
    };
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = added {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(text)).unwrap())
}

/// The line with a key, a token or an error that an ignored test prints, run as a process of its own with these variables and
/// no others: the AWS SDK's default chain reads its environment.
pub async fn said_by_child(test: &'static str, variables: Vec<(&'static str, String)>) -> String {
    let said = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env_clear()
            .env("HOME", "/nonexistent");
        // Nothing outside of this machine is asked.
        child.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables);
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    });
    let said = said.await.unwrap();
    let line = said
        .lines()
        .find(|line| ["key: ", "token: ", "error: "].iter().any(|word| line.contains(word)));
    line.unwrap_or(&said).to_owned()
}
