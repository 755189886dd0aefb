//! Counters in Prometheus' text, and which of them tell of writes to the API server and of requests to a store.

use std::collections::BTreeMap;

use super::Amounts;

/// One line of such a text.
struct Line<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    value: f64,
}

impl Line<'_> {
    fn label(&self, name: &str) -> &str {
        self.labels.get(name).copied().unwrap_or_default()
    }
}

/// The lines of a metric.
fn lines<'a>(text: &'a str, metric: &'a str) -> impl Iterator<Item = Line<'a>> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(metric)?;
        let (labels, value) = match rest.strip_prefix('{') {
            // No value of the labels that are read here holds a brace or a quote.
            Some(rest) => rest.split_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
        Some(Line {
            labels: labels
                .map(|(name, value)| (name, value.trim_end_matches('"')))
                .collect(),
            value: value.split_whitespace().next()?.parse().ok()?,
        })
    })
}

/// The sum of a metric's lines.
pub fn total(text: &str, metric: &str) -> f64 {
    lines(text, metric).map(|line| line.value).sum()
}

/// Sums of a metric by one of its labels.
pub fn by_label(text: &str, metric: &str, label: &str) -> Amounts {
    sums(lines(text, metric).map(|line| (line.label(label).to_owned(), line.value)))
}

/// Writes that the API server was asked for, as `PATCH batches/status`.
pub fn api_writes(text: &str) -> Amounts {
    let writes = lines(text, "apiserver_request_total").filter_map(|line| {
        let verb = line.label("verb");
        if !matches!(verb, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION") {
            return None;
        }
        let (resource, subresource) = (line.label("resource"), line.label("subresource"));
        let slash = if subresource.is_empty() { "" } else { "/" };
        let tried = if line.label("dry_run").is_empty() {
            ""
        } else {
            ", tried"
        };
        Some((format!("{verb} {resource}{slash}{subresource}{tried}"), line.value))
    });
    sums(writes)
}

/// Requests that a SeaweedFS got, as `GET 404`; HEAD counts as GET there.
pub fn storage_requests(text: &str) -> Amounts {
    let requests = lines(text, "SeaweedFS_s3_request_total");
    sums(requests.map(|line| (format!("{} {}", line.label("type"), line.label("code")), line.value)))
}

fn sums(amounts: impl Iterator<Item = (String, f64)>) -> Amounts {
    let mut sums = Amounts::new();
    for (name, value) in amounts {
        *sums.entry(name).or_default() += value;
    }
    sums
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = r#"# HELP apiserver_request_total Counter
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="batch",resource="jobs",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="409",component="apiserver",dry_run="",group="batch",resource="jobs",scope="resource",subresource="",verb="POST",version="v1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="prio-operator.io",resource="batches",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 1.5e+03
apiserver_request_total{code="403",component="apiserver",dry_run="All",group="batch",resource="jobs",scope="resource",subresource="",verb="POST",version="v1"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 7
apiserver_request_totals{verb="POST"} 9
SeaweedFS_s3_request_total{bucket="a",code="404",type="GET"} 4
SeaweedFS_s3_request_total{bucket="b",code="404",type="GET"} 5
prio_operator_reconciles_total{controller="processor"} 12
prio_operator_leader 1
"#;

    #[test]
    fn writes_are_told_from_reads_and_tries() {
        let expected = [
            ("APPLY batches/status", 1500.0),
            ("POST jobs", 4.0),
            ("POST jobs, tried", 2.0),
        ];
        let expected: Amounts = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        assert_eq!(api_writes(TEXT), expected);
    }

    #[test]
    fn lines_are_summed() {
        assert_eq!(storage_requests(TEXT), [("GET 404".to_owned(), 9.0)].into());
        assert_eq!(total(TEXT, "prio_operator_reconciles_total"), 12.0);
        assert_eq!(total(TEXT, "prio_operator_leader"), 1.0);
        let by = by_label(TEXT, "SeaweedFS_s3_request_total", "bucket");
        assert_eq!(by, [("a".to_owned(), 4.0), ("b".to_owned(), 5.0)].into());
    }
}
