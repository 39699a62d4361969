//! Where do long answers go? An answer of more lines than the screen has goes through a pager; a shorter one stands on the terminal.

use std::{
    collections::HashMap,
    io::{self, Write},
    process::{Child, Command, Stdio},
};

/// Bytes that are kept back at most before an answer is long whatever its lines.
const KEPT_MAX: usize = 4 << 20;
/// What pages where no variable says so.
const LESS: &str = "less -FRSX";

/// An output that keeps an answer back until it knows whether it is longer than the screen.
pub struct Pager {
    /// The command; none where nothing is paged.
    command: Option<String>,
    /// Lines that fit on the screen.
    lines_max: usize,
    kept: Vec<u8>,
    lines: usize,
    child: Option<Child>,
}

/// The command that pages, as `$PAGER` says, else `less` where there is one.
pub fn command(environment: &HashMap<String, String>) -> Option<String> {
    match environment.get("WEIR_PAGER").or_else(|| environment.get("PAGER")) {
        Some(command) => Some(command.clone()).filter(|command| !command.trim().is_empty()),
        None => {
            let path = environment.get("PATH")?;
            std::env::split_paths(path).any(|folder| folder.join("less").is_file()).then(|| LESS.to_owned())
        }
    }
}

impl Pager {
    /// Starts an answer on a screen of so many lines. Without a command, or on no terminal, it passes through.
    pub fn new(command: Option<String>, lines_max: usize) -> Self {
        Self { command, lines_max, kept: Vec::new(), lines: 0, child: None }
    }

    /// Starts the pager, and gives it what was kept back. Where it cannot be started, there is none.
    fn start(&mut self) -> io::Result<()> {
        let Some(command) = self.command.take() else { return Ok(()) };
        let started = Command::new("sh").args(["-c", &command]).stdin(Stdio::piped()).spawn();
        self.child = started.ok();
        let kept = std::mem::take(&mut self.kept);
        self.pass(&kept)
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pipe) => pipe.write_all(bytes),
            None => io::stdout().lock().write_all(bytes),
        }
    }

    /// Whether the answer goes through the pager by now.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the answer, and waits until it has been read.
    pub fn finish(mut self) -> io::Result<()> {
        let kept = std::mem::take(&mut self.kept);
        let shown = self.pass(&kept).and_then(|()| if self.child.is_none() { io::stdout().lock().flush() } else { Ok(()) });
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait()?;
        }
        shown
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.command.is_none() {
            self.pass(bytes)?;
            return Ok(bytes.len());
        }
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        self.kept.extend_from_slice(bytes);
        if self.lines >= self.lines_max || self.kept.len() > KEPT_MAX {
            self.start()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match (self.command.is_some(), self.child.as_mut().and_then(|child| child.stdin.as_mut())) {
            (true, _) => Ok(()),
            (false, Some(pipe)) => pipe.flush(),
            (false, None) => io::stdout().lock().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // An answer that broke off: what there is of it is read to its end first.
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_goes_through_the_pager_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("paged");
        let paged = |lines: usize| {
            let _ = std::fs::remove_file(&path);
            let mut pager = Pager::new(Some(format!("cat > '{}'", path.display())), 10);
            for line in 0..lines {
                if lines > 10 {
                    writeln!(pager, "{line}").expect("writes");
                }
            }
            pager.finish().expect("ends");
            std::fs::read_to_string(&path).ok()
        };
        assert_eq!(paged(30), Some((0..30).map(|line| format!("{line}\n")).collect::<String>()));
        assert_eq!(paged(3), None);
    }

    #[test]
    fn a_reader_who_has_had_enough_closes_the_pipe() {
        let mut pager = Pager::new(Some("head -n 1 > /dev/null".to_owned()), 2);
        let line = [b'x'; 1 << 16];
        let error = (0..100).find_map(|_| pager.write_all(&line).and_then(|()| pager.write_all(b"\n")).err()).expect("is closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_pager_is_what_the_environment_says() {
        let environment = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(command(&environment(&[("PAGER", "more")])).as_deref(), Some("more"));
        assert_eq!(command(&environment(&[("PAGER", "more"), ("WEIR_PAGER", "less -S")])).as_deref(), Some("less -S"));
        assert_eq!(command(&environment(&[("PAGER", ""), ("PATH", "/usr/bin")])), None);
        assert_eq!(command(&environment(&[("PATH", "/nowhere")])), None);
    }
}
