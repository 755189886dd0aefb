//! One suite over all backends, faults included: `make conformance` runs it with real stores and prints the table of
//! operation × backend. Without `PRIO_OPERATOR_STORES`, a folder with their programs, memory and folders alone are tried.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod faults;
mod operations;
mod proxy;
mod report;
mod rights;
mod servers;
mod settings;
mod stage;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use mailbox::MemoryMailbox;

use self::report::{Cell, Outcome};
use self::servers::{Protocol, Server};
use self::stage::{Backend, Shown, Stage};

type Run = fn(Stage) -> Pin<Box<dyn Future<Output = Shown> + Send>>;

macro_rules! operations {
    ($($module:ident::$name:ident),+ $(,)?) => {
        [$((stringify!($name), (|stage| Box::pin($module::$name(stage))) as Run)),+]
    };
}

const OPERATIONS: &[(&str, Run)] = &operations![
    operations::what_is_put_is_read_back,
    operations::an_object_never_changes,
    operations::one_of_racing_writers_wins,
    operations::an_unfinished_upload_leaves_nothing,
    operations::a_store_is_told_of_uploads_that_are_given_up,
    operations::large_objects_stream,
    operations::what_is_put_at_once_goes_by_one_request,
    operations::what_is_absent_is_named,
    operations::reads_are_bounded,
    operations::ranges_are_parts_of_an_object,
    operations::listings_are_ranges_in_byte_order,
    operations::listings_tell_what_head_tells,
    operations::listings_tell_the_stores_clock,
    operations::many_objects_come_in_pages,
    settings::a_prefix_is_a_mailbox_of_its_own,
    settings::large_objects_take_little_memory,
    settings::conditional_writes_are_checked,
    settings::a_store_that_ignores_conditions_is_refused,
    settings::a_bucket_that_is_missing_is_named,
    settings::a_wrong_region_is_named,
    rights::who_may_not_write_is_told_so,
    rights::the_right_to_put_is_shown_without_a_put,
    rights::the_right_to_put_is_shown_by_an_upload_without_content,
    rights::a_store_that_compares_no_checksums_is_told,
    settings::expiry_rules_are_told,
    settings::only_trusted_authorities_are_believed,
    settings::encryption_and_rights_of_new_objects_are_asked_for,
    faults::a_put_survives_a_cut_connection,
    faults::an_upload_in_pieces_survives_a_cut_connection,
    faults::an_upload_that_stalls_is_sent_again,
    faults::a_read_survives_a_cut_connection,
    faults::a_read_survives_a_body_that_stalls,
    faults::a_store_that_never_answers_is_given_up,
    faults::a_storm_of_503_passes_or_is_given_up,
    faults::a_put_whose_answer_is_lost_is_known_as_ours,
    faults::an_error_in_a_200_is_an_error,
    faults::bytes_changed_on_the_way_to_a_reader_are_found,
    faults::bytes_changed_after_a_cut_are_found,
    faults::bytes_changed_on_the_way_to_the_store_are_found,
    faults::a_server_killed_in_an_upload_leaves_nothing,
];

const BACKENDS: [&str; 4] = ["memory", "file", "s3", "gcs"];
const NO_PROGRAM: &str = "its server's program isn't built: make conformance builds it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    // As cargo's own harness: words choose, flags are for others.
    let wanted: Vec<String> = arguments
        .into_iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let programs = std::env::var_os("PRIO_OPERATOR_STORES").map(PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cells = runtime.block_on(run(&wanted, programs.as_deref()));
    let complete = wanted.is_empty() && programs.is_some();
    report::tell(&cells, complete)
}

async fn run(wanted: &[String], programs: Option<&std::path::Path>) -> Vec<Cell> {
    let root = tempfile::tempdir().unwrap();
    let mut cells = Vec::new();
    for name in BACKENDS {
        let chosen: Vec<_> = OPERATIONS
            .iter()
            .filter(|(operation, _)| wanted.iter().all(|word| operation.contains(word) || name == word))
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let protocol = match name {
            "s3" => Some(Protocol::S3),
            "gcs" => Some(Protocol::Gcs),
            _ => None,
        };
        let backend = match (protocol, programs) {
            (None, _) if name == "memory" => Some(Backend::Memory(MemoryMailbox::new(name))),
            (None, _) => Some(Backend::File(root.path().to_owned())),
            (Some(protocol), Some(programs)) => Some(Backend::Store(Arc::new(Server::start(protocol, programs).await))),
            (Some(_), None) => {
                println!("test {name} ... skipped: {NO_PROGRAM}");
                None
            }
        };
        for (operation, run) in chosen {
            let started = Instant::now();
            let outcome = match &backend {
                Some(backend) => {
                    let backend = match backend {
                        Backend::Memory(_) => Backend::Memory(MemoryMailbox::new(operation)),
                        other => other.clone(),
                    };
                    let stage = Stage {
                        backend,
                        name: (*operation).to_owned(),
                        open: false,
                    };
                    match tokio::spawn(run(stage)).await {
                        Ok(Shown::Yes) => Outcome::Passed(""),
                        Ok(Shown::Asked(reason)) => Outcome::Passed(reason),
                        Ok(Shown::No(reason)) => Outcome::Skipped(reason),
                        Err(error) => Outcome::Failed(report::panic_message(error)),
                    }
                }
                None => Outcome::Skipped(NO_PROGRAM),
            };
            let cell = Cell {
                operation,
                backend: name,
                outcome,
            };
            if backend.is_some() {
                cell.tell(started.elapsed());
            }
            cells.push(cell);
        }
    }
    cells
}
