//! A file that is put aside before it grows too large: `FILE` becomes `FILE.1`, which becomes `FILE.2`, and so on.
//!
//! (Kept crates for this either lose what they can't write without a word, or print on standard error by themselves, and
//! here it is the point that nothing is lost unsaid.)

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// See the story of this file.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_size: u64,
    /// How many are kept that were put aside.
    kept: usize,
    /// `None` after it could not be opened anew.
    file: Option<File>,
    size: u64,
    /// What is no file, a device or a pipe, is never put aside.
    is_plain: bool,
    /// It ends in half a line.
    torn: bool,
}

impl RotatingFile {
    /// Opens the file at its end; one that is not there is made, for its owner's eyes only.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn open(path: &Path, max_size: u64, kept: usize) -> io::Result<Self> {
        let mut opened = RotatingFile {
            path: path.to_owned(),
            max_size,
            kept,
            file: None,
            size: 0,
            is_plain: true,
            torn: false,
        };
        opened.file()?;
        Ok(opened)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes whole lines, all into one file.
    ///
    /// # Errors
    /// How many bytes of them were written before it failed, and why it did.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        self.try_write(lines, &mut written).map_err(|error| {
            self.torn |= written > 0 && !lines[..written].ends_with(b"\n");
            (written, error)
        })
    }

    fn try_write(&mut self, lines: &[u8], written: &mut usize) -> io::Result<()> {
        if self.is_plain && self.size > 0 && self.size + lines.len() as u64 > self.max_size {
            self.rotate()?;
        }
        if self.torn {
            // What comes next is not to be read as the rest of it.
            self.file()?.write_all(b"\n")?;
            (self.torn, self.size) = (false, self.size + 1);
        }
        while *written < lines.len() {
            match self.file()?.write(&lines[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count;
                    self.size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The file, opened anew if it was put aside.
    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            let file = options
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            let about = file.metadata()?;
            (self.size, self.is_plain) = (about.len(), about.is_file());
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Puts the file aside, and the oldest out.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.kept).rev() {
            match fs::rename(self.name(number), self.name(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // Before it is opened: or a new one that can't be would be put aside over and over.
        (self.file, self.size, self.torn) = (None, 0, false);
        self.file().map(drop)
    }

    /// What the file is called that was put aside so many times.
    fn name(&self, number: usize) -> PathBuf {
        let mut name: OsString = self.path.clone().into();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).expect("a directory");
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read_to_string(&path).expect("text"))
        };
        let mut found: Vec<_> = entries.map(read).collect();
        found.sort();
        found
    }

    #[test]
    fn a_file_is_put_aside_before_it_is_too_large_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut file = RotatingFile::open(&path, 10, 2).expect("it opens");
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n"] {
            file.write(line.as_bytes()).expect("it is written");
        }
        let expected = [
            ("log", "six\n"),
            ("log.1", "four\nfive\n"),
            ("log.2", "three\n"),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn a_file_that_was_there_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        for line in ["one\n", "two\n", "three\n"] {
            let mut file = RotatingFile::open(&path, 9, 1).expect("it opens");
            file.write(line.as_bytes()).expect("it is written");
        }
        let expected = [("log", "three\n"), ("log.1", "one\ntwo\n")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn half_a_line_does_not_spoil_the_next_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut file = RotatingFile::open(&path, 100, 1).expect("it opens");
        file.write(b"ha").expect("it is written");
        file.torn = true;
        file.write(b"whole\n").expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "ha\nwhole\n");
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let mut file = RotatingFile::open(Path::new("/dev/full"), 100, 1).expect("it opens");
        let (written, error) = file.write(b"line\n").expect_err("it is full");
        assert_eq!((written, error.kind()), (0, io::ErrorKind::StorageFull));
        assert!(!file.torn, "nothing of it is there");
    }

    #[test]
    fn a_device_is_not_put_aside() {
        let mut file = RotatingFile::open(Path::new("/dev/null"), 4, 1).expect("it opens");
        for _ in 0..3 {
            file.write(b"line\n").expect("it takes everything");
        }
        assert!(!Path::new("/dev/null.1").exists());
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_does_not_grow() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        // A directory with something in it can't be replaced by a file.
        fs::create_dir_all(directory.path().join("log.1/full")).expect("a directory");
        let mut file = RotatingFile::open(&path, 6, 1).expect("it opens");
        file.write(b"one\n").expect("it fits");
        assert!(file.write(b"two\n").is_err());
        assert_eq!(fs::read_to_string(&path).expect("text"), "one\n");
        fs::remove_dir_all(directory.path().join("log.1")).expect("it goes");
        file.write(b"two\n").expect("it is put aside now");
        assert_eq!(fs::read_to_string(&path).expect("text"), "two\n");
    }
}
