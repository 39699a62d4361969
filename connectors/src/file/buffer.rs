//! Buffers that a file's blocks are read into, one after the other: one that was used a moment ago is in the CPU's cache, has its pages, and needs no
//! zeroing.

use std::{io, ops::Deref, sync::Arc};

use parking_lot::Mutex;

/// Buffers that wait to be filled again.
#[derive(Debug)]
pub struct Buffers {
    /// The length of each.
    size: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// None yet, of so many bytes each.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, spare: Mutex::default() })
    }

    /// The length of each.
    pub fn size(&self) -> usize {
        self.size
    }

    /// An empty buffer, which comes back when it is dropped.
    pub fn take(self: &Arc<Self>) -> Buffer {
        let room = self.spare.lock().pop().unwrap_or_else(|| vec![0; self.size]);
        Buffer { room, used: 0, home: Some(self.clone()) }
    }
}

/// Bytes, and room for more of them.
#[derive(Debug, Default)]
pub struct Buffer {
    room: Vec<u8>,
    used: usize,
    home: Option<Arc<Buffers>>,
}

impl Buffer {
    /// Lets `read` write behind the bytes, up to a length of `to`, and say how much it wrote.
    pub fn read<E>(&mut self, to: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        if self.room.len() < to {
            self.room.resize(to, 0);
        }
        let got = read(&mut self.room[self.used..to])?;
        self.used += got;
        Ok(got)
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        let to = self.used + bytes.len();
        let copied = self.read(to, |room| {
            room.copy_from_slice(bytes);
            Ok::<_, io::Error>(bytes.len())
        });
        debug_assert!(copied.is_ok(), "nothing fails here");
    }

    /// Forgets the bytes from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.used = self.used.min(length);
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { used: bytes.len(), room: bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // One that a long record has made longer is given up.
        if let Some(home) = self.home.take().filter(|home| home.size == self.room.len()) {
            home.spare.lock().push(std::mem::take(&mut self.room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(buffer: &Buffer) -> &str {
        std::str::from_utf8(buffer).expect("text")
    }

    #[test]
    fn a_buffer_that_was_dropped_is_used_again_and_shows_nothing_of_before() {
        let buffers = Buffers::new(8);
        let mut first = buffers.take();
        first.extend(b"abcdefgh");
        let place = first.as_ptr();
        drop(first);
        let mut second = buffers.take();
        assert_eq!((second.as_ptr(), text(&second)), (place, ""));
        second.extend(b"xy");
        let read = second.read(5, |room| {
            assert_eq!(room.len(), 3);
            room[0] = b'z';
            Ok::<_, ()>(1)
        });
        assert_eq!((read, text(&second)), (Ok(1), "xyz"));
        second.truncate(1);
        assert_eq!(text(&second), "x");
    }

    #[test]
    fn one_that_has_grown_is_not_kept() {
        let buffers = Buffers::new(4);
        let mut long = buffers.take();
        long.extend(b"abcdefgh");
        assert_eq!(text(&long), "abcdefgh");
        drop(long);
        assert!(buffers.spare.lock().is_empty());
        drop(Buffer::from(b"abcd".to_vec()));
        drop(buffers.take());
        assert_eq!(buffers.spare.lock().len(), 1);
    }
}
