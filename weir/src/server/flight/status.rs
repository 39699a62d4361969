//! How is a failure said over gRPC? By a status that programs tell apart, and a message with the code, the place and what to do.

use tonic::{Code, Status, metadata::MetadataValue};
use weir_connectors::Blame;
use weir_engine::Failure;
use weir_pipelines::{Diagnostic, Severity};

/// The trailer that holds our own code.
const CODE: &str = "weir.code";
/// Letters of a message: it is sent as a header, and clients take 8 KB of them.
const MESSAGE_MAX: usize = 2000;

/// The status of a failure.
pub fn of(failure: &Failure) -> Status {
    match failure {
        Failure::Diagnostics(found) => {
            let first = found.iter().find(|one| one.severity == Severity::Error).or(found.first());
            match first {
                Some(first) => say(grpc(first.code, Blame::User), first.code, &first.message, place(first), &first.help),
                None => say(Code::Internal, "internal", "it failed without saying why", None, &[]),
            }
        }
        Failure::Error(error) => {
            say(grpc(error.code, error.blame), error.code, &error.to_string(), error.details.first().cloned(), &error.help)
        }
        Failure::Interrupted => say(Code::Cancelled, "cancelled", "the query was cancelled", None, &[]),
    }
}

/// What gRPC calls what our code says.
fn grpc(code: &str, blame: Blame) -> Code {
    match code {
        "unauthorized" => Code::Unauthenticated,
        "read-only" | "not-allowed" => Code::PermissionDenied,
        "too-many-rows" | "too-many-bytes" | "out-of-memory" | "memory-limit" | "busy" | "too-many-statements" => Code::ResourceExhausted,
        "too-slow" => Code::DeadlineExceeded,
        "cancelled" | "interrupted" => Code::Cancelled,
        "unknown-statement" | "unknown-ticket" => Code::NotFound,
        "not-served" => Code::Unimplemented,
        _ => match blame {
            Blame::User => Code::InvalidArgument,
            Blame::System => Code::Unavailable,
            Blame::Weir => Code::Internal,
        },
    }
}

/// Where a query is wrong.
fn place(diagnostic: &Diagnostic) -> Option<String> {
    let label = diagnostic.labels.first()?;
    let (line, column) = label.file.line_column(label.span.start);
    let text = if label.text.is_empty() { String::new() } else { format!(": {}", label.text) };
    Some(format!("at line {line}, column {column}{text}"))
}

fn say(status: Code, code: &str, message: &str, more: Option<String>, help: &[String]) -> Status {
    let more = more.map(|more| format!("\n{more}")).unwrap_or_default();
    let help: String = help.iter().map(|help| format!("\nhelp: {help}")).collect();
    let mut text = format!("error[{code}]: {message}{more}{help}");
    if let Some((end, _)) = text.char_indices().nth(MESSAGE_MAX) {
        text.truncate(end);
        text.push('…');
    }
    let mut status = Status::new(status, text);
    if let Ok(code) = MetadataValue::try_from(code) {
        status.metadata_mut().insert(CODE, code);
    }
    status
}

#[cfg(test)]
mod tests {
    use weir_pipelines::SourceFile;

    use super::*;

    #[test]
    fn a_status_says_code_place_and_help() {
        let file = SourceFile::new("<sql>", "select 1\nfrom nowhere");
        let wrong =
            Diagnostic::error("unknown-table", "there is no table \"nowhere\"").at(&file, 14..21, "not found").help("look at weir.columns");
        let status = of(&wrong.into());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "error[unknown-table]: there is no table \"nowhere\"\nat line 2, column 6: not found\nhelp: look at weir.columns"
        );
        assert_eq!(status.metadata().get(CODE).and_then(|code| code.to_str().ok()), Some("unknown-table"));
    }

    #[test]
    fn limits_refusals_and_faults_are_told_apart() {
        for (code, blame, wanted) in [
            ("read-only", Blame::User, Code::PermissionDenied),
            ("not-allowed", Blame::User, Code::PermissionDenied),
            ("too-many-rows", Blame::User, Code::ResourceExhausted),
            ("busy", Blame::System, Code::ResourceExhausted),
            ("too-slow", Blame::User, Code::DeadlineExceeded),
            ("cancelled", Blame::User, Code::Cancelled),
            ("unauthorized", Blame::User, Code::Unauthenticated),
            ("unavailable", Blame::System, Code::Unavailable),
            ("run", Blame::Weir, Code::Internal),
            ("run", Blame::User, Code::InvalidArgument),
        ] {
            assert_eq!(of(&Failure::error(code, "x").blame(blame)).code(), wanted, "{code}");
        }
        assert_eq!(of(&Failure::Interrupted).code(), Code::Cancelled);
    }

    #[test]
    fn a_long_message_is_cut() {
        let status = of(&Failure::error("run", "é".repeat(5000)));
        assert_eq!(status.message().chars().count(), MESSAGE_MAX + 1);
    }
}
