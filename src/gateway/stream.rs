//! An answer in pieces, for one consumer.
//!
//! Worker and consumer share a [`Pipe`] of a few places. Three may wait or speak:
//!
//! | who | does | is woken by |
//! |---|---|---|
//! | the worker | puts a piece in; waits while the pipe is full | the consumer taking one, the end, the consumer leaving |
//! | the consumer | takes a piece; waits while the pipe is empty | a piece, the end |
//! | whoever ends the job | says the end; waits for nobody | |
//!
//! The end can come while the worker waits for a slow consumer (deadline, cancel, stop): it must wake the worker,
//! whose slots are wanted, and that is why this is no channel of crossbeam's, whose blocked sender hears of nothing but
//! its receiver. What is in the pipe by then is still the consumer's; the error follows it.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Gateway;
use super::error::ChatError;
use super::job::Job;
use crate::cancel::CancelReason;
use crate::chat::Piece;
use crate::engine::{CallInfo, JobEnd, JobHandle, Phases, Sink, SinkGone, Speaker};

/// An answer that comes in pieces: see [`Gateway::stream`]. Dropping it ends the call.
///
/// A call that is tried again, which happens only before any content, begins with a head of its own.
///
/// After the last piece of a whole answer comes `None`; else an error, and then `None`. Pieces that came before the error
/// are an answer that broke off.
#[derive(Debug)]
pub struct ChatStream {
    job: JobHandle,
    pipe: Arc<Pipe>,
    /// Nothing comes any more: the end was told.
    over: bool,
}

pub(super) fn open(gateway: &Gateway, job: Job) -> Result<ChatStream, ChatError> {
    let pipe = Arc::new(Pipe::new(job.pieces()));
    let sink: Arc<dyn Sink> = pipe.clone();
    let job = job.submit(gateway, true, sink)?;
    Ok(ChatStream {
        job,
        pipe,
        over: false,
    })
}

impl ChatStream {
    /// The id that the log and `/api/requests` know the job by.
    pub fn request_id(&self) -> &Arc<str> {
        self.job.request_id()
    }

    /// Who answered, if anybody was called, and where the time went. `None` until the job has ended.
    pub fn outcome(&self) -> Option<(Option<CallInfo>, Phases)> {
        self.pipe.outcome()
    }
}

impl Iterator for ChatStream {
    type Item = Result<Piece, ChatError>;

    /// Waits for the next piece. Every job ends by its deadline, so this does too.
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = match self.job.is_on_worker() {
            true => Some(Err(ChatError::WouldDeadlock)),
            false => self.pipe.take(),
        };
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl FusedIterator for ChatStream {}

impl Drop for ChatStream {
    fn drop(&mut self) {
        // First the core's word, which is the one that the log gives; it finds nothing to end where the job has ended.
        self.job.cancel(CancelReason::ClientLeft);
        self.pipe.leave();
    }
}

/// A bounded line of pieces that its writer, its reader and the end of the job meet at.
#[derive(Debug)]
struct Pipe {
    places: usize,
    state: Mutex<State>,
    /// A place is free, or nobody will take a piece any more.
    room: Condvar,
    /// A piece is there, or none will come any more.
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// How the job ended.
    end: Option<JobEnd>,
    /// Nobody reads.
    abandoned: bool,
}

impl Pipe {
    fn new(places: usize) -> Self {
        Pipe {
            places,
            state: Mutex::default(),
            room: Condvar::new(),
            more: Condvar::new(),
        }
    }

    /// Puts a piece in; waits while the pipe is full. The wait ends with the job, which ends by its deadline.
    fn put(&self, piece: Piece) -> Result<(), SinkGone> {
        let mut state = self.state.lock();
        loop {
            if state.abandoned || state.end.is_some() {
                return Err(SinkGone);
            }
            if state.pieces.len() < self.places {
                break;
            }
            self.room.wait(&mut state);
        }
        state.pieces.push_back(piece);
        self.more.notify_one();
        Ok(())
    }

    /// The next piece, or the error at the end; `None` after the last piece of a whole answer.
    fn take(&self) -> Option<Result<Piece, ChatError>> {
        let mut state = self.state.lock();
        while state.pieces.is_empty() && state.end.is_none() {
            self.more.wait(&mut state);
        }
        if let Some(piece) = state.pieces.pop_front() {
            self.room.notify_one();
            return Some(Ok(piece));
        }
        let end = state.end.as_ref()?;
        ChatError::of(&end.verdict).err().map(Err)
    }

    /// What the end said of the call. It is told from here and not by the job, which keeps its end only after it has told
    /// the sink: whoever is woken by the last piece must find it.
    fn outcome(&self) -> Option<(Option<CallInfo>, Phases)> {
        let state = self.state.lock();
        let end = state.end.as_ref()?;
        Some((end.call.clone(), end.phases))
    }

    fn leave(&self) {
        self.state.lock().abandoned = true;
        self.room.notify_one();
    }
}

impl Sink for Pipe {
    fn call(&self, _call: &CallInfo) {
        self.state.lock().pieces.clear();
    }

    fn piece(&self, piece: Piece) -> Result<(), SinkGone> {
        self.put(piece)
    }

    fn end(&self, end: &JobEnd, _speaker: Speaker) {
        self.state.lock().end = Some(end.clone());
        self.room.notify_one();
        self.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    use super::*;
    use crate::chat::Delta;
    use crate::engine::{Phase, Phases, Verdict};

    fn piece(number: usize) -> Piece {
        Piece::Delta(Delta::text(number.to_string()))
    }

    fn end(verdict: Verdict) -> JobEnd {
        JobEnd {
            verdict,
            call: None,
            phases: Phases::default(),
        }
    }

    /// A worker that puts piece after piece in, and says of each whether it was taken.
    fn writer(pipe: &Arc<Pipe>) -> (Receiver<bool>, JoinHandle<()>) {
        let (pipe, (say, said)) = (Arc::clone(pipe), channel());
        let write = move || {
            for number in 0.. {
                let taken = pipe.put(piece(number)).is_ok();
                let _ = say.send(taken);
                if !taken {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("test-writer".into());
        (said, thread.spawn(write).expect("a thread starts"))
    }

    #[test]
    fn a_writer_waits_for_a_reader_that_is_slower_and_loses_nothing() {
        let pipe = Arc::new(Pipe::new(2));
        let (said, thread) = writer(&pipe);
        for number in 0..10 {
            assert_eq!(pipe.take(), Some(Ok(piece(number))));
        }
        pipe.leave();
        thread.join().expect("no panic");
        let taken = said.iter().filter(|taken| *taken).count();
        assert!((10..=12).contains(&taken), "{taken} of 10 read and 2 kept");
    }

    #[test]
    fn the_end_frees_a_writer_that_waits_for_a_reader() {
        let pipe = Arc::new(Pipe::new(2));
        let (said, thread) = writer(&pipe);
        assert_eq!((said.recv(), said.recv()), (Ok(true), Ok(true)));
        let verdict = Verdict::Expired(Phase::Body.into());
        pipe.end(&end(verdict), Speaker::Other);
        thread.join().expect("no panic");
        assert_eq!(said.recv(), Ok(false));
        let error = ChatError::DeadlineExceeded(Phase::Body.into());
        assert_eq!(
            [(); 3].map(|()| pipe.take()),
            [Some(Ok(piece(0))), Some(Ok(piece(1))), Some(Err(error))]
        );
    }

    #[test]
    fn a_reader_that_leaves_frees_its_writer() {
        let pipe = Arc::new(Pipe::new(1));
        let (said, thread) = writer(&pipe);
        assert_eq!(said.recv(), Ok(true));
        pipe.leave();
        thread.join().expect("no panic");
        assert_eq!(said.recv(), Ok(false));
    }

    #[test]
    fn a_whole_answer_ends_without_an_error() {
        let pipe = Pipe::new(2);
        pipe.put(piece(0)).expect("there is room");
        assert_eq!(pipe.outcome(), None);
        pipe.end(&end(Verdict::Completed), Speaker::Worker);
        assert_eq!([pipe.take(), pipe.take()], [Some(Ok(piece(0))), None]);
        assert_eq!(pipe.outcome(), Some((None, Phases::default())));
    }
}
