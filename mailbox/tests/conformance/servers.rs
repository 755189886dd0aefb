//! Real stores, each a process of its own on free ports of loopback, ended with the test.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mailbox::{Access, Credentials, MailboxUrl};
use tempfile::TempDir;

/// The bucket of the suite.
pub const BUCKET: &str = "conformance";
/// A bucket that everybody may read and write.
pub const OPEN_BUCKET: &str = "open";
const REGION: &str = "us-east-1";

/// Whose protocol a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    S3,
    Gcs,
}

/// A running store. Ends when it is dropped, with its folder.
pub struct Server {
    pub protocol: Protocol,
    program: PathBuf,
    folder: TempDir,
    /// The first is the interface's, the second the same by TLS.
    ports: Vec<u16>,
    process: Mutex<Option<Child>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts the store of this protocol whose program is in `programs`.
    pub async fn start(protocol: Protocol, programs: &Path) -> Self {
        let program = programs.join(match protocol {
            Protocol::S3 => "weed",
            Protocol::Gcs => "fake-gcs-server",
        });
        let folder = tempfile::Builder::new().prefix("prio-stores-").tempdir().unwrap();
        let server = Self {
            protocol,
            program,
            folder,
            ports: free_ports(9),
            process: Mutex::new(None),
        };
        server.write_settings();
        server.revive().await;
        for bucket in [BUCKET, OPEN_BUCKET] {
            server.make_bucket(bucket).await;
        }
        server
    }

    /// Where its interface listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    pub fn tls_endpoint(&self) -> String {
        format!("https://localhost:{}", self.ports[1])
    }

    /// The certificate of its TLS interface.
    pub fn certificate(&self) -> PathBuf {
        self.path("tls.crt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self, bucket: &str, prefix: &str) -> MailboxUrl {
        let url = match self.protocol {
            Protocol::S3 => format!("s3://{REGION}/{bucket}/{prefix}"),
            Protocol::Gcs => format!("gs://{bucket}/{prefix}"),
        };
        MailboxUrl::parse(&url).unwrap()
    }

    /// How its owner reaches it.
    pub fn access(&self) -> Access {
        Access {
            endpoint: Some(format!("http://{}", self.address())),
            path_style: true,
            credentials: match self.protocol {
                Protocol::S3 => self.secret("owner"),
                Protocol::Gcs => Credentials::Anonymous,
            },
            ..Access::default()
        }
    }

    /// The Secret of one of its users: `owner`, or `reader`, who may not write.
    pub fn secret(&self, user: &str) -> Credentials {
        Credentials::Secret {
            folder: self.path(user),
        }
    }

    fn write_settings(&self) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.certificate(), certified.cert.pem()).unwrap();
        std::fs::write(self.path("tls.key"), certified.signing_key.serialize_pem()).unwrap();
        for user in ["owner", "reader"] {
            std::fs::create_dir(self.path(user)).unwrap();
            std::fs::write(self.path(user).join("accessKeyId"), user).unwrap();
            std::fs::write(self.path(user).join("secretAccessKey"), format!("secret-of-{user}\n")).unwrap();
        }
        let identity = |user: &str, actions: &[&str]| {
            serde_json::json!({
                "name": user,
                "credentials": [{"accessKey": user, "secretKey": format!("secret-of-{user}")}],
                "actions": actions,
            })
        };
        let everybody = serde_json::json!({"name": "anonymous", "actions": ["Read:open", "Write:open", "List:open"]});
        let owner = identity("owner", &["Admin", "Read", "Write", "List"]);
        let identities = [owner, identity("reader", &["Read", "List"]), everybody];
        let settings = serde_json::json!({ "identities": identities });
        std::fs::write(self.path("s3.json"), settings.to_string()).unwrap();
        std::fs::create_dir(self.path("data")).unwrap();
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn command(&self) -> Command {
        // Its parent's end is its own, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
        let (ports, folder) = (&self.ports, self.folder.path().display());
        match self.protocol {
            Protocol::S3 => {
                command.args([
                    "-logtostderr=true",
                    "-v=0",
                    "server",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                ]);
                // Nothing leaves this machine.
                command.arg("-master.telemetry=false");
                command.args([
                    "-filer",
                    "-s3",
                    "-s3.autoCreateBucket=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                ]);
                command.args([
                    "-volume.max=40",
                    "-master.volumeSizeLimitMB=64",
                    "-volume.preStopSeconds=0",
                ]);
                command.args([
                    format!("-dir={folder}/data"),
                    format!("-s3.config={folder}/s3.json"),
                    format!("-s3.cert.file={folder}/tls.crt"),
                    format!("-s3.key.file={folder}/tls.key"),
                    format!("-s3.localSocket={folder}/s3.sock"),
                    format!("-filer.localSocket={folder}/filer.sock"),
                    format!("-s3.port={}", ports[0]),
                    format!("-s3.port.https={}", ports[1]),
                    format!("-s3.port.grpc={}", ports[2]),
                    format!("-master.port={}", ports[3]),
                    format!("-master.port.grpc={}", ports[4]),
                    format!("-volume.port={}", ports[5]),
                    format!("-volume.port.grpc={}", ports[6]),
                    format!("-filer.port={}", ports[7]),
                    format!("-filer.port.grpc={}", ports[8]),
                ]);
            }
            Protocol::Gcs => {
                command.args([
                    "-backend=filesystem",
                    "-scheme=both",
                    "-host=127.0.0.1",
                    "-log-level=warn",
                ]);
                command.args([
                    format!("-filesystem-root={folder}/data"),
                    format!("-cert-location={folder}/tls.crt"),
                    format!("-private-key-location={folder}/tls.key"),
                    format!("-public-host=127.0.0.1:{}", ports[0]),
                    format!("-port-http={}", ports[0]),
                    format!("-port={}", ports[1]),
                ]);
            }
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        command
    }

    /// Ends the process at once, as a power cut would; what it had acknowledged is kept.
    pub fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it, again with what it kept, and waits until it answers.
    pub async fn revive(&self) {
        let process = self.command().spawn();
        *self.process() = Some(process.unwrap_or_else(|error| panic!("{}: {error}", self.program.display())));
        let (started, http) = (Instant::now(), reqwest::Client::builder().no_proxy().build().unwrap());
        let probe = match self.protocol {
            Protocol::S3 => format!("http://127.0.0.1:{}/dir/assign", self.ports[3]),
            Protocol::Gcs => format!("http://{}/storage/v1/b", self.address()),
        };
        loop {
            let ready = http.get(&probe).timeout(Duration::from_secs(2)).send().await;
            let up = ready.is_ok_and(|answer| answer.status().is_success());
            // Any answer of its interface will do: that it refuses us is one.
            if up && http.get(format!("http://{}/", self.address())).send().await.is_ok() {
                return;
            }
            let ended = self.process().as_mut().and_then(|process| process.try_wait().unwrap());
            if ended.is_some() || started.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                let from = log.len().saturating_sub(3000);
                panic!("{} doesn't serve ({ended:?}): {}", self.program.display(), &log[from..]);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The SDK's client of the owner, for what no mailbox does.
    fn owner(&self) -> aws_sdk_s3::Client {
        let keys = aws_credential_types::Credentials::new("owner", "secret-of-owner", None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(aws_sdk_s3::config::Region::new(REGION))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(format!("http://{}", self.address()))
            .force_path_style(true)
            .credentials_provider(keys)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Gives the bucket of the suite a rule that deletes old objects.
    pub async fn expire(&self, prefix: &str, days: i32) {
        use aws_sdk_s3::types::{
            BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
        };
        let rule = LifecycleRule::builder()
            .id("expire")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(days).build());
        let lifecycle = BucketLifecycleConfiguration::builder().rules(rule.build().unwrap());
        let put = self.owner().put_bucket_lifecycle_configuration().bucket(BUCKET);
        let put = put.lifecycle_configuration(lifecycle.build().unwrap()).send().await;
        put.unwrap_or_else(|error| panic!("{error:?}"));
    }

    async fn make_bucket(&self, name: &str) {
        match self.protocol {
            Protocol::S3 => {
                let made = self.owner().create_bucket().bucket(name).send().await;
                made.unwrap_or_else(|error| panic!("{error:?}"));
            }
            Protocol::Gcs => {
                let url = format!("http://{}/storage/v1/b?project=p", self.address());
                let bucket = serde_json::json!({ "name": name });
                let made = reqwest::Client::new().post(url).json(&bucket).send().await.unwrap();
                assert!(made.status().is_success(), "{made:?}");
            }
        }
    }
}

/// Ports that nobody listens on. All are taken before any is given back, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
