//! Does any file make Weir panic, hang, or say something out of place? Inputs are the files of the cases and of the documentation, mutated; one
//! that makes a target say something new is kept and mutated further. What was found is a case of its own in `tests/cases/`.
//!
//! `./test` tries the same few thousand each time, `./test --all` for a minute per target. For longer, see tests/README.md.

mod checker;
mod mutate;
mod parser;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use weir_pipelines::Diagnostic;

use crate::project::{long, repository};
use mutate::{Numbers, Words};

/// The stack that the command gives its threads.
const STACK_BYTES: usize = 8 << 20;
/// An input that takes longer hangs, as far as a person is concerned.
const PATIENCE: Duration = Duration::from_secs(20);
/// Kept inputs; the corpus is what is new, not what is many.
const KEPT_MAX: usize = 4_000;
/// Longer inputs are slow and show nothing that a shorter one does not.
const BYTES_MAX: usize = 64 << 10;

/// What a target made of an input: what it said in short, by which it is told whether that is new; or what is wrong with what it said.
type Verdict = Result<String, String>;

/// Something that takes texts.
trait Target {
    /// Its name, for files and messages.
    fn name(&self) -> &'static str;
    /// Texts to begin with.
    fn seeds(&self) -> Vec<String>;
    /// Takes one. `world` is the number of the seed that it comes from.
    fn take(&mut self, world: usize, text: &str) -> Verdict;
}

/// Runs a target over mutations of its seeds; `count` of them, or for as long as the environment says.
fn run(target: impl Target + Send + 'static, count: usize) {
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || look(target, count));
    let found = thread.unwrap().join().expect("a target's panics are caught");
    let told: Vec<String> = found.iter().map(|(what, input)| format!("{what}\n--- input ---\n{input}\n-------------")).collect();
    assert!(told.is_empty(), "{} findings\n{}", told.len(), told.join("\n\n"));
}

fn look(mut target: impl Target, count: usize) -> BTreeMap<String, String> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = number("WEIR_FUZZ_SECONDS").or(long().then_some(60));
    let started = Instant::now();
    let is_over = |tried: usize| seconds.map_or(tried >= count, |seconds| started.elapsed().as_secs() >= seconds);
    let mut numbers = Numbers::new(number("WEIR_FUZZ_SEED").unwrap_or(1));
    let mut corpus: Vec<(usize, String)> = target.seeds().into_iter().enumerate().collect();
    assert!(corpus.len() > 20, "the seeds of {} are not found", target.name());
    let words = Words::of(corpus.iter().map(|(_, text)| text.as_str()));
    let last = scratch().join(target.name());
    let mut said = HashSet::new();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let seeds = corpus.len();
    let mut tried = 0;
    while !is_over(tried) && found.len() < 20 {
        // The seeds as they are come first.
        let (world, text) = match corpus.get(tried).filter(|_| tried < seeds) {
            Some(seed) => seed.clone(),
            None => {
                let (world, text) = numbers.pick(&corpus).clone();
                let other = &numbers.pick(&corpus).1;
                (world, mutate::mutated(&text, other, &words, &mut numbers))
            }
        };
        tried += 1;
        if text.len() > BYTES_MAX {
            continue;
        }
        // What ends the process can be read there.
        fs::write(&last, &text).unwrap();
        match verdict(&mut target, world, &text) {
            Ok(short) => {
                if said.insert(short) && tried > seeds && corpus.len() < KEPT_MAX {
                    corpus.push((world, text));
                }
            }
            Err(what) => {
                let key = first_line(&what);
                if !found.keys().any(|known| first_line(known) == key) {
                    let text = smallest(&mut target, world, text, &key);
                    found.insert(what, text);
                }
            }
        }
    }
    let kept = corpus.len() - seeds;
    eprintln!("{}: {tried} inputs in {:.0} s, {kept} kept, {} findings", target.name(), started.elapsed().as_secs_f64(), found.len());
    found
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn verdict(target: &mut impl Target, world: usize, text: &str) -> Verdict {
    let started = Instant::now();
    let verdict = catch_unwind(AssertUnwindSafe(|| target.take(world, text))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", words.unwrap_or_default()))
    });
    match verdict {
        Ok(_) if started.elapsed() > PATIENCE => Err(format!("an answer takes over {} s", PATIENCE.as_secs())),
        verdict => verdict,
    }
}

/// As few lines as still show the finding.
fn smallest(target: &mut impl Target, world: usize, text: String, key: &str) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let until = Instant::now() + PATIENCE;
    let mut size = lines.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < lines.len() && Instant::now() < until {
            let end = (at + size).min(lines.len());
            let fewer: Vec<String> = lines[..at].iter().chain(&lines[end..]).cloned().collect();
            if verdict(target, world, &fewer.concat()).is_err_and(|what| first_line(&what) == key) {
                lines = fewer;
            } else {
                at = end;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    lines.concat()
}

/// What holds of all that is said: spans in their text, source order, one line each, and no word of what is inside.
fn told(found: &[Diagnostic]) -> Verdict {
    for one in found {
        for label in &one.labels {
            let (text, span) = (&label.file.text, &label.span);
            let fits =
                span.start <= span.end && span.end <= text.len() && text.is_char_boundary(span.start) && text.is_char_boundary(span.end);
            if !fits {
                return Err(format!("a span that is not in its text: {} {:?}\n{}", one.code, span, one.message));
            }
        }
        if one.message.is_empty() || one.message.contains('\n') {
            return Err(format!("a message of several lines: {}\n{}\n{:?}", one.code, one.message, one.help));
        }
        let inner = [
            "bug in DataFusion",
            "panicked",
            "DataFusionError",
            "Some(",
            "Int64(",
            "Utf8(",
            "internal error",
            "Internal error",
            "Arrow error",
            "LogicalPlan",
        ];
        let quoted_by_the_file = |word: &str| one.labels.iter().any(|label| label.file.text.contains(word));
        if let Some(word) = inner.iter().find(|word| one.message.contains(**word) && !quoted_by_the_file(word)) {
            return Err(format!("a word of what is inside: {} in {}\n{}", word, one.code, one.message));
        }
    }
    if found.windows(2).any(|pair| pair[0].place() > pair[1].place()) {
        return Err(format!("not in source order\n{:?}", found.iter().map(|one| (one.code, one.place())).collect::<Vec<_>>()));
    }
    let drawn = weir::render::error::render_diagnostics(found, weir::render::Style::PLAIN);
    if drawn.lines().count() < found.len() {
        return Err("a diagnostic is not drawn".into());
    }
    let mut codes: Vec<&str> = found.iter().map(|one| one.code).collect();
    codes.sort_unstable();
    Ok(codes.join(" "))
}

/// The texts of all files below a folder of the repository with one of these endings.
fn texts(folder: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files = crate::lake::files(&repository().join(folder));
    files.sort();
    files.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    files.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

/// The TOML blocks of the documentation.
fn blocks() -> Vec<String> {
    let pages = texts("docs", &[".md"]);
    let of_page = |page: &str| -> Vec<String> {
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
    };
    pages.iter().flat_map(|(_, page)| of_page(page)).collect()
}

#[test]
fn fuzz_the_parser_and_the_formatter() {
    run(parser::Parser, 4_000);
}

#[test]
fn fuzz_the_checker() {
    run(checker::Checking::new(), 600);
}
