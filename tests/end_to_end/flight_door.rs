//! The Arrow Flight SQL door, through ADBC and pyarrow: types, prepared statements, lists, cancelling, and whom it lets in.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    asked::Asked,
    project::{Project, repository},
    referee,
};

const USERS: [(&str, &str); 3] = [("ann", "sql,files,pipelines"), ("bob", "sql"), ("cid", "runs")];

/// A project with one table, of three versions.
fn project() -> Project {
    let project = Project::new();
    for (rows, text) in [("a", "id,name,amount\n1,ann,1.50\n2,bob,\n"), ("b", "id,name,amount\n3,cid,3.25\n")] {
        project.write(&format!("{rows}.csv"), text);
        project.write(
            "pipeline.toml",
            format!(
                "weir = 1\nname = \"people\"\n[source.rows.file]\npath = \"{rows}.csv\"\n\
                 [transform.typed]\nsql = \"select cast(id as bigint) as id, name, cast(amount as decimal(9,2)) as amount from rows\"\n\
                 [sink.out]\nfrom = \"typed\"\nmode = \"append\"\n[sink.out.lake]\ntable = \"shop.people\"\n"
            ),
        );
        project.run(&["pipeline.toml"]);
    }
    project
}

fn served(settings: &str) -> Option<Asked> {
    Asked::start(project(), settings, &USERS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const ENDLESS: &str = "select a.value as a, b.value as b from generate_series(1, 3000000) a, generate_series(1, 3000000) b";

#[test]
fn adbc_and_pyarrow_ask_list_describe_and_prepare() {
    let Some(mut asked) = served("") else { return };
    let rows = asked.sql("flight", "select id, name, amount from lake.shop.people order by id");
    let wanted = json!([["1", "ann", "1.50"], ["2", "bob", null], ["3", "cid", "3.25"]]);
    assert_eq!((&rows["columns"], &rows["rows"]), (&json!(["id", "name", "amount"]), &wanted), "{rows}");

    // What will come is known before anything is executed.
    let columns = json!([["id", "int64"], ["name", "string"], ["amount", "decimal128(9, 2)"]]);
    let sql = "select * from lake.shop.people";
    assert_eq!(asked.op(&json!({ "op": "schema", "sql": sql }))["columns"], columns);
    let info = asked.op(&json!({ "op": "info", "sql": sql }));
    assert_eq!(info["columns"], columns);
    let got = asked.op(&json!({ "op": "get", "ticket": info["ticket"] }));
    assert_eq!(got["rows"].as_array().unwrap().len(), 3);

    // Values of parameters, by position, several times with one statement.
    let many = json!({
        "op": "adbc_many", "sql": "select name, $2 as text from lake.shop.people where id = $1",
        "rows": [[1, "x"], [3, "é"], [9, null], [2, "'; drop table x"]],
    });
    let answers = asked.op(&many);
    assert_eq!(answers["answers"], json!([[["ann", "x"]], [["cid", "é"]], [], [["bob", "'; drop table x"]]]));
    let schema = asked.op(&json!({ "op": "adbc_many", "sql": "select id from lake.shop.people", "rows": [], "schema": true }));
    assert_eq!(schema["schema"], json!([["id", "int64"]]));

    // Catalogues, schemas, tables, columns.
    let catalogs = asked.op(&json!({ "op": "adbc_objects", "depth": "catalogs" }));
    assert_eq!(catalogs["objects"], json!([["lake"], ["quarantine"]]));
    let schemas = asked.op(&json!({ "op": "adbc_objects", "depth": "db_schemas", "catalog": "lake" }));
    for schema in ["main", "shop", "weir"] {
        assert!(schemas["objects"].as_array().unwrap().contains(&json!(["lake", schema])), "{schemas}");
    }
    let tables = asked.op(&json!({ "op": "adbc_objects", "catalog": "lake", "db_schema": "sh%", "table_name": "peopl_" }));
    let described = json!([["lake", "shop", "people", "TABLE", [["id", 1], ["name", 2], ["amount", 3]]]]);
    assert_eq!(tables["objects"], described);
    let none = asked.op(&json!({ "op": "adbc_objects", "depth": "tables", "catalog": "lake", "db_schema": "shop", "table_name": "x%" }));
    assert_eq!(none["objects"], json!([]));
    let about = asked.op(&json!({ "op": "adbc_about", "catalog": "lake", "schema": "shop", "table": "people" }));
    assert_eq!((&about["info"]["vendor_name"], &about["types"]), (&json!("weir"), &json!(["TABLE", "VIEW"])), "{about}");
    assert_eq!(about["columns"], columns);

    // There are no keys, and that is said with no rows.
    let key_of = |command: &str| json!({ "op": "get", "ticket": ticket(command, &field(3, "people")) });
    for (command, columns) in [("CommandGetPrimaryKeys", 6), ("CommandGetExportedKeys", 13), ("CommandGetImportedKeys", 13)] {
        let keys = asked.op(&key_of(command));
        assert_eq!((keys["rows"].as_array().unwrap().len(), keys["columns"].as_array().unwrap().len()), (0, columns), "{command}");
    }
    let types = asked.op(&json!({ "op": "get", "ticket": ticket("CommandGetXdbcTypeInfo", &[]) }));
    assert_eq!(types["rows"].as_array().unwrap().len(), 14);
    let info = asked.op(&json!({ "op": "get", "ticket": ticket("CommandGetSqlInfo", &[]) }));
    assert!(info["rows"].as_array().unwrap().len() > 30);
    asked.end();
}

/// A message of Flight SQL as a command or ticket.
fn ticket(name: &str, body: &[u8]) -> String {
    let url = format!("type.googleapis.com/arrow.flight.protocol.sql.{name}");
    hex(&[field(1, &url), bytes_field(2, body)].concat())
}

fn field(number: u8, text: &str) -> Vec<u8> {
    bytes_field(number, text.as_bytes())
}

fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        out.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(bytes);
    out
}

#[test]
fn every_type_of_the_matrix_comes_through_as_it_is() {
    let Some(python) = referee::python() else { return };
    let project = Project::new();
    let script = repository().join("tests/support/every_type.py");
    let made = Command::new(&python).arg(&script).arg("make").arg(project.root()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let about: Value = serde_json::from_str(&std::fs::read_to_string(project.path("about.json")).unwrap()).unwrap();
    let names = |key: &str| {
        let names = about[key]["lake"].as_array().into_iter().flatten();
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lossy = [names("lossy"), names("nulls")].concat();
    let without = names("without").join(", ");
    let select = if without.is_empty() { "*".to_owned() } else { format!("* exclude ({without})") };
    project.write(
        "pipeline.toml",
        format!(
            "weir = 1\nname = \"types\"\n[source.rows.file]\npath = \"rows.arrow\"\n[transform.fit]\nsql = \"select {select} from rows\"\n\
             [sink.out]\nfrom = \"fit\"\nallow_lossy = {lossy:?}\n[sink.out.lake]\ntable = \"types.rows\"\n"
        ),
    );
    project.run(&["pipeline.toml"]);
    let Some(mut asked) = Asked::start(project, "", &USERS) else { return };
    for (sql, table, options, compared) in [
        ("select * from lake.types.rows", Some("types.rows"), vec!["--via", "lake"], "693 values of 77 columns are the same"),
        ("select * from file('rows.parquet')", None, vec!["--parquet"], "648 values of 72 columns are the same"),
        ("select * from file('rows.arrow')", None, vec![], "720 values of 80 columns are the same"),
    ] {
        let info = asked.op(&json!({ "op": "info", "sql": sql }));
        let [written, written_by_adbc] = ["pyarrow.arrow", "adbc.arrow"].map(|file| asked.project.path(file).display().to_string());
        let got = asked.op(&json!({ "op": "get", "ticket": info["ticket"], "write": written }));
        let types: Vec<&str> = got["types"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
        for rare in ["string_view", "binary_view", "dictionary", "run_end_encoded", "list_view"] {
            assert!(!types.iter().any(|kind| kind.contains(rare)), "{rare} in {types:?}");
        }
        // ADBC reads them by other code: the columns as they are promised, described and listed, and every value.
        let whole = asked.op(&json!({ "op": "adbc_whole", "sql": sql, "table": table, "write": written_by_adbc }));
        let columns = &whole["columns"];
        assert_eq!((columns, columns), (&info["columns"], &whole["promised"]), "{sql}");
        let column = |at: usize| columns.as_array().unwrap().iter().map(|column| column[at].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((json!(column(0)), column(1)), (whole["described"].clone(), types), "{sql}");
        if table.is_some() {
            assert_eq!(&whole["of_table"], columns);
            let objects = asked.op(&json!({ "op": "adbc_objects", "catalog": "lake", "db_schema": "types", "table_name": "rows" }));
            let listed: Vec<Value> = column(0).iter().zip(1..).map(|(name, place)| json!([name, place])).collect();
            assert_eq!(objects["objects"], json!([["lake", "types", "rows", "TABLE", listed]]));
        }
        for (client, written) in [("pyarrow", &written), ("adbc", &written_by_adbc)] {
            let output = Command::new(&python).arg(&script).arg("check").args(&options).args(["arrow", written.as_str()]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.trim() == compared, "{client}: {sql}: {said}");
        }
    }
    asked.end();
}

#[test]
fn large_rows_and_many_rows_come_in_pieces_that_clients_take() {
    let Some(mut asked) = served("") else { return };
    let sql = "select value, repeat('x', case when value <= 8 then 1000000 else 10 end) as text from generate_series(1, 300000)";
    let info = asked.op(&json!({ "op": "info", "sql": sql }));
    let got = asked.op(&json!({ "op": "get", "ticket": info["ticket"], "write": asked.project.path("rows.arrow").display().to_string() }));
    assert_eq!(got["rows"], 300_000);
    let largest = got["sizes"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).max().unwrap();
    assert!(largest <= 4 << 20, "{largest}");
    // Through ADBC, whose client has a limit of its own.
    let rows = asked.sql("flight", &format!("select count(*) as n, sum(length(text)) as letters from ({sql})"));
    assert_eq!(rows["rows"], json!([["300000", "10999920"]]), "{rows}");
    asked.end();
}

#[test]
fn what_is_wrong_is_said_by_status_code_and_place() {
    let Some(mut asked) = served("[server.sql.user.bob]\nrows = 5\ntime = \"2s\"\n") else { return };
    for (user, sql, grpc, code, text) in [
        ("ann", "select nme from lake.shop.people", "INVALID_ARGUMENT", "unknown-column", "at line 1, column 8"),
        ("ann", "select *\nfrom lake.shop.peple", "INVALID_ARGUMENT", "unknown-table", "at line 2, column 6"),
        ("ann", "selec 1", "INVALID_ARGUMENT", "", "selec"),
        ("ann", "drop table lake.shop.people", "UNAUTHORIZED", "read-only", "only queries"),
        ("bob", "select * from file('a.csv')", "UNAUTHORIZED", "not-allowed", "files"),
        ("bob", "select * from generate_series(1, 100)", "INTERNAL", "too-many-rows", "limit of 5"),
        ("bob", &format!("select count(*) from ({ENDLESS}) where a * b % 7 = 9"), "TIMEOUT", "too-slow", "2"),
        ("cid", "select 1", "UNAUTHORIZED", "not-allowed", "sql"),
    ] {
        let answer = asked.ask(&json!({ "door": "flight", "user": user, "sql": sql }));
        let error = &answer["error"];
        let said = error["text"].as_str().unwrap_or_default();
        assert!(code.is_empty() || error["code"] == code, "{sql}: {answer}");
        assert!(error["grpc"] == grpc || code.starts_with("too-many"), "{sql}: {answer}");
        assert!(said.contains(text), "{sql}: not \"{text}\": {said}");
        assert_eq!(asked.sql("flight", "select 1 as one")["rows"], json!([["1"]]), "after {sql}");
    }
    for (request, code) in [
        (json!({ "op": "act", "type": "BeginTransaction" }), "read-only"),
        (json!({ "op": "act", "type": "CreatePreparedSubstraitPlan" }), "not-served"),
        (json!({ "op": "act", "type": "Fly" }), "not-served"),
        (json!({ "op": "act", "type": "CreatePreparedStatement", "body": "ffff" }), "bad-request"),
        (json!({ "op": "get", "ticket": "" }), "not-served"),
        (json!({ "op": "get", "ticket": "ff" }), "bad-request"),
        (json!({ "op": "put", "command": "CommandStatementUpdate", "sql": "insert into lake.shop.people values (1)" }), "read-only"),
        (json!({ "op": "put", "command": "CommandStatementUpdate", "sql": "select 1" }), "read-only"),
        (json!({ "op": "put", "command": "CommandStatementIngest", "body": "120670656f706c65" }), "read-only"),
        (json!({ "op": "info", "command": "CommandStatementSubstraitPlan", "body": "" }), "not-served"),
    ] {
        assert_eq!(asked.refused(&request).0, code, "{request}");
    }
    let (_, said) = asked.refused(&json!({ "op": "act", "type": "Fly" }));
    assert!(said.contains("error[not-served]: \"Fly\" is not served here\nhelp: send SQL, as a query or a prepared statement"), "{said}");
    let (_, said) = asked.refused(&json!({ "op": "act", "type": "BeginTransaction" }));
    assert!(
        said.contains("error[read-only]: only queries are answered here, nothing is changed\nhelp: tables change by running pipelines"),
        "{said}"
    );
    let (_, said) = asked.refused(&json!({ "op": "get", "ticket": "ff" }));
    assert!(said.contains("error[bad-request]: the request cannot be read: it is no message of Flight SQL"), "{said}");
    asked.end();
}

#[test]
fn nobody_comes_in_without_a_token_and_nobody_opens_what_is_anothers() {
    let Some(mut asked) = served("") else { return };
    let one = "select 1 as one";
    for header in ["", "Bearer weir_wrong", "Bearer", "Basic YW5uOndlaXI=", "Digest x", &format!("Bearer {}", "x".repeat(300))] {
        for op in ["info", "schema", "prepare"] {
            let (code, said) = asked.refused(&json!({ "op": op, "sql": one, "authorization": header }));
            assert_eq!(code, "unauthorized", "{header}: {said}");
            assert!(!said.contains("weir_wrong"), "{said}");
        }
    }
    // A handshake gives a bearer for a token under its own name, and for nothing else.
    let token = asked.tokens["ann"].clone();
    let shaken = asked.op(&json!({ "op": "handshake", "name": "ann", "password": token }));
    assert_eq!((&shaken["name"], &shaken["value"]), (&json!("authorization"), &json!(format!("Bearer {token}"))));
    for (name, password) in [("bob", token.as_str()), ("ann", "weir_wrong"), ("", &token), ("ann", "")] {
        assert_eq!(asked.refused(&json!({ "op": "handshake", "name": name, "password": password })).0, "unauthorized", "{name}");
    }
    let (code, _) = asked.refused(&json!({ "door": "flight", "user": "nobody", "sql": one }));
    assert_eq!(code, "unauthorized");

    // Nothing of a call is waited for where its headers show no token.
    let strangers = asked.op(&json!({ "op": "strangers", "calls": 8 }));
    assert_eq!((&strangers["answered"], &strangers["most"]), (&json!(8), &json!(16)), "{strangers}");

    // Handles and tickets are their user's.
    let handle = asked.op(&json!({ "op": "prepare", "sql": "select name from lake.shop.people where id = $1" }));
    assert_eq!(handle["parameters"], json!([["$1", "int64"]]), "{handle}");
    let statement = &handle["handle"];
    assert_eq!(asked.op(&json!({ "op": "bind", "handle": statement, "rows": [[3]] }))["handle"], *statement);
    for op in ["info", "schema", "get", "bind"] {
        let (code, _) = asked.refused(&json!({ "op": op, "user": "bob", "handle": statement, "rows": [[1]] }));
        assert_eq!(code, "unknown-statement", "{op}");
    }
    asked.op(&json!({ "op": "close", "user": "bob", "handle": statement }));
    assert_eq!(asked.op(&json!({ "op": "get", "handle": statement }))["rows"], json!([["cid"]]), "nobody has closed or bound it");
    let info = asked.op(&json!({ "op": "info", "handle": statement }));
    assert_eq!(asked.refused(&json!({ "op": "get", "user": "bob", "ticket": info["ticket"] })).0, "unknown-ticket");
    assert_eq!(asked.op(&json!({ "op": "get", "ticket": info["ticket"] }))["rows"], json!([["cid"]]));
    assert_eq!(asked.refused(&json!({ "op": "get", "ticket": info["ticket"] })).0, "unknown-ticket", "a ticket is good once");
    asked.op(&json!({ "op": "close", "handle": statement }));
    assert_eq!(asked.refused(&json!({ "op": "get", "handle": statement })).0, "unknown-statement");
    let (_, said) = asked.refused(&json!({ "op": "bind", "handle": "00", "rows": [[1]] }));
    assert!(said.contains("error[unknown-statement]: there is no such prepared statement\nhelp: a statement is its user's own"), "{said}");
    let (_, said) = asked.refused(&json!({ "op": "get", "ticket": info["ticket"] }));
    assert!(said.contains("error[unknown-ticket]: there is no such ticket\nhelp: a ticket is good for one call"), "{said}");

    // What a statement gives is what it gave when it was prepared, or nothing.
    let all = asked.op(&json!({ "op": "prepare", "sql": "select * from lake.shop.people" }))["handle"].clone();
    asked.project.write(
        "pipeline.toml",
        "weir = 1\nname = \"people\"\n[source.rows.file]\npath = \"a.csv\"\n[sink.out]\nfrom = \"rows\"\nmode = \"replace\"\n\
         [sink.out.lake]\ntable = \"shop.people\"\n",
    );
    asked.project.run(&["pipeline.toml"]);
    std::thread::sleep(std::time::Duration::from_millis(600));
    let (_, said) = asked.refused(&json!({ "op": "get", "handle": all }));
    assert!(
        said.contains("error[changed]: the statement has other columns now than when it was prepared\nhelp: prepare it again"),
        "{said}"
    );

    asked.op(&json!({ "op": "close", "handle": all }));

    // A user has so many.
    let mut kept = Vec::new();
    let full = loop {
        let answer = asked.ask(&json!({ "op": "prepare", "sql": one }));
        match answer["handle"].as_str() {
            Some(handle) => kept.push(handle.to_owned()),
            None => break answer,
        }
        assert!(kept.len() <= 100);
    };
    assert_eq!((full["error"]["code"].as_str(), kept.len()), (Some("too-many-statements"), 100), "{full}");
    let said = full["error"]["text"].as_str().unwrap();
    assert!(said.contains("error[too-many-statements]: this user has 100 statements or tickets open already"), "{said}");
    asked.op(&json!({ "op": "prepare", "user": "bob", "sql": one }));
    asked.op(&json!({ "op": "close", "handle": kept[0] }));
    asked.op(&json!({ "op": "prepare", "sql": one }));

    // A token that is revoked opens nothing a little later.
    asked.project.ok(&["serve", "token", "revoke", "bob"]);
    std::thread::sleep(std::time::Duration::from_secs(11));
    assert_eq!(asked.refused(&json!({ "op": "info", "user": "bob", "sql": one })).0, "unauthorized");
    asked.end();
}

#[test]
fn a_query_is_cancelled_by_its_user_and_ends_when_nobody_reads_it() {
    let Some(mut asked) = served("[server.sql.limits]\nqueries = 1\nwait = \"5s\"\nrows = 10_000_000_000\nbytes = \"none\"\n") else {
        return;
    };
    let cancelled = asked.op(&json!({ "op": "cancelled", "sql": ENDLESS }));
    assert_eq!(cancelled["status"], "CANCELLED", "{cancelled}");
    assert!(cancelled["text"].as_str().unwrap_or_default().contains("cancelled"), "{cancelled}");
    // Its place is free: this user has one.
    assert_eq!(asked.sql("flight", "select 1 as one")["rows"], json!([["1"]]));
    let ended = asked.op(&json!({ "op": "adbc_cancel", "sql": ENDLESS }));
    assert_eq!(ended["ended"], "cancelled", "{ended}");
    assert_eq!(asked.sql("flight", "select 2 as two")["rows"], json!([["2"]]));
    let info = asked.op(&json!({ "op": "info", "sql": ENDLESS }));
    assert_eq!(asked.op(&json!({ "op": "get", "ticket": info["ticket"], "batches": 3 }))["batches"], 3, "the reader goes");
    assert_eq!(asked.sql("flight", "select 3 as three")["rows"], json!([["3"]]));
    // One that waits to be fetched is cancelled too, by its user only.
    let info = asked.op(&json!({ "op": "info", "sql": ENDLESS }));
    assert_eq!(asked.op(&json!({ "op": "cancel", "user": "bob" }))["status"], "NOT_CANCELLABLE");
    assert_eq!(asked.op(&json!({ "op": "cancel" }))["status"], "CANCELLED");
    assert_eq!(asked.refused(&json!({ "op": "get", "ticket": info["ticket"] })).0, "unknown-ticket");
    asked.end();
}

#[test]
fn parameters_that_cannot_be_taken_are_refused() {
    let Some(mut asked) = served("") else { return };
    let handle = asked.op(&json!({ "op": "prepare", "sql": "select $1 + 1 as n" }))["handle"].clone();
    let (code, said) = asked.refused(&json!({ "op": "bind", "handle": handle, "rows": [[1], [2]] }));
    assert_eq!(code, "bad-parameters");
    assert!(said.contains("error[bad-parameters]: parameters are one row of values: execute the statement once for each row"), "{said}");
    let (code, _) = asked.refused(&json!({ "op": "bind", "handle": handle, "rows": [["x".repeat(5_000_000)]] }));
    assert!(["bad-parameters", ""].contains(&code.as_str()), "{code}");
    // None are given, and more than there are.
    for rows in [json!([]), json!([[1, 2]])] {
        if rows != json!([]) {
            asked.op(&json!({ "op": "bind", "handle": handle, "rows": rows }));
        }
        let refused = asked.ask(&json!({ "op": "get", "handle": handle }));
        assert!(refused["error"]["code"].is_string(), "{rows}: {refused}");
    }
    asked.op(&json!({ "op": "bind", "handle": handle, "rows": [[41]] }));
    assert_eq!(asked.op(&json!({ "op": "get", "handle": handle }))["rows"], json!([["42"]]));
    asked.end();
}
