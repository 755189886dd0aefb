//! Labels, annotations, and object names that follow from what an object is for.

/// Label: the DataShareProcessor that an object belongs to.
pub const PROCESSOR_LABEL: &str = "prio-operator.io/processor";
/// Label: `intake` or `aggregate`.
pub const STAGE_LABEL: &str = "prio-operator.io/stage";
/// Label: the outcome of a Batch, or `Waiting`.
pub const OUTCOME_LABEL: &str = "prio-operator.io/outcome";
/// Annotation on a Batch, an AggregationWindow or a Peer: any new value asks for another try.
pub const RETRY_ANNOTATION: &str = "prio-operator.io/retry";
/// Annotation on a Peer: the digest of a held change that may be taken.
pub const APPROVE_MANIFEST_ANNOTATION: &str = "prio-operator.io/approve-manifest";
/// The label `app.kubernetes.io/managed-by` of all that the operator makes.
pub const MANAGED_BY: &str = "prio-operator";
