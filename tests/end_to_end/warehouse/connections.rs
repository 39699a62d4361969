//! Connections that do not come about: what is said, how weir ends, and that no password shows.

use std::{
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    BOTH, Warehouse,
    proxy::{Proxy, Verdict},
};
use crate::{
    lake,
    project::Outcome,
    servers::{self, Kind},
};

/// Another connection than the fresh database's.
fn connect(warehouse: &Warehouse, from: &str, to: &str) {
    let connection = warehouse.db.connection("wh");
    assert!(connection.contains(from));
    warehouse.project.write("weir.toml", connection.replace(from, to));
}

fn no_trace_of(secret: &str, warehouse: &Warehouse, outcomes: &[&Outcome]) {
    for outcome in outcomes {
        assert!(!outcome.stdout.contains(secret) && !outcome.stderr.contains(secret), "the password shows\n{outcome}");
    }
    for file in lake::files(warehouse.project.path(".weir").as_path()) {
        assert!(!holds(&file, secret), "the password stands in {}", file.display());
    }
}

fn holds(file: &Path, secret: &str) -> bool {
    std::fs::read(file).unwrap().windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[test]
fn a_wrong_password_is_told_and_shows_nowhere() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let secret = "hush-hush-0815";
        connect(&warehouse, warehouse.db.password(), secret);
        warehouse.load("rows", "append", "id,name\n1,a\n");
        let message = match kind {
            Kind::Postgres => "error[wrong-password]: cannot connect to \"wh\" (<place>): password authentication failed for user \"weir\"",
            Kind::Clickhouse => {
                "error[wrong-password]: cannot connect to \"<place>\": weir: Authentication failed: password is incorrect, or there is no user with such name"
            }
        };
        let outcome = warehouse.fails(2, message);
        let others = [
            &["-vvv", "run", "pipeline.toml"][..],
            &["plan", "pipeline.toml"],
            &["run", "--json", "pipeline.toml"],
            &["doctor"],
            &["runs"],
        ]
        .map(|words| warehouse.project.weir(words));
        assert!(!warehouse.exists("rows"));
        no_trace_of(secret, &warehouse, &[&outcome, &others[0], &others[1], &others[2], &others[3], &others[4]]);
        for outcome in &others[1..3] {
            assert!(outcome.code == 2 && format!("{}{}", outcome.stdout, outcome.stderr).contains("wrong-password"), "{outcome}");
        }
        // The right one shows nowhere either, and the same pipeline works.
        warehouse.project.write("weir.toml", warehouse.db.connection("wh"));
        warehouse.runs();
        assert_eq!(warehouse.rows("rows"), "1,a");
        let loud = warehouse.project.ok(&["-vvv", "run", "pipeline.toml"]);
        let doctor = warehouse.project.weir(&["doctor"]);
        no_trace_of(warehouse.db.password(), &warehouse, &[&loud, &doctor]);
    }
}

#[test]
fn an_unknown_host_is_told() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        connect(&warehouse, warehouse.db.place(), "no-such-host.invalid:5999");
        warehouse.load("rows", "append", "id,name\n1,a\n");
        let outcome = warehouse.run();
        let message = warehouse.pick(
            "error[unknown-host]: cannot connect to \"wh\" (no-such-host.invalid:5999): no such host",
            "error[unknown-host]: cannot connect to \"no-such-host.invalid:5999\": no such host",
        );
        warehouse.says(&outcome, 2, message);
        outcome.says(&["correct the host in the connection's \"url\""]);
    }
}

#[test]
fn a_port_where_nobody_listens_is_tried_again_and_told() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let place = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        connect(&warehouse, warehouse.db.place(), &place);
        warehouse.load("rows", "append", "id,name\n1,a\n");
        let outcome = warehouse.project.weir(&["-vv", "run", "pipeline.toml"]);
        let message = match kind {
            Kind::Postgres => format!("error[connection-refused]: step \"out\": cannot connect to \"wh\" ({place}): nobody listens there"),
            Kind::Clickhouse => format!("error[connection-refused]: step \"out\": cannot connect to \"{place}\": nobody answers there"),
        };
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(outcome.stderr.lines().any(|line| line == message), "not \"{message}\"\n{outcome}");
        assert!(outcome.stderr.matches("trying again attempt=5").count() > 1, "each try of the run connects six times\n{outcome}");
        outcome.says(&["nothing was published, trying again in 2 s"]);
    }
}

#[test]
fn a_server_that_is_back_in_a_moment_is_waited_for() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let proxy = Proxy::before(warehouse.db.place(), move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Verdict::Cut,
            _ => Verdict::Pass,
        });
        connect(&warehouse, warehouse.db.place(), proxy.place());
        warehouse.load("rows", "append", "id,name\n1,a\n");
        let outcome = warehouse.project.ok(&["-vv", "run", "pipeline.toml"]);
        assert!(calls.load(Ordering::SeqCst) > 2 && outcome.stderr.matches("trying again").count() >= 2, "{outcome}");
        assert_eq!(warehouse.rows("rows"), "1,a");
        warehouse.tidy();
    }
}

#[test]
fn a_connection_that_is_not_in_the_project_is_told_before_anything_runs() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.load("rows", "append", "id,name\n1,a\n");
        warehouse.project.write("weir.toml", warehouse.db.connection("another"));
        let outcome = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_ne!(outcome.code, 0, "{outcome}");
        outcome.says(&["wh", "another"]);
    }
}

#[test]
fn privileges_that_are_missing_are_named() {
    // The ClickHouse engine of the tests knows one user only.
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("rows", "(1, 'old')");
    let role = format!("guest_{}", &warehouse.db.name[5..]);
    warehouse.db.execute(&[&format!("create role {role} login password 'knock'")]);
    let _gone = Role(&warehouse, role.clone());
    let connection = warehouse.db.connection("wh").replace(&format!("weir:{}@", warehouse.db.password()), &format!("{role}:knock@"));
    warehouse.project.write("weir.toml", connection);
    warehouse.load("rows", "append", "id,name\n2,new\n");
    let told = warehouse.fails(2, &format!("error[no-privilege]: user \"{role}\" may not insert in table \"public.rows\""));
    told.says(&[&format!("let the table's owner say: grant insert on \"public\".\"rows\" to \"{role}\"")]);
    warehouse.load("rows", "merge\nkey = [\"id\"]", "id,name\n2,new\n");
    warehouse.fails(2, &format!("error[no-privilege]: user \"{role}\" may not select, insert, update in table \"public.rows\""));
    // Said and done: what the message asks for is enough, where the ledger may be made.
    warehouse.db.execute(&[&format!("grant insert on rows to {role}"), &format!("grant create on schema public to {role}")]);
    warehouse.load("rows", "append", "id,name\n2,new\n");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,old 2,new");
    // A table of its own in a schema where nobody may make one.
    warehouse.db.execute(&["create schema closed"]);
    warehouse.load("closed.rows", "append", "id,name\n2,new\n");
    let told =
        warehouse.fails(1, "error[no-privilege]: step \"out\": cannot make \"closed.weir_load\": permission denied for schema closed");
    told.says(&["let the schema's owner make the ledger: create schema if not exists \"closed\"; create table if not exists \"closed\".\"weir_load\""]);
    assert!(!told.stderr.contains("could not be removed"), "{told}");
}

/// A role that goes with its test.
struct Role<'a>(&'a Warehouse, String);

impl Drop for Role<'_> {
    fn drop(&mut self) {
        for sql in [format!("drop owned by {}", self.1), format!("drop role {}", self.1)] {
            let _ = self.0.db.try_csv(&sql);
        }
    }
}

/// A pgbouncer in transaction mode, with fewer connections to the server than weir opens to it.
struct Bouncer(std::process::Child);

impl Bouncer {
    fn before(warehouse: &Warehouse, port: u16) -> Option<Self> {
        let program = servers::pgbouncer()?;
        let (host, behind) = warehouse.db.place().split_once(':').unwrap();
        let users = warehouse.project.path("users.txt");
        std::fs::write(&users, format!("\"weir\" \"{}\"\n", warehouse.db.password())).unwrap();
        warehouse.project.write(
            "pgbouncer.ini",
            format!(
                "[databases]\n* = host={host} port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = plain\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 5\nmax_client_conn = 100\n",
                users.display()
            ),
        );
        let mut command = std::process::Command::new(program);
        // It refuses to be root, and reads its files before it becomes somebody else.
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            command.args(["-u", "nobody"]);
        }
        let child = command.arg(warehouse.project.path("pgbouncer.ini")).stderr(std::process::Stdio::null()).spawn().unwrap();
        let bouncer = Self(child);
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(bouncer);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("pgbouncer does not listen");
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn all_modes_and_sources_work_behind_pgbouncer_in_transaction_mode() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(_bouncer) = Bouncer::before(&warehouse, port) else { return };
    connect(&warehouse, warehouse.db.place(), &format!("127.0.0.1:{port}"));
    for (mode, table) in [
        ("append", "appended"),
        ("replace", "replaced"),
        ("merge\nkey = [\"id\"]", "merged"),
        ("delete_insert\nkey = [\"id\"]", "inserted"),
        ("snapshot\nkey = [\"id\"]", "kept"),
    ] {
        for _ in 0..2 {
            warehouse.load(table, mode, &super::many(20_000));
            warehouse.runs();
        }
        let expected = if mode == "append" { "40000" } else { "20000" };
        assert_eq!(warehouse.columns("count(*)", table), expected, "{mode}");
    }
    warehouse.project.write(
        "read.toml",
        "weir = 1\nname = \"read\"\n[source.rows.postgres]\nconnection = \"wh\"\ntable = \"merged\"\n\
         [sink.lake]\nfrom = \"rows\"\nmode = \"replace\"\n[sink.lake.lake]\ntable = \"out.rows\"\n",
    );
    for _ in 0..2 {
        warehouse.project.run(&["read.toml"]);
        assert_eq!(warehouse.project.sql("select count(*) as n, count(distinct id) as ids from lake.out.rows"), ["n,ids", "20000,20000"]);
    }
}
