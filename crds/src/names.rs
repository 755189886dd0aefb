//! Labels, annotations, and object names that follow from what an object is for.

/// Label: the DataShareProcessor that an object belongs to.
pub const PROCESSOR_LABEL: &str = "prio-operator.io/processor";
/// Label: `intake` or `aggregate`.
pub const STAGE_LABEL: &str = "prio-operator.io/stage";
/// Label: the outcome of a Batch, or `Waiting`.
pub const OUTCOME_LABEL: &str = "prio-operator.io/outcome";
/// Annotation on a Batch, an AggregationWindow or a Peer: any new value asks for another try.
pub const RETRY_ANNOTATION: &str = "prio-operator.io/retry";
/// Annotation on a DataShareProcessor: any new value asks for another preflight.
pub const PREFLIGHT_ANNOTATION: &str = "prio-operator.io/preflight";
/// Label: the KeyRing that a Secret or a ConfigMap belongs to.
pub const KEY_RING_LABEL: &str = "prio-operator.io/key-ring";
/// Annotation on a KeyRing: any new value asks for another version, whatever the age of the youngest.
pub const ROTATE_ANNOTATION: &str = "prio-operator.io/rotate";
/// Annotation on a KeyRing: any new value asks what would happen and when; `status.plan` answers.
pub const PLAN_ANNOTATION: &str = "prio-operator.io/plan";
/// What a value of [`PLAN_ANNOTATION`] begins with that asks what would happen if another version were asked for now.
pub const PLAN_ROTATION_PREFIX: &str = "rotate:";
/// Annotation on a KeyRing: ids of keys, separated by commas, whose certificates an external authority has issued.
pub const CERTIFICATE_ISSUED_ANNOTATION: &str = "prio-operator.io/certificate-issued";
/// Annotation on a KeyRing: ids of the ring's keys, separated by commas, that the manifest holds, where a person publishes.
pub const PUBLISHED_ANNOTATION: &str = "prio-operator.io/published";
/// Annotation on a Peer: the `approval` of a held change that may be taken, once. That is its digest, with `:2` and so on where
/// it was approved before: a value that is used up approves nothing.
pub const APPROVE_MANIFEST_ANNOTATION: &str = "prio-operator.io/approve-manifest";
/// The label `app.kubernetes.io/managed-by` of all that the operator makes.
pub const MANAGED_BY: &str = "prio-operator";
