//! What a person sees while a run goes on: one moving line on a terminal, a plain line now and then elsewhere.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weir_engine::Event;

use super::number::{bytes, count, counted, duration_ms, rate};

/// Time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Nowhere.
    Nothing,
    /// Lines on standard error.
    Lines,
    /// A moving line on the terminal.
    Terminal,
}

/// Turns events into what a person sees. Clones share one display.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    bar: ProgressBar,
    state: std::sync::Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    started: Instant,
    said: Instant,
    bytes_total: Option<u64>,
}

impl Progress {
    /// Starts the clock.
    pub fn new(show: Show) -> Self {
        let target = if show == Show::Terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(spinner_style());
        if show == Show::Terminal {
            bar.set_message("planning");
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let now = Instant::now();
        Self { show, bar, state: std::sync::Mutex::new(Seen { started: now, said: now, bytes_total: None }) }
    }

    /// Takes one event.
    pub fn take(&self, event: &Event) {
        match event {
            Event::Started { run, bytes_total } => {
                if let Ok(mut seen) = self.state.lock() {
                    seen.bytes_total = *bytes_total;
                }
                if let Some(total) = bytes_total.filter(|total| *total > 0) {
                    self.bar.set_style(bar_style());
                    self.bar.set_length(total);
                }
                self.bar.set_message("reading");
                self.line(&format!("run {run} started"));
            }
            Event::Progress { rows_read, bytes_read, rows_rejected } => self.moved(*rows_read, *bytes_read, *rows_rejected),
            Event::Staged => self.phase("staged; checking expectations and books"),
            Event::Publishing => self.phase("publishing"),
            Event::Note(note) => self.say(note),
        }
    }

    fn moved(&self, rows: u64, bytes_read: u64, rejected: u64) {
        let Ok(mut seen) = self.state.lock() else { return };
        let elapsed = seen.started.elapsed();
        if self.show == Show::Terminal {
            self.bar.set_position(bytes_read);
            self.bar.set_message(line(rows, bytes_read, rejected, None, elapsed));
        } else if seen.said.elapsed() >= PLAIN_INTERVAL {
            seen.said = Instant::now();
            self.line(&line(rows, bytes_read, rejected, seen.bytes_total, elapsed));
        }
    }

    fn phase(&self, text: &str) {
        self.bar.set_style(spinner_style());
        self.bar.set_message(text.to_owned());
        // Short runs say nothing of their phases where lines stay.
        if self.state.lock().is_ok_and(|seen| seen.started.elapsed() >= PLAIN_INTERVAL) {
            self.line(text);
        }
    }

    /// Writes a sentence that stays, without disturbing the moving line.
    pub fn say(&self, text: &str) {
        match self.show {
            Show::Nothing => {}
            Show::Lines => self.line(text),
            Show::Terminal => self.bar.suspend(|| to_stderr(text)),
        }
    }

    fn line(&self, text: &str) {
        if self.show == Show::Lines {
            to_stderr(text);
        }
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A closed standard error is no reason to stop a run.
fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant")
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} {percent:>3}%  {wide_msg}").expect("the template is a constant")
}

fn line(rows: u64, bytes_read: u64, rejected: u64, bytes_total: Option<u64>, elapsed: Duration) -> String {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let per_second = u64::try_from(u128::from(rows) * 1000 / u128::from(ms.max(1))).unwrap_or(u64::MAX);
    let of = bytes_total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
    let rejected = if rejected == 0 { String::new() } else { format!(", {} rejected", count(rejected)) };
    format!("{}{rejected}, {}{of}, {}, {}", counted(rows, "row", "rows"), bytes(bytes_read), rate(per_second), duration_ms(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_rows_bytes_rate_and_time() {
        assert_eq!(line(1, 512, 0, None, Duration::from_millis(500)), "1 row, 512 B, 2 rows/s, 500 ms");
        assert_eq!(
            line(1_200_000, 150_000_000, 12, Some(600_000_000), Duration::from_secs(10)),
            "1,200,000 rows, 12 rejected, 150 MB of 600 MB, 120 k rows/s, 10 s"
        );
        assert_eq!(line(0, 0, 0, None, Duration::ZERO), "0 rows, 0 B, 0 rows/s, 0 ms");
    }

    #[test]
    fn templates_are_valid_and_events_are_taken_quietly_without_a_terminal() {
        let progress = Progress::new(Show::Nothing);
        for event in [
            Event::Started { run: "r".into(), bytes_total: Some(10) },
            Event::Progress { rows_read: 1, bytes_read: 5, rows_rejected: 0 },
            Event::Staged,
            Event::Publishing,
            Event::Note("n".into()),
        ] {
            progress.take(&event);
        }
        assert_eq!(progress.bar.position(), 0, "a hidden line does not move");
        assert_eq!(progress.bar.message(), "publishing");
        progress.finish();
    }
}
