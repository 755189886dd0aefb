//! Web servers of the parties and of the ingestor, each in a namespace of its own, with certificates of one authority that
//! nobody else knows: what they serve is a ConfigMap of manifests.

use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Image;
use crate::party::namespace_object;
use crate::pods::{container_security, pod_security, reference};

/// The name of a server's Deployment, Service and account.
const WEB: &str = "web";
/// Where a server's pods listen, behind port 443 of the Service.
pub const PORT: u16 = 8443;
/// The ConfigMap that a server serves.
pub const MANIFESTS: &str = "manifests";
const START_LIMIT: Duration = Duration::from_secs(120);

/// One web server.
#[derive(Clone)]
pub struct Web {
    /// Its namespace.
    pub namespace: String,
    /// The namespace of the ConfigMap.
    serves: String,
    certificate: String,
    key: String,
}

impl Web {
    /// The folder that partners are told.
    pub fn base_url(&self) -> String {
        format!("https://{}", host(&self.namespace))
    }

    /// The server, who it is, and its right to read the one ConfigMap. It asks the API server for it at each request: a
    /// mounted ConfigMap lags behind by a minute.
    fn objects(&self, image: &Image) -> Vec<Value> {
        let namespace = &self.namespace;
        let metadata = json!({"name": WEB, "namespace": namespace});
        let theirs = json!({"name": WEB, "namespace": self.serves});
        let labels = json!({"app": WEB});
        let container = json!({
            "name": WEB, "image": reference(image), "imagePullPolicy": "IfNotPresent",
            "args": ["serve", "--namespace", self.serves, "--config-map", MANIFESTS, "--tls", "/tls",
                     "--address", format!("0.0.0.0:{PORT}")],
            "ports": [{"name": "https", "containerPort": PORT}],
            "readinessProbe": {"tcpSocket": {"port": "https"}, "periodSeconds": 1},
            "securityContext": container_security(),
            "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": true}],
        });
        let pod = json!({
            "serviceAccountName": WEB, "enableServiceLinks": false, "securityContext": pod_security(), "containers": [container],
            "terminationGracePeriodSeconds": 1, "volumes": [{"name": "tls", "secret": {"secretName": WEB}}],
        });
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": theirs,
                   "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [MANIFESTS], "verbs": ["get"]}]}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": theirs,
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": WEB},
                   "subjects": [{"kind": "ServiceAccount", "name": WEB, "namespace": namespace}]}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls",
                   "stringData": {"tls.crt": self.certificate, "tls.key": self.key}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
                   "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                   "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                            "template": {"metadata": {"labels": labels}, "spec": pod}}}),
        ]
    }
}

/// All web servers, and the authority that vouches for them.
#[derive(Clone)]
pub struct Webs {
    /// PEM: what a `caBundleRef` leads to.
    pub authority: String,
    /// Of First and Second.
    pub parties: [Web; 2],
    /// The ingestor's.
    pub ingestor: Web,
}

impl Webs {
    /// Names, keys and certificates; nothing is started yet. `parties` are names, `worker_namespaces` where their manifests
    /// are published; the ingestor's server and manifest are in its own namespace.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(parties: [&str; 2], worker_namespaces: [&str; 2], ingestor: &str) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let web = |namespace: String, serves: &str| -> Result<Web> {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(vec![host(&namespace)])?.signed_by(&key, &authority)?;
            Ok(Web {
                namespace,
                serves: serves.to_owned(),
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        Ok(Self {
            parties: [
                web(format!("{}-web", parties[0]), worker_namespaces[0])?,
                web(format!("{}-web", parties[1]), worker_namespaces[1])?,
            ],
            ingestor: web(ingestor.to_owned(), ingestor)?,
            authority: authority.pem(),
        })
    }

    /// The servers' namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.parties
            .iter()
            .chain([&self.ingestor])
            .map(|web| web.namespace.as_str())
    }

    /// Starts all servers. The parties' worker namespaces must be there.
    ///
    /// # Errors
    /// When one doesn't come up.
    pub async fn start(&self, cluster: &Cluster, image: &Image) -> Result<()> {
        let webs = [&self.parties[0], &self.parties[1], &self.ingestor];
        let mut objects: Vec<Value> = webs.iter().map(|web| namespace_object(&web.namespace)).collect();
        objects.extend(webs.iter().flat_map(|web| web.objects(image)));
        cluster.apply(&objects).await.context("the web servers")?;
        for web in webs {
            cluster.ready_pod(&web.namespace, "app=web", START_LIMIT).await?;
        }
        Ok(())
    }
}

/// Lets a namespace's pods out to the web servers' pods, and to DNS, whatever else keeps them in.
pub fn way_out(namespace: &str) -> Value {
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": WEB, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"],
                 "egress": [dns, {"ports": [{"port": PORT, "protocol": "TCP"}]}]}})
}

fn host(namespace: &str) -> String {
    format!("{WEB}.{namespace}.svc")
}
