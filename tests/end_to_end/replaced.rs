//! A file that is replaced between being listed and being read: the run tries again, and its rows are loaded once.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::project::Project;

const BEFORE: &str = "n\n1\n2\n";
const AFTER: &str = "n\n1\n2\n3\n";

/// A web server with one file, which is another from the `replaced_at`th time on that it is fetched. Returns its URL, and how often it was fetched.
fn serve(replaced_at: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rows.csv", listener.local_addr().unwrap());
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    // Ends with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &count, replaced_at);
        }
    });
    (url, fetched)
}

fn answer(mut stream: TcpStream, count: &AtomicUsize, replaced_at: usize) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let Some(request) = head.first() else { return };
    let is_get = request.starts_with("GET ");
    let fetched = count.fetch_add(usize::from(is_get), Ordering::SeqCst) + usize::from(is_get);
    let (tag, rows) = if fetched >= replaced_at { ("after", AFTER) } else { ("before", BEFORE) };
    let body = if is_get { rows } else { "" };
    let length = rows.len();
    write!(stream, "HTTP/1.1 200 OK\r\nETag: \"{tag}\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
}

fn project(url: &str) -> Project {
    Project::with(&format!(
        "weir = 1\nname = \"rows\"\n[source.rows]\nincremental = {{ files = \"new\" }}\n[source.rows.file]\npath = \"{url}\"\n\
         [sink.out]\nfrom = \"rows\"\n[sink.out.lake]\ntable = \"out.rows\"\n"
    ))
}

#[test]
fn a_file_that_is_replaced_before_it_is_read_is_loaded_once() {
    let (url, fetched) = serve(usize::MAX);
    assert_eq!(project(&url).run(&["pipeline.toml"])["rows_loaded"], 2);
    // A run fetches it to learn its columns, and at last for its rows.
    let (url, _) = serve(fetched.load(Ordering::SeqCst));
    let project = project(&url);
    let outcome = project.ok(&["run", "pipeline.toml"]);
    outcome.says(&[&format!("\"{url}\" was changed after it had been listed"), "nothing was published, trying again in 2 s"]);
    assert_eq!(project.sql("select n from lake.out.rows"), ["n", "1", "2", "3"]);
    assert_eq!(project.run(&["pipeline.toml"])["rows_loaded"], 0);
    assert_eq!(project.value("select count(*) from lake.out.rows"), "3");
}
