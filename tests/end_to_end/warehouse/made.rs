//! `weir new --from`: a table of a connection, or a file behind a URL, becomes a pipeline that works.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use serde_json::json;

use super::{BOTH, Warehouse};
use crate::project::Project;

#[test]
fn a_table_becomes_a_pipeline_that_checks_and_runs() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let types = warehouse.pick(
            (
                "create table odd (id bigint primary key, \"First Name\" text, born date, at timestamptz, paid numeric(12,2), ok boolean, tags text[], body jsonb, u uuid, t time)",
                "insert into odd values (1, 'Ann', '1971-02-03', '2026-01-01T00:00:00.5Z', 12.50, true, '{a,b}', '{\"x\": 1}', '00000000-0000-4000-8000-000000000001', '10:30'), (2, null, null, null, null, null, null, null, null, null)",
            ),
            (
                "create table odd (id UInt64, `First Name` Nullable(String), born Nullable(Date32), at Nullable(DateTime64(6, 'UTC')), paid Nullable(Decimal(12,2)), ok Nullable(Bool), tags Array(String), kind LowCardinality(String), u UUID, small UInt8) engine = MergeTree order by id",
                "insert into odd values (1, 'Ann', '1971-02-03', '2026-01-01 00:00:00.5', 12.50, true, ['a','b'], 'k', '00000000-0000-4000-8000-000000000001', 200), (2, null, null, null, null, null, [], 'k', '00000000-0000-4000-8000-000000000002', 0)",
            ),
        );
        warehouse.db.execute(&[types.0, types.1]);
        let table = warehouse.pick("wh.public.odd", "wh.odd");
        let made = warehouse.project.weir(&["new", "odd", "--from", table, "--json"]);
        assert_eq!(made.code, 0, "{made}");
        assert_eq!((&made.json()["rows"], &made.json()["rejected"]), (&json!(2), &json!(0)), "{made}");
        warehouse.project.ok(&["check", "odd"]);
        let text = std::fs::read_to_string(warehouse.project.path("pipelines/odd/pipeline.toml")).unwrap();
        assert!(text.contains(&format!("[source.odd.{}]\nconnection = \"wh\"\n", warehouse.kind.name())), "{text}");
        for _ in 0..2 {
            let summary = warehouse.project.run(&["odd"]);
            assert_eq!((&summary["rows_loaded"], &summary["rows_quarantined"]), (&json!(2), &json!(0)), "{summary}");
        }
        let found = warehouse.project.sql("select id, \"First Name\", born, paid, ok from lake.main.odd");
        assert_eq!(found[1..], ["1,Ann,1971-02-03,12.50,true", "2,,,,"], "{text}");
        // A test of real rows comes from a server too.
        let recorded = warehouse.project.ok(&["test", "odd", "--record", "odd", "--rows", "1", "--json"]).json();
        assert_eq!((&recorded["rows"], &recorded["rows_given"]), (&json!(1), &json!(1)), "{recorded}");
        assert_eq!(warehouse.project.ok(&["test", "--json"]).json()["passed"], json!(1));
        // A name that is taken, a table that is not there, and one without rows.
        let outcome = warehouse.project.weir(&["new", "odd", "--from", table]);
        assert_eq!(outcome.code, 2, "{outcome}");
        outcome.says(&["error[file-exists]: there is already: pipelines/odd/pipeline.toml, pipelines/odd/odd.schema.json"]);
        let outcome = warehouse.project.weir(&["new", "none", "--from", &table.replace("odd", "none")]);
        assert_eq!(outcome.code, 2, "{outcome}");
        outcome.says(&["error[table-missing]"]);
        warehouse.table("empty", "(1, 'a')");
        warehouse.db.execute(&["truncate table empty"]);
        let outcome = warehouse.project.weir(&["new", "none", "--from", &table.replace("odd", "empty")]);
        assert_eq!(outcome.code, 1, "{outcome}");
        outcome.says(&["error[no-rows]"]);
        assert!(!warehouse.project.path("pipelines/none").exists());
    }
}

/// Serves one file, whatever is asked for, in parts where parts are asked for.
fn serve(listener: &TcpListener, content: &[u8]) {
    for stream in listener.incoming() {
        answer(stream.unwrap(), content);
    }
}

fn answer(mut stream: TcpStream, content: &[u8]) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let range = request.lines().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-'));
    let (head, part) = match range {
        Some((from, to)) => {
            let from: usize = from.parse().unwrap();
            let to = to.trim().parse().map_or(content.len(), |to: usize| content.len().min(to + 1));
            (format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", to - 1, content.len()), &content[from..to])
        }
        None => ("200 OK".to_owned(), content),
    };
    let body: &[u8] = if request.starts_with("head") { &[] } else { part };
    let head = format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n",
        part.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[test]
fn a_file_behind_a_url_becomes_a_pipeline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data/visits%20of%202026.csv", listener.local_addr().unwrap());
    std::thread::spawn(move || serve(&listener, b"id,day\n1,2026-01-02\n2,\n"));
    let project = Project::new();
    project.ok(&["new", "visits", "--from", &url]);
    project.ok(&["check"]);
    let text = std::fs::read_to_string(project.path("pipelines/visits/pipeline.toml")).unwrap();
    assert!(text.contains(&format!("path = \"{url}\"\n")), "{text}");
    assert_eq!(project.run(&["visits"])["rows_loaded"], json!(2));
    assert_eq!(project.sql("select id, day from lake.main.visits")[1..], ["1,2026-01-02", "2,"]);
}
