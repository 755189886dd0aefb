//! A proxy on loopback that makes the faults of networks and stores.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A request, as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// An upload of a whole object, or of a piece of one.
    pub fn is_upload(&self) -> bool {
        let s3 = self.method == "PUT" && self.path.split('/').count() > 2;
        s3 || (self.method == "POST" && self.query.contains("uploadType="))
    }

    /// The end of an upload in pieces.
    pub fn is_commit(&self) -> bool {
        self.method == "POST" && (self.query.contains("uploadId=") || self.query.contains("uploadType="))
    }

    /// A read of an object's content.
    pub fn is_content(&self) -> bool {
        let s3 = !self.query.contains("list-type") && !self.path.starts_with("/storage/");
        self.method == "GET" && (s3 || self.query.contains("alt=media"))
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    None,
    /// The connection is cut after so many bytes of the request's body; the store sees it cut too.
    CutRequest(usize),
    /// Nothing is read after so many bytes of the request's body; the store doesn't see the request.
    StallRequest(usize),
    /// The store gets the request and answers; nobody hears it.
    LoseAnswer,
    /// The connection is cut after so many bytes of the answer's body.
    CutAnswer(usize),
    /// Nothing comes after so many bytes of the answer's body.
    StallAnswer(usize),
    /// No answer, ever; the store doesn't see the request.
    Silence,
    /// A bit of the byte at this place in the request's body is flipped.
    FlipRequest(usize),
    /// A bit of the byte at this place in the answer's body is flipped.
    FlipAnswer(usize),
    /// The store doesn't learn that the put is conditional.
    HideCondition,
    /// The store doesn't get the checksum that S3's later versions know; `Content-MD5` it gets.
    HideLaterChecksum,
    /// The store gets no checksum of a content.
    HideChecksums,
    /// This answer; the store doesn't see the request.
    Answer(u16, Vec<(&'static str, &'static str)>, &'static str),
}

type Script = Arc<dyn Fn(&Seen) -> Fault + Send + Sync>;
type Piece = Result<Bytes, Cut>;

/// Why a connection ends.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the test")
    }
}

impl std::error::Error for Cut {}

/// A running proxy; it and its connections end when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts it before the store at `upstream`. `script` says what becomes of each request.
    pub async fn start(upstream: SocketAddr, script: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let proxying = Proxying {
            upstream,
            script: Arc::new(script),
            seen: Arc::clone(&seen),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let proxying = proxying.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| proxying.clone().pass(request));
                    // It ends with an error where the script cuts it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests so far are such.
    pub fn count(&self, such: impl Fn(&Seen) -> bool) -> usize {
        self.seen().iter().filter(|seen| such(seen)).count()
    }
}

#[derive(Clone)]
struct Proxying {
    upstream: SocketAddr,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    http: reqwest::Client,
}

impl Proxying {
    async fn pass(self, request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Cut>>, Cut> {
        let (head, body) = request.into_parts();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let seen = Seen {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        };
        self.seen.lock().unwrap().push(seen.clone());
        let fault = (self.script)(&seen);
        if let Fault::Silence = fault {
            std::future::pending::<()>().await;
        }
        if let Fault::Answer(status, headers, body) = fault {
            let body = Full::new(Bytes::from_static(body.as_bytes()))
                .map_err(|never| match never {})
                .boxed_unsync();
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            return Ok(answer.body(body).unwrap());
        }
        let (mut headers, mut query) = (head.headers, seen.query.clone());
        if let Fault::HideCondition = fault {
            headers.remove("if-none-match");
            query = query.replace("ifGenerationMatch=0", "x=0");
        }
        if let Fault::HideLaterChecksum | Fault::HideChecksums = fault {
            headers.remove("x-amz-checksum-sha256");
            headers.remove("x-amz-sdk-checksum-algorithm");
        }
        if let Fault::HideChecksums = fault {
            headers.remove("content-md5");
        }
        let body = body.into_data_stream().map(|piece| piece.map_err(|_| Cut));
        if let Fault::StallRequest(after) = fault {
            first(body, after).for_each(|_| std::future::ready(())).await;
            return std::future::pending().await;
        }
        let body = match fault {
            Fault::CutRequest(after) => then(body, after, Err(Cut)).boxed(),
            Fault::FlipRequest(place) => flip(body, place).boxed(),
            Fault::HideChecksums => misname(body).boxed(),
            _ => body.boxed(),
        };
        let url = format!("http://{}{}?{query}", self.upstream, seen.path);
        let url = url.trim_end_matches('?');
        let mut passed = self.http.request(head.method, url);
        let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
        headers.remove(TRANSFER_ENCODING);
        passed = passed.headers(headers);
        if has_body {
            passed = passed.body(reqwest::Body::wrap_stream(body));
        }
        let answer = passed.send().await.map_err(|_| Cut)?;
        if let Fault::LoseAnswer = fault {
            let _ = answer.bytes().await;
            return Err(Cut);
        }
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if name != TRANSFER_ENCODING {
                response = response.header(name, value);
            }
        }
        let body = answer.bytes_stream().map(|piece| piece.map_err(|_| Cut));
        let body: BoxStream<'static, Piece> = match fault {
            Fault::CutAnswer(after) => then(body, after, Err(Cut)).boxed(),
            Fault::StallAnswer(after) => first(body, after).chain(futures::stream::pending()).boxed(),
            Fault::FlipAnswer(place) => flip(body, place).boxed(),
            _ => body.boxed(),
        };
        let body = StreamBody::new(body.map(|piece| piece.map(Frame::data)));
        Ok(response.body(body.boxed_unsync()).unwrap())
    }
}

/// A body's first bytes.
fn first(body: impl Stream<Item = Piece> + Send + 'static, bytes: usize) -> impl Stream<Item = Piece> + Send {
    body.scan(bytes, |left, piece| {
        let next = match piece {
            _ if *left == 0 => None,
            Ok(piece) => {
                let piece = piece.slice(..piece.len().min(*left));
                *left -= piece.len();
                Some(Ok(piece))
            }
            Err(cut) => Some(Err(cut)),
        };
        std::future::ready(next)
    })
}

/// GCS takes the checksum from the body: under another name it is none. The head of an upload comes in one piece.
fn misname(body: impl Stream<Item = Piece> + Send + 'static) -> impl Stream<Item = Piece> + Send {
    const NAME: &[u8] = b"\"crc32c\"";
    body.map(|piece| {
        piece.map(|piece| {
            let mut changed = BytesMut::from(&piece[..]);
            if let Some(at) = piece.windows(NAME.len()).position(|part| part == NAME) {
                changed[at + 1] = b'x';
            }
            changed.freeze()
        })
    })
}

fn then(
    body: impl Stream<Item = Piece> + Send + 'static,
    bytes: usize,
    end: Piece,
) -> impl Stream<Item = Piece> + Send {
    first(body, bytes).chain(futures::stream::iter([end]))
}

fn flip(body: impl Stream<Item = Piece> + Send + 'static, place: usize) -> impl Stream<Item = Piece> + Send {
    body.scan(0_usize, move |passed, piece| {
        let piece = piece.map(|piece| {
            let start = *passed;
            *passed += piece.len();
            match place.checked_sub(start).filter(|at| *at < piece.len()) {
                Some(at) => {
                    let mut changed = BytesMut::from(&piece[..]);
                    changed[at] ^= 1;
                    changed.freeze()
                }
                None => piece,
            }
        });
        std::future::ready(Some(piece))
    })
}
